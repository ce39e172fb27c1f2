"""What is learned, how it is scored, how it is stored, and what it says of a new file and of rows as they come."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from forklift_bench import carrying


@pytest.fixture(scope="module")
def windows() -> pl.DataFrame:
    """Windows of four forklifts and a day, split by machine; the load sensor of the fourth is dead."""
    from pipelines.forklift import features

    made = features.windows(features.steps(carrying(forklifts=5, days=1)), every_s=30)
    cut = pl.col("window_end").quantile(0.7).over("machine")
    split = pl.when(pl.col("machine") == "FL-0005").then(pl.lit("test")).when(pl.col("window_end") < cut)
    return made.with_columns(split=split.then(pl.lit("train")).otherwise(pl.lit("validation")))


@pytest.fixture(scope="module")
def trusted(windows: pl.DataFrame) -> pl.DataFrame:
    return windows.filter(pl.col("machine") != "FL-0004")


@pytest.fixture(scope="module")
def learned(trusted: pl.DataFrame) -> Any:
    from pipelines.forklift import learning

    return learning.learn(trusted, learning.Wish(rounds=15))


def test_a_model_beats_every_baseline_that_sees_as_much_on_a_machine_never_seen(learned: Any) -> None:
    scores, baselines = learned.about["scores"], learned.about["baselines"]
    for figure, better in (("average_precision", 1), ("log_loss", -1)):
        for name in ("majority", "rule"):
            assert better * scores["without_load"][figure] > better * baselines[name][figure], (figure, name)
    assert scores["with_load"]["average_precision"] > scores["without_load"]["average_precision"]
    assert learned.about["splits"]["test"]["machines"] == ["FL-0005"]
    judged = learned.about["splits"]["test"]
    for one in (*baselines.values(), *scores.values()):
        assert (one["windows"], one["carrying"]) == (judged["windows"], judged["carrying"]), "all on the same windows"
    assert {one["kind"] for one in learned.about["tried"]["without_load"]} == {"logistic", "boosting"}
    assert all(one["features"] == 27 for one in learned.about["tried"]["without_load"])
    assert {one["feature"] for one in learned.about["importance"]} == set(learned.fitted["without_load"].features)
    json.dumps(learned.about, allow_nan=False)


def test_the_same_rows_and_seed_give_the_same_predictions(trusted: pl.DataFrame, learned: Any) -> None:
    from pipelines.forklift import learning

    again = learning.learn(trusted, learning.Wish(rounds=15))
    for name, one in learned.fitted.items():
        assert np.array_equal(one.probability(trusted), again.fitted[name].probability(trusted))
    assert again.about == learned.about


def test_no_model_chooses_its_own_rows_to_stop_by() -> None:
    """Rows drawn at random have their neighbours on the other side."""
    from pipelines.forklift import learning

    settings = learning._estimator("boosting", learning.Wish()).get_params()
    assert settings["early_stopping"] is False and settings["random_state"] == 42
    with pytest.raises(learning.ModelError, match="no kind of model called forest"):
        learning._estimator("forest", learning.Wish())


def test_the_rules_ask_what_the_label_asks_and_one_of_them_without_the_load() -> None:
    from pipelines.forklift.learning import rule_of

    asked = [(0.36, 7.2, 1.0), (0.35, 7.2, 1.0), (0.36, 7.21, 1.0), (0.36, 0.0, 0.49), (0.36, 0.0, 0.5)]
    rows = pl.DataFrame(asked, schema=["height_last", "speed_last", "with_load_last"], orient="row")
    assert rule_of(rows).tolist() == [True, False, False, True, True]
    assert rule_of(rows, with_load=True).tolist() == [True, False, False, False, True]


def test_a_prediction_keeps_to_one_thread() -> None:
    from pipelines.forklift.models import Fitted, on_threads
    from threadpoolctl import threadpool_info

    class Estimator:
        def predict_proba(self, values: Any) -> Any:
            self.threads = {one["num_threads"] for one in threadpool_info()}
            return np.full((len(values), 2), 0.5)

    one = Fitted("any", Estimator(), ("speed_last",))
    with on_threads(2):
        assert one.probability(pl.DataFrame({"speed_last": [1.0, 2.0]})).tolist() == [0.5, 0.5]
    assert one.estimator.threads == {1}


def test_one_thread_is_one_also_where_nothing_was_loaded_before() -> None:
    code = (
        "from pipelines.forklift.models import on_threads\n"
        "with on_threads(1):\n"
        "    import sklearn.ensemble, threadpoolctl\n"
        "    print({one['num_threads'] for one in threadpoolctl.threadpool_info()})"
    )
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "{1}"


def test_labels_that_mean_nothing_cannot_be_learned(trusted: pl.DataFrame) -> None:
    """If something of the label were in the features, or of one side on the other, chance would be beaten here."""
    from pipelines.forklift import learning

    chance = trusted.with_columns(carrying=pl.Series(np.random.default_rng(5).random(trusted.height) < 0.4))
    about = learning.learn(chance, learning.Wish(rounds=10, kinds=("boosting",))).about
    for name in ("without_load", "with_load"):
        assert about["scores"][name]["roc_auc"] == pytest.approx(0.5, abs=0.08)


def test_a_machine_without_load_events_is_scored_without_made_up_figures(windows: pl.DataFrame, learned: Any) -> None:
    from pipelines.forklift import learning
    from pipelines.forklift.models import ModelError

    dead = windows.filter(pl.col("machine") == "FL-0004")
    assert dead["carrying"].sum() == 0
    both = pl.concat([dead, windows.filter(pl.col("split") == "test")])
    machines = {one["machine"]: one for one in learning.evaluate(learned.fitted, both)["machines"]["without_load"]}
    assert machines["FL-0004"]["average_precision"] is None and machines["FL-0004"]["roc_auc"] is None
    assert machines["FL-0004"]["recall"] is None and machines["FL-0004"]["windows"] == dead.height
    assert machines["FL-0005"]["roc_auc"] > 0.5
    with pytest.raises(ModelError, match="windows for train say not carrying") as told:
        learning.learn(pl.concat([dead.with_columns(split=pl.lit(s)) for s in learning.SPLITS]), learning.Wish())
    assert "gold.forklift_load_sensor" in told.value.cure
    with pytest.raises(ModelError, match="no windows to use for test"):
        learning.learn(windows.filter(pl.col("split") != "test"), learning.Wish())


# Scores


def test_scores_are_those_that_a_pencil_gives() -> None:
    from pipelines.forklift import scoring

    truth = np.array([True, True, True, False, False, False, False, False])
    said = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.2, 0.1, 0.0])
    found = scoring.scores(truth, said, 0.5)
    assert found["confusion"] == {"tn": 4, "fp": 1, "fn": 1, "tp": 2}
    assert (found["precision"], found["recall"], found["specificity"]) == (2 / 3, 2 / 3, 0.8)
    assert found["f1"] == pytest.approx(2 / 3) and found["balanced_accuracy"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert found["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found["brier"] == pytest.approx(float(((said - truth) ** 2).mean()))
    assert found["roc_auc"] == pytest.approx(14 / 15)
    bins = {round(one["said"], 2): (one["was"], one["windows"]) for one in scoring.reliability(truth, said)}
    assert bins[0.2] == (0.0, 2) and bins[0.3] == (1.0, 1) and sum(n for _, n in bins.values()) == 8
    best = max((scoring.scores(truth, said, t)["f1"], -t) for t in said)
    assert scoring.best_threshold(truth, said) == -best[1]
    assert scoring.scores(truth[:0], said[:0], 0.5)["windows"] == 0
    assert scoring.best_threshold(truth[:3], said[:3]) == 0.5


def test_drift_is_none_for_the_same_rows_and_named_where_a_feature_has_shifted(trusted: pl.DataFrame) -> None:
    from pipelines.forklift import scoring

    before = scoring.reference(trusted, ("speed_mean_60", "height_mean_60"))
    assert {one["says"] for one in scoring.drift(before, trusted)} == {"stable"}
    other = scoring.drift(before, trusted.with_columns(pl.col("speed_mean_60") + 3))
    assert [(one["feature"], one["says"]) for one in other] == [
        ("speed_mean_60", "shifted"),
        ("height_mean_60", "stable"),
    ]


def test_calibration_makes_probabilities_that_are_too_sure_honest() -> None:
    from pipelines.forklift import learning
    from pipelines.forklift.models import calibrated, log_odds

    chance = np.random.default_rng(2)
    honest = chance.uniform(0.05, 0.95, 4000)
    truth = chance.random(4000) < honest
    too_sure = 1 / (1 + np.exp(-3 * log_odds(honest) - 1))
    slope, offset = learning.platt(too_sure, truth)
    assert np.abs(calibrated(too_sure, slope, offset) - honest).max() < 0.05


def test_a_candidate_is_promoted_when_it_is_not_worse_and_there_is_something_to_say() -> None:
    from pipelines.forklift.registry import decide, stages

    def asked(new: float | None, old: float | None = None, **more: Any) -> tuple[bool, str]:
        production = None if old is None and "production_run" not in more else {"average_precision": old}
        said = {"held_out": "h", "candidate_run": "new", "production_run": "old"} | more
        decision = decide({"average_precision": new}, production, **said)
        assert decision.held_out == "h" and (decision.candidate, decision.production) == (new, old)
        return decision.promote, decision.why

    assert asked(0.5)[0] and asked(0.5, 0.5)[0] and asked(0.6, 0.5)[0] and not asked(0.49, 0.5)[0]
    assert asked(0.49, 0.5, tolerance=0.02)[0] and not asked(0.47, 0.5, tolerance=0.02)[0]
    assert not asked(None)[0] and not asked(None, 0.5)[0] and asked(0.1, None, production_run="old")[0]
    assert asked(0.5, 0.5, production_run="new") == (False, "it is in production already")
    trained = [{"version": n, "run_id": run} for n, run in ((4, "d"), (3, "c"), (2, "b"), (1, "a"))]
    served = [{"version": n, "model_run": run} for n, run in ((3, "a"), (2, "c"), (1, "a"))]  # a was brought back
    listed = stages(trained, served)
    assert [one["stage"] for one in listed] == ["candidate", "archived", "candidate", "production"]
    assert [one["served_as"] for one in listed] == [None, 2, None, 3]


# Stored


def test_a_model_that_was_stored_says_the_same_and_a_changed_or_foreign_file_is_not_loaded(
    trusted: pl.DataFrame, learned: Any, tmp_path: Path
) -> None:
    import skops.io
    from pipelines.forklift import models
    from sklearn.preprocessing import FunctionTransformer

    said = models.save(tmp_path, learned.fitted, {"run_id": "r1"})
    assert not list(tmp_path.glob("*.pkl")) and set(said["models"]) == set(models.SETS)
    for name in models.SETS:
        loaded = models.load(tmp_path, name)
        assert np.array_equal(loaded.probability(trusted), learned.fitted[name].probability(trusted))
        assert loaded.threshold == learned.fitted[name].threshold
    with pytest.raises(models.ModelError, match="the windows lack speed_last"):
        loaded.probability(trusted.drop("speed_last"))
    path = tmp_path / "without_load.skops"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(models.ModelError, match=r"not the file that model\.json was written with"):
        models.load(tmp_path)
    # Somebody who can also write model.json still cannot bring code along.
    skops.io.dump(FunctionTransformer(func=models.read_json), path)
    page = models.read_json(tmp_path / models.MODEL)
    page["models"]["without_load"]["sha256"] = models.sha256(path)
    models.write_json(tmp_path / models.MODEL, page)
    with pytest.raises(models.ModelError, match=r"read_json, which is not trusted"):
        models.load(tmp_path)
    with pytest.raises(models.ModelError, match="holds no model"):
        models.load(tmp_path / "nowhere")


def test_a_hash_of_rows_is_of_their_values_and_not_of_their_order(trusted: pl.DataFrame) -> None:
    from pipelines.forklift.models import rows_sha256

    few = trusted.head(200)
    keys = ("machine", "window_start")
    assert rows_sha256(few, keys) == rows_sha256(
        few.sample(fraction=1, shuffle=True, seed=1).select(sorted(few.columns)), keys
    )
    changed = few.with_columns(
        pl.when(pl.int_range(200) == 7).then(pl.col("speed_last") + 1e-3).otherwise("speed_last")
    )
    assert rows_sha256(few, keys) != rows_sha256(changed, keys)
    assert rows_sha256(few, keys) != rows_sha256(few.with_columns(split=pl.lit("test")), keys)


# Predictions


@pytest.fixture(scope="module")
def telemetry() -> pl.DataFrame:
    """An hour and a half of two machines on duty, without the load signal."""
    rows = carrying(forklifts=2, days=1).filter(pl.col("on_duty")).unique(["machine", "ts"], keep="last")
    hour = pl.col("ts").dt.hour()
    return rows.filter(hour.is_in([6, 7]) | hour.is_in([14, 15])).drop("load", "carrying").sort("ts", "machine")


def test_a_stream_says_what_is_said_of_all_rows_at_once(telemetry: pl.DataFrame, learned: Any) -> None:
    from pipelines.forklift.predict import Stream, predict

    model = learned.fitted["without_load"]
    at_once = predict(telemetry, model).sort("machine", "at")
    stream = Stream(model)
    pieces = [stream.feed(piece) for piece in telemetry.iter_slices(400)]
    said = pl.concat([*pieces, stream.close()])
    assert stream.late == 0 and said.sort("machine", "at").equals(at_once) and at_once.height > 500
    # No answer waits for more than the first row after its step.
    for piece, answers in zip(telemetry.iter_slices(400), pieces, strict=True):
        newest = piece.group_by("machine").agg(pl.col("ts").max())
        assert (answers.join(newest, on="machine").select((pl.col("at") < pl.col("ts")).all()).item()) is True
    stream.feed(telemetry.head(50))
    assert stream.late == 50


def test_a_file_is_read_as_machines_send_it_and_a_wrong_one_is_named(
    telemetry: pl.DataFrame,
    learned: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipelines.forklift import models, predict

    models.save(tmp_path / "model", learned.fitted, {"run_id": "r1"})
    one = telemetry.filter(pl.col("machine") == "FL-0001").head(400)
    sent = one.select(
        pl.lit(1000).alias("fffid"),
        "height",
        pl.lit(0).alias("load"),
        pl.lit(1).alias("on_duty"),
        pl.col("ts").dt.to_string("%Y-%m-%d %H:%M:%S"),
        "latitude",
        "longitude",
        "speed",
    )
    path = tmp_path / "FL-0001.csv"
    sent.write_csv(path, include_header=False, separator=";")
    assert predict.main([str(path), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "said.parquet")]) == 0
    said = pl.read_parquet(tmp_path / "said.parquet")
    # The simulated heights are within the range, so nothing is scaled.
    assert said.equals(predict.predict(one, learned.fitted["without_load"]))
    monkeypatch.setattr("sys.stdin", StringIO(path.read_text()))
    assert predict.main(["--stream", "--machine", "FL-0001", "--model", str(tmp_path / "model")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["probability"] for line in lines] == said["probability"].to_list()
    path.write_text("a;b\n")
    assert predict.main([str(path), "--model", str(tmp_path / "model")]) == 2
    assert "Nothing was written" in capsys.readouterr().err
    assert predict.main([str(path), "--model", str(tmp_path)]) == 2
    assert "rat run forklift.trained_model" in capsys.readouterr().err
    tall = predict.believable(
        one.with_columns(height=pl.col("height") * 2.4 * (6.7 / one["height"].quantile(0.995)))["machine", "height"]
    )
    assert tall["height"].max() == pytest.approx(6.7) and tall["height"].min() >= 0
