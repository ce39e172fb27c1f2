"""The chain in Dagster and by `rat`: what a change rebuilds, what a kill costs, and that damage never travels."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from recipes_bench import CHAIN, DATA, ROOT, STALE_ONLY, Larder, larder_in, statuses

HAS_TORCH = find_spec("torch") is not None
WORKER = Path(__file__).with_name("recipes_worker.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # Dagster's SQLite storage closes its connections when it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def larder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Larder]:
    with larder_in(tmp_path_factory.mktemp("recipes")) as made:
        made.receive(120)
        first = made.run(*DATA, "removed_texts")
        assert first.success and statuses(first) == dict.fromkeys(DATA, "built")
        yield made


def test_the_document_is_kept_by_name(larder: Larder) -> None:
    repository = larder.definitions.get_repository_def()
    graph = repository.asset_graph
    groups = {name: graph.get(dg.AssetKey(name)).group_name for name in CHAIN}
    assert groups == {**dict.fromkeys(DATA, "data_processing"), "trained_model": "training"}
    for above, below in itertools.pairwise(CHAIN):
        assert graph.get(dg.AssetKey(below)).parent_keys == {dg.AssetKey(above)}
    source = (ROOT / "pipelines/recipes/definitions.py").read_text()
    assert "load_asset_checks_from_modules([checks])" in source
    assert (ROOT / "pipelines/recipes" / ".." / "tests" / "test_checks.py").resolve().is_file()
    assert not [key for key in graph.asset_check_keys if key.asset_key == dg.AssetKey("trained_model")]


def test_what_was_removed_and_why_is_a_table(larder: Larder) -> None:
    from ratatouille.handle import Workspace

    rows = Workspace(larder.root).query("select reason, count(*) as n from recipes.removed group by 1").rows()
    listed = pl.read_parquet(larder.current("cleaned_dataset") / "removed.parquet")
    assert dict(rows) == dict(listed.group_by("reason").len().iter_rows())


def test_an_unchanged_chain_builds_nothing_and_a_changed_setting_only_what_follows(
    larder: Larder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = larder.versions()
    assert set(statuses(larder.run(tags=STALE_ONLY)).values()) == {"skipped"}
    assert larder.versions() == before
    shorter = {"tokenized_dataset": {"max_seq_length": 64}}
    assert statuses(larder.run(config=shorter, tags=STALE_ONLY)) == {
        "raw_dataset": "skipped",
        "cleaned_dataset": "skipped",
        "tokenized_dataset": "built",
        "train_val_splits": "built",
    }
    tokens = pl.scan_parquet(larder.current("tokenized_dataset") / "part-*.parquet")
    assert tokens.select(pl.col("input_ids").list.len().max()).collect().item() == 64
    # A version that looks well and is not can be taken back: what the document calls "no rollback".
    from ratatouille.cli import main

    monkeypatch.setenv("RATATOUILLE_WORKSPACE", str(larder.root))
    monkeypatch.setattr(sys, "argv", ["rat", "rollback", "recipes.tokenized_dataset", "--to", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert larder.versions()["tokenized_dataset"] == before["tokenized_dataset"]


def test_a_file_that_was_built_twice_is_stored_once(larder: Larder) -> None:
    result = larder.run("cleaned_dataset")
    assert result.success
    parts = list(larder.home("cleaned_dataset").glob("*/part-00000.parquet"))
    assert len(parts) >= 2 and len({part.stat().st_ino for part in parts}) == 1


def test_one_bit_flipped_in_a_stored_file_is_caught_before_anything_is_computed_from_it(larder: Larder) -> None:
    good = larder.versions()
    part = next(larder.current("cleaned_dataset").glob("part-*.parquet"))
    content, was = bytearray(part.read_bytes()), part.stat()
    content[len(content) // 2] ^= 1
    part.chmod(0o644)
    part.write_bytes(content)
    os.utime(part, ns=(was.st_atime_ns, was.st_mtime_ns))  # the size and the time give nothing away
    result = larder.run("tokenized_dataset")
    assert not result.success
    said = next(e for e in result.all_events if e.is_step_failure).step_failure_data.user_failure_data.description
    assert "recipes.cleaned_dataset is damaged" in said and part.name in said and "Nothing was loaded" in said
    assert larder.versions() == good
    # Built anew it is well again: the damaged file is no version's twin.
    assert larder.run("cleaned_dataset", "tokenized_dataset").success
    # A damaged first step heals by itself, without being told that its source has changed.
    raw = next(larder.current("raw_dataset").glob("part-*.parquet"))
    raw.chmod(0o644)
    raw.write_bytes(b"PAR1")
    healed = larder.run(tags=STALE_ONLY)
    assert healed.success and statuses(healed)["raw_dataset"] == "built"


def test_a_missing_extra_is_said_before_the_first_step(larder: Larder, monkeypatch: pytest.MonkeyPatch) -> None:
    good = larder.versions()
    monkeypatch.setattr(larder.module("extras"), "find_spec", lambda name: None if name == "torch" else find_spec(name))
    larder.receive(130)
    result = larder.run(*CHAIN, config={"trained_model": {"epochs": 1}})
    failed = next(event for event in result.all_events if event.is_step_failure)
    assert failed.step_key == "raw_dataset" and len(statuses(result)) == 1
    said = failed.step_failure_data.user_failure_data.description
    assert "trained_model needs torch, which is not installed" in said and "make setup EXTRAS=recipes" in said
    assert larder.versions() == good
    # Without the last step the extra is not missed.
    assert larder.run(*DATA, tags=STALE_ONLY).success
    larder.receive(120)


def test_a_source_that_is_not_there_says_what_helps(larder: Larder) -> None:
    result = larder.run("raw_dataset", config={"raw_dataset": {"source": "landing/nothing/*.jsonl"}})
    said = next(e for e in result.all_events if e.is_step_failure).step_failure_data.user_failure_data.description
    assert said.splitlines()[0] == "no file is called landing/nothing/*.jsonl" and "pipelines.recipes.corpus" in said


def test_a_model_that_is_not_there_is_missed_with_the_command_that_makes_it(
    larder: Larder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RATATOUILLE_WORKSPACE", str(larder.root))
    generate = larder.module("generate")
    monkeypatch.setattr(generate, "missing", list)
    assert generate.main([]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "recipes.trained_model has no version that can be read",
        "Next: rat run trained_model",
    ]


def test_a_page_of_settings_is_laid_over_ours_and_slips_are_named(
    larder: Larder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = larder.module("settings")
    page = tmp_path / "mine.yaml"
    monkeypatch.setenv("RECIPES_SETTINGS", str(page))
    for text, wrong in (
        ("tokenized_dataset: {max_seq_length: 99}", ""),
        ("tokenised: {a: 1}", "there is no step tokenised"),
        ("trained_model: {sise: tiny}", "trained_model has no setting sise. It has size"),
        ("a: [", "cannot be read"),
    ):
        page.write_text(text)
        settings.settings.cache_clear()
        if wrong:
            with pytest.raises(settings.SettingsError, match=wrong):
                settings.settings()
        else:
            assert settings.settings()["tokenized_dataset"]["max_seq_length"] == 99
    settings.settings.cache_clear()
    # The assets of a page with a slip can be asked for, and say so.
    monkeypatch.setattr(larder.module("assets"), "_WRONG", "mine.yaml: there is no step tokenised")
    result = larder.run("raw_dataset")
    said = next(e for e in result.all_events if e.is_step_failure).step_failure_data.user_failure_data.description
    assert said.startswith("mine.yaml: there is no step tokenised") and "mend the file" in said


# kill -9


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed. Get it with: make setup EXTRAS=recipes")
def test_kill_9_inside_every_step_and_a_rerun_does_only_what_is_unfinished(tmp_path: Path) -> None:
    with larder_in(tmp_path) as larder:
        root = larder.root
    deaths = ["raw_dataset:2", "cleaned_dataset:5", "tokenized_dataset:2", "train_val_splits:1", "trained_model:3"]
    env = os.environ | {"DAGSTER_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(WORKER), str(root), *deaths, "-"]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=550, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    stood: dict[str, list[str]] = {name: [] for name in CHAIN}
    for number, one in enumerate(told[:-1]):
        assert one["ended"] == -signal.SIGKILL, one
        # What was finished before stands and is the same; what died is nowhere to be seen.
        assert [name for name, versions in one["published"].items() if versions] == CHAIN[:number]
        assert all(one["published"][name] == stood[name] for name in CHAIN if stood[name])
        stood = one["published"]
        assert any(f"/{CHAIN[number]}/" in path for path in one["work"])
    checkpoints = [path for path in told[-2]["work"] if path.endswith("state.json")]
    assert len(checkpoints) == 1 and "checkpoint-00000003" in checkpoints[0]
    last = told[-1]
    assert last["success"] and last["statuses"] == {**dict.fromkeys(DATA, "skipped"), "trained_model": "built"}
    assert all(len(versions) == 1 for versions in last["published"].values())
    metrics = root / ".rat/artifacts/recipes.trained_model" / last["published"]["trained_model"][0] / "metrics.json"
    said = json.loads(metrics.read_text())
    assert [step for step, _ in said["curve"]["train"]] == list(range(1, said["steps"] + 1))
    # Nothing is left of the attempts.
    assert {Path(path).name for path in last["work"]} == {".lock"}
    assert not list(root.glob(".rat/artifacts/*/.*-*"))


def test_tokenizing_goes_on_with_the_part_that_was_not_done(larder: Larder, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, stages = larder.module("shards"), larder.module("stages")
    monkeypatch.setattr(shards, "ROWS", 32)
    assert larder.run("raw_dataset", "cleaned_dataset", config={"raw_dataset": {"seed": 5}}).success
    whole, made = shards.write, []

    def write(frame: pl.DataFrame, path: Path) -> None:
        if len(made) >= 2:
            raise KeyboardInterrupt
        whole(frame, path)
        made.append(path.name)

    monkeypatch.setattr(shards, "write", write)
    with pytest.raises(BaseException):  # noqa: B017 - however Dagster hands on an interrupt
        assert larder.run("tokenized_dataset").success
    monkeypatch.setattr(shards, "write", lambda frame, path: (whole(frame, path), made.append(path.name))[0])
    first = list(made)
    assert larder.run("tokenized_dataset").success
    assert len(made) == len(set(made)) and set(first) < set(made)
    assert stages  # the module of this copy, not of the repository


def test_another_process_at_the_same_step_is_told_to_wait(larder: Larder) -> None:
    home = larder.root / ".rat/work/recipes/tokenized_dataset"
    with larder.module("shards").work_folder(home, "somebody else's"):
        result = larder.run("tokenized_dataset")
    said = next(e for e in result.all_events if e.is_step_failure).step_failure_data.user_failure_data.description
    assert said.startswith("another process is making tokenized_dataset") and "Nothing was changed" in said


def test_the_command_line_tells_the_same_story(
    larder: Larder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`rat run` and `rat plan` on the names of the document."""
    from ratatouille.cli import main

    monkeypatch.setenv("RATATOUILLE_WORKSPACE", str(larder.root))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("DAGSTER_HOME", larder.instance.root_directory)
    shutil.rmtree(larder.root / ".rat" / "artifacts")
    shown = []
    for verb in ("run", "plan"):
        monkeypatch.setattr(sys, "argv", ["rat", verb, *DATA])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        shown.append(capsys.readouterr().out)
    assert "4 built" in shown[0]
    fresh = [line.split()[:2] for line in shown[1].splitlines() if line.startswith("recipes.")]
    assert fresh == [["recipes.raw_dataset", "build"], *[[f"recipes.{name}", "skip"] for name in DATA[1:]]]


