"""The models in the lake: which one is served, why, what made it; and that a bad one, or a kill, changes nothing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest
from forklift_bench import CHAIN, STALE_ONLY, Yard, carrying, failure, metadata, yard_in
from lakefs_server import KEY, SECRET, Repository, found_lakefs

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
MODEL = CHAIN[1:]
WORSE = {"trained_model": {"rounds": 1, "kinds": ["boosting"]}}


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return carrying(forklifts=6, days=2).gather_every(3)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, rows: pl.DataFrame) -> Iterator[Yard]:
    """Everything has been built once from six forklifts, one of which has a dead load sensor."""
    with yard_in(tmp_path_factory.mktemp("forklift")) as made:
        made.bring(rows)
        made.first = made.run()  # type: ignore[attr-defined]
        assert made.first.success, failure(made.first)  # type: ignore[attr-defined]
        yield made


def stages(yard: Yard) -> list[str]:
    return [one["stage"] for one in yard.module("lineage").models(yard.workspace)]


def test_one_machine_without_load_events_is_named_and_left_out(yard: Yard) -> None:
    said = metadata(yard.first, "training_dataset")  # type: ignore[attr-defined]
    assert said["machines_without_labels"] == ["FL-0004"]
    assert (
        "FL-0004"
        not in yard.workspace.query("select distinct machine from gold.forklift_training")["machine"].to_list()
    )
    # It has windows all the same: what it does is to be predicted.
    assert (
        yard.workspace.query("select count(*) as n from gold.forklift_windows where machine = 'FL-0004'")["n"][0] > 100
    )
    assert said["rows"] > 1000 and "with_load_last" in said["features"]


def test_each_run_is_seen_in_folders_beside_the_pipeline(yard: Yard) -> None:
    run, home = yard.first.run_id, yard.root / "pipelines/forklift"  # type: ignore[attr-defined]
    assert json.loads((home / f"metrics/{run}.json").read_text())["run_id"] == run
    assert (home / f"models/{run}.skops").read_bytes() == (
        yard.current("trained_model") / "without_load.skops"
    ).read_bytes()
    assert {path.name for path in (home / "artifacts" / run).iterdir()} == {*MODEL, "training_dataset.json"}
    assert (
        json.loads((home / f"artifacts/{run}/training_dataset.json").read_text())["table"] == "gold.forklift_training"
    )
    page = (home / f"artifacts/{run}/model_performance_report/report.html").read_text()
    assert page.count("<svg") >= 4 and "<script" not in page and "default-src 'none'" in page


def test_a_report_of_another_model_or_one_that_asks_the_network_does_not_pass(yard: Yard, tmp_path: Path) -> None:
    check = yard.module("assets.model").model_performance_report_is_whole_check
    report, model = tmp_path / "report", tmp_path / "model"
    shutil.copytree(yard.current("model_performance_report"), report)
    shutil.copytree(yard.current("trained_model"), model)
    page, about = (report / "report.html").read_text(), yard.json("model_performance_report", "report.json")

    def passes() -> bool:
        return bool(check(report, model).passed)

    (report / "report.json").write_text(json.dumps(about | {"candidate_sha256": yard.json("trained_model", "model.json")["models"]["without_load"]["sha256"]}))  # fmt: skip
    assert passes()
    for wrong in (page + "<script>", page + '<img src="http://a">', page.replace("<svg", "<p")):
        (report / "report.html").write_text(wrong)
        assert not passes()
    (report / "report.html").write_text(page)
    (report / "report.json").write_text(json.dumps(about | {"candidate_sha256": "another"}))
    assert not passes()


def test_a_worse_model_is_not_promoted_and_one_that_is_as_good_is(yard: Yard) -> None:
    served = yard.json("production_model", "model.json")["run_id"]
    worse = yard.run(*MODEL, config=WORSE)
    assert worse.success and metadata(worse, "model_performance_report")["promote"] is False
    assert "it is worse" in metadata(worse, "production_model")["reason"]
    assert yard.json("trained_model", "model.json")["run_id"] == worse.run_id
    assert yard.json("production_model", "model.json")["run_id"] == served
    assert stages(yard) == ["candidate", "production"]
    decision = yard.json("model_performance_report", "report.json")
    assert decision["promotion"]["margin"] < 0 and decision["drift_against"] == served
    assert {one["says"] for one in decision["drift"]} == {"stable"} and decision["production_scores"]["windows"] > 100
    again = yard.run(*MODEL)
    assert metadata(again, "production_model")["why"].startswith("it is not worse")
    assert stages(yard) == ["production", "candidate", "archived"]
    assert yard.json("model_performance_report", "report.json")["promotion"]["margin"] == 0.0
    # Nothing has changed, so nothing is trained.
    fresh = yard.run(*CHAIN[:3], tags=STALE_ONLY)
    assert {metadata(fresh, name)["status"] for name in CHAIN[:3]} == {"skipped"}


def test_a_model_is_brought_back_and_held_and_says_which_rows_made_it(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RATATOUILLE_WORKSPACE", str(yard.root))
    if len(stages(yard)) == 1:  # the test above may have run in another process
        assert yard.run(*MODEL, config=WORSE).success and yard.run(*MODEL).success
    first, lineage = yard.first.run_id, yard.module("lineage")  # type: ignore[attr-defined]
    assert _rat(monkeypatch, "rollback", "forklift.production_model", "--to", "1") == 0
    capsys.readouterr()
    assert yard.json("production_model", "model.json")["run_id"] == first
    assert stages(yard) == ["archived", "candidate", "production"]
    # What was brought back is held, although the report says that the other one is as good.
    yard.run("production_model")
    assert yard.json("production_model", "model.json")["run_id"] == first
    assert _rat(monkeypatch, "release", "forklift.production_model") == 0
    assert yard.run("production_model").success and stages(yard) == ["production", "candidate", "archived"]
    # A report that compares with another model than the one that is served is no reason to promote.
    assert "since the report" in metadata(yard.run("production_model"), "production_model")["reason"]
    assert _rat(monkeypatch, "rollback", "forklift.production_model", "--to", "1") == 0
    capsys.readouterr()
    assert lineage.main([]) == 0
    told = capsys.readouterr().out
    assert first in told and "they are there, and are the same" in told and "commit     c0ffee01" in told
    assert lineage.main([first[:8], "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (
        about["rows"]["same"]
        and about["made_from"]["version"] == yard.workspace.history("gold.forklift_training")[0]["version"]
    )
    assert about["made_from"]["rows"] == metadata(yard.first, "training_dataset")["rows"]  # type: ignore[attr-defined]
    assert lineage.main(["--list"]) == 0 and capsys.readouterr().out.count("\n") == 3
    assert lineage.main(["nobody"]) == 2 and "--list" in capsys.readouterr().err


def _rat(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    from ratatouille.cli import main

    monkeypatch.setattr(sys, "argv", ["rat", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_training_set_that_leaks_is_stopped_before_anything_is_trained(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = yard.json("trained_model", "model.json")["run_id"]
    version = yard.workspace.history("gold.forklift_training")[0]["version"]
    training = yard.module("assets.training")
    whole = training.rows_sql
    by_chance = "case hash(window_start) % 3 when 0 then 'test' when 1 then 'train' else 'validation' end as split"
    monkeypatch.setattr(training, "rows_sql", lambda *a: f"select * exclude (split), {by_chance} from ({whole(*a)})")
    result = yard.run(*CHAIN)
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    leak = found["training_dataset_does_not_leak_check"]
    assert not result.success and not leak.passed and leak.metadata["machines_on_both_sides"].value > 0
    assert yard.workspace.history("gold.forklift_training")[0]["version"] == version
    assert yard.json("trained_model", "model.json")["run_id"] == before


def test_a_model_that_knows_less_than_the_commoner_answer_never_becomes_current(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = yard.json("trained_model", "model.json")["run_id"]
    learning = yard.module("learning")
    monkeypatch.setattr(learning, "platt", lambda raw, truth: (8.0, 9.0))
    result = yard.run(*MODEL)
    assert not result.success and yard.json("trained_model", "model.json")["run_id"] == before
    assert not {one.check_name: one.passed for one in result.get_asset_check_evaluations()}[
        "trained_model_beats_the_majority_check"
    ]


def test_where_nothing_is_served_yet_a_model_that_is_not_promoted_is_no_success(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yard.module("assets.model"), "_in_production", lambda: (None, ""))
    monkeypatch.setattr(yard.module("scoring"), "scores", lambda *a: {"windows": 9, "average_precision": None})
    result = yard.run(*MODEL[1:])
    assert not result.success and "Nothing is served yet" in failure(result) and "of one class" in failure(result)


@pytest.mark.service
def test_results_go_to_lakefs_where_it_is_wanted_once_and_are_looked_at_there(
    yard: Yard, need_tool: Callable[[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORKLIFT_SECRET", SECRET)
    wanted = {"results_in_lakefs": {"enabled": True}}
    off = yard.run("results_in_lakefs")
    assert off.success and "switched off" in metadata(off, "results_in_lakefs")["why"]
    no_server = yard.run("results_in_lakefs", config=wanted, lakefs={"fallback_local_path": str(tmp_path)})
    assert not no_server.success and "has no branches" in failure(no_server)
    with found_lakefs(need_tool, tmp_path) as address:
        repository = Repository(address, "results-of-models")
        lakefs = {"endpoint_url": address, "repo": repository.name, "access_key": KEY}
        lakefs["secret_key"] = "${FORKLIFT_SECRET}"
        inside = {"results_in_lakefs": {"enabled": True, "folder": "/real_data/results"}}
        refused = yard.run("results_in_lakefs", config=inside, lakefs=lakefs)
        assert not refused.success and "would be read as telemetry" in failure(refused)
        before = repository.client.head().id

        done = yard.run("results_in_lakefs", config=wanted, lakefs=lakefs)
        assert done.success, failure(done)
        receipt = yard.json("results_in_lakefs", "receipt.json")
        head = repository.client.head()
        assert head.id == receipt["commit_id"] != before and head.metadata["run_id"] == done.run_id
        assert head.metadata["written_by"] == "ratatouille/forklift" and repository.branches() == ["main"]
        model = (yard.current("production_model") / "without_load.skops").read_bytes()
        assert repository.read("results/model/without_load.skops") == model
        pulses = pl.read_parquet(BytesIO(repository.read("results/pulses.parquet")))
        carried = yard.workspace.query("select count(*) as n from silver.forklift_carrying where carrying")["n"][0]
        assert pulses["rows"].sum() == carried > 100 and set(pulses["commit_id"]) == {"c0ffee01"}
        again = yard.run("results_in_lakefs", config=wanted, lakefs=lakefs)
        assert again.success and "the same results" in metadata(again, "results_in_lakefs")["reason"]
        assert repository.client.head().id == head.id

        # Somebody who commits other bytes for the same name does not become our result.
        writing = yard.module("assets.write_back")
        monkeypatch.setattr(writing, "_receipt", dict)
        monkeypatch.setattr(writing, "sha256_of", lambda path: "0" * 64)
        other = yard.run("results_in_lakefs", config=wanted, lakefs=lakefs)
        assert not other.success and yard.json("results_in_lakefs", "receipt.json") == receipt


def test_only_the_windows_of_a_machine_that_changed_are_computed_again(yard: Yard, rows: pl.DataFrame) -> None:
    before = yard.workspace.query("select count(*) as n from gold.forklift_windows where machine = 'FL-0002'")["n"][0]
    changed = pl.col("machine") == "FL-0002"
    yard.bring(rows.with_columns(speed=pl.when(changed).then(pl.col("speed") / 2).otherwise("speed")))
    done = yard.workspace.run("gold.forklift_windows")
    assert 0 < done["rows_written"] == before
    yard.bring(rows)


def test_a_damaged_model_is_not_used_and_the_command_that_helps_is_named(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RATATOUILLE_WORKSPACE", str(yard.root))
    predict = yard.module("predict")
    assert predict.served().features
    path = yard.current("production_model") / "without_load.skops"
    whole = path.read_bytes()
    path.unlink()  # it may be one file with that of another version
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (tmp_path / "a.csv").write_text("1;0;0;1;2026-03-02 06:00:00;51;13;0\n")
    assert predict.main([str(tmp_path / "a.csv")]) == 2
    assert "forklift.production_model is damaged" in capsys.readouterr().err
    path.unlink()
    path.write_bytes(whole)