def test_without_room_a_step_says_so_and_readers_keep_what_they_had(
    tmp_path: Path, mount: Callable[..., None], filled: Callable[..., Any]
) -> None:
    small = tmp_path / "small"
    mount(small, "size=60m")
    changes: dict[str, dict[str, Any]] = {
        "raw_dataset": {"seed": 7, "max_samples": 90},
        "cleaned_dataset": {"near_duplicates": 0.7},
        "tokenized_dataset": {"max_seq_length": 96},
        "train_val_splits": {"seed": 7},
    }
    with larder_in(tmp_path, root=small / "kitchen") as larder:
        larder.receive(150)
        assert larder.run(*DATA).success
        for leave in (0, 300_000):
            for name, change in changes.items():
                before = {one: larder.bytes_of(one) for one in DATA}
                with filled(small, leave):
                    result = larder.run(name, config={name: change})
                    failed = [event for event in result.all_events if event.is_step_failure]
                    if leave and result.success:
                        continue  # it had room enough
                    said = failed[0].step_failure_data.user_failure_data
                    assert said is not None, (name, failed[0].step_failure_data.error)
                    assert "full" in said.description or "No space" in said.description, said.description
                    assert "Next: " in said.description, said.description
                    assert {one: larder.bytes_of(one) for one in DATA} == before
        assert larder.run(*DATA, config=changes).success
        left = [path for path in (larder.root / ".rat/work/recipes").rglob("*") if path.is_file()]
        assert {path.name for path in left} <= {".lock"}


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed. Get it with: make setup EXTRAS=recipes")
def test_smoke_runs_all_of_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script = ROOT / "pipelines/recipes/smoke.sh"
    env = os.environ | {"TMPDIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([str(script), "120"], env=env, capture_output=True, text=True, timeout=500, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "smoke: validation loss" in ran.stdout and "Smoky tofu and rice curry" in ran.stdout
    assert not list(tmp_path.iterdir())
