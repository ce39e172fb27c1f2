"""Windows and splits: nothing of the asked moment, nothing of the load signal, nothing of one side on the other."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from forklift_bench import carrying
from polars.testing import assert_frame_equal

NOON = datetime(2026, 3, 2, 12)  # noqa: DTZ001  as the table has it
FEATURES_OF_NOW = ("load", "height", "speed", "latitude", "longitude")


@pytest.fixture(scope="module")
def features() -> Any:
    from pipelines.forklift import features

    return features


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    """Two forklifts for a day."""
    return carrying(forklifts=2, days=1)


@pytest.fixture(scope="module")
def made(features: Any, rows: pl.DataFrame) -> pl.DataFrame:
    return features.windows(features.steps(rows))


def test_nothing_of_the_asked_moment_or_later_is_in_a_window(
    features: Any, rows: pl.DataFrame, made: pl.DataFrame
) -> None:
    for at in made["window_end"].sample(5, seed=1).to_list():
        later = pl.col("ts") >= at
        other = rows.with_columns(
            *(
                pl.when(later).then(pl.col(name) * 0.5 + 1).otherwise(pl.col(name)).alias(name)
                for name in FEATURES_OF_NOW
            )
        )
        known = [*features.KEYS[:3], *features.FEATURES, *features.LOAD_FEATURES]
        before = pl.col("window_end") <= at
        assert_frame_equal(
            made.filter(before).select(known), features.windows(features.steps(other)).filter(before).select(known)
        )


def test_the_features_that_are_served_do_not_know_the_load_signal(
    features: Any, rows: pl.DataFrame, made: pl.DataFrame
) -> None:
    other = features.windows(features.steps(rows.with_columns(load=1 - pl.col("load"))))
    assert_frame_equal(made.select(features.FEATURES), other.select(features.FEATURES))
    assert not made.select(features.LOAD_FEATURES).equals(other.select(features.LOAD_FEATURES))


def test_windows_are_what_a_loop_over_the_rows_would_find(features: Any) -> None:
    chance = np.random.default_rng(3)
    seconds = np.flatnonzero(chance.random(1500) < 0.6)
    seconds = seconds[(seconds < 600) | (seconds > 760)]  # a gap
    start = NOON
    rows = pl.DataFrame(
        {
            "machine": "A",
            "ts": [start + timedelta(seconds=int(s)) for s in seconds],
            "height": chance.choice([0.1, 0.5, 2.0], len(seconds)),
            "load": chance.integers(0, 2, len(seconds)).astype(float),
            "speed": chance.uniform(0, 9, len(seconds)),
            "latitude": 51 + chance.normal(0, 1e-4, len(seconds)),
            "longitude": 13 + chance.normal(0, 1e-4, len(seconds)),
            "on_duty": True,
        }
    )
    made = features.windows(features.steps(rows), every_s=5)
    by_step: dict[int, list[dict[str, Any]]] = {}
    for second, row in zip(seconds, rows.to_dicts(), strict=True):
        by_step.setdefault(int(second) // 5, []).append(row)

    def mean(step: int, name: str) -> float:
        return sum(one[name] for one in by_step[step]) / len(by_step[step])

    expected = {}
    for step in by_step:
        past = [s for s in by_step if step - 12 <= s < step]
        if len(past) < 6:
            continue
        known = sorted(by_step)
        lifts = [s for n, s in enumerate(known) if n and mean(s, "height") - mean(known[n - 1], "height") > 0.1]
        last = max((s for s in lifts if s < step), default=None)
        expected[start + timedelta(seconds=5 * step)] = (
            mean(max(past), "speed") if max(past) == known[known.index(step) - 1] else None,
            sum(mean(s, "speed") for s in past) / len(past),
            max(mean(s, "height") for s in past),
            sum(s in lifts for s in past),
            1800.0 if last is None else 5.0 * (step - last),
        )
    found = made.select("window_end", "speed_last", "speed_mean_60", "height_max_60", "lifts_60", "since_lift").rows()
    assert [at for at, *_ in found] == sorted(expected)
    for at, *values in found:
        assert values == pytest.approx(list(expected[at]), rel=1e-5), at


def test_a_gap_is_no_way_jitter_is_no_turn_and_off_duty_is_nothing(features: Any) -> None:
    """Ten minutes: five that stand, a gap in which the machine has moved 700 m, three that drive straight, two off duty."""
    chance = np.random.default_rng(5)
    seconds = np.concatenate([np.arange(300), np.arange(400, 700)])
    drives = (seconds >= 400) & (seconds < 580)
    rows = pl.DataFrame(
        {
            "machine": "A",
            "ts": [NOON + timedelta(seconds=int(s)) for s in seconds],
            "height": 0.1,
            "load": 0.0,
            "speed": np.where(drives, 3.6, 0.0),
            "latitude": 51 + np.where(seconds < 400, chance.normal(0, 1e-6, 600), 0.0),
            "longitude": 13
            + np.where(seconds < 400, chance.normal(0, 1e-6, 600), 0.01 + (seconds - 400) * 1e-5 * drives),
            "on_duty": seconds < 580,
        }
    )
    every = features.windows(features.steps(rows))
    assert (every["window_end"].dt.epoch("s") % features.STRIDE_S == 0).all() and every["window_end"].is_unique().all()
    assert every.height > 10 and every["window_end"].max() < NOON + timedelta(seconds=580)
    assert features.windows(features.steps(rows), every_s=60).height * 4 <= every.height + 4
    stands = every.filter(pl.col("window_end") <= NOON + timedelta(seconds=300))
    assert stands.height > 10 and stands["turn_60"].max() == 0.0 and every["metres_300"].max() < 300
    driven = every.filter(pl.col("window_end") == NOON + timedelta(seconds=480))["metres_60"][0]
    assert driven == pytest.approx(60 * 1e-5 * 111_320 * np.cos(np.radians(51)), rel=0.1)


def test_the_order_of_rows_and_which_days_come_together_do_not_matter(
    features: Any, rows: pl.DataFrame, made: pl.DataFrame
) -> None:
    assert_frame_equal(made, features.windows(features.steps(rows.sample(fraction=1, shuffle=True, seed=4))))
    apart = [part for _, part in rows.group_by("machine", pl.col("ts").dt.date(), maintain_order=True)]
    assert_frame_equal(
        made, pl.concat(features.windows(features.steps(part)) for part in apart).sort("machine", "window_end")
    )


def test_a_sensor_that_says_nothing_gives_no_windows_and_one_that_pauses_its_last_value(
    features: Any, rows: pl.DataFrame, made: pl.DataFrame
) -> None:
    one = rows.filter(pl.col("machine") == rows["machine"][0])
    assert features.windows(features.steps(one.with_columns(height=pl.lit(None, pl.Float64)))).is_empty()
    pauses = one.with_columns(height=pl.when(pl.col("ts").dt.minute() % 7 == 3).then(None).otherwise(pl.col("height")))
    there = features.windows(features.steps(pauses))
    assert there.height == made.filter(pl.col("machine") == one["machine"][0]).height
    assert sum(there.null_count().row(0)) == 0


# Splits


def placed(windows: pl.DataFrame, **split: Any) -> pl.DataFrame:
    from pipelines.forklift.training_set import Split, rows_sql

    with duckdb.connect() as connection:
        connection.register("windows_of_the_test", windows)
        return connection.sql(rows_sql("windows_of_the_test", Split(**split))).pl()


def fleet(machines: int, hours: int = 20) -> pl.DataFrame:
    """A window each quarter of a minute; the load signal of every fifth machine is dead, the height sensor of every seventh."""
    times = pl.datetime_range(NOON, NOON + timedelta(hours=hours), "15s", eager=True)
    parts = []
    for number in range(machines):
        load = (pl.int_range(len(times)) % 3).cast(pl.Float32) / 2 if number % 5 != 4 else pl.lit(0.0, pl.Float32)
        parts.append(
            pl.DataFrame({"window_end": times}).select(
                pl.lit(f"M{number:02d}").alias("machine"),
                (pl.col("window_end") - pl.duration(seconds=60)).alias("window_start"),
                "window_end",
                (pl.col("window_end") + pl.duration(seconds=4)).alias("target_at"),
                (pl.int_range(len(times)) % 3 == 0).alias("carrying"),
                pl.lit(number % 7 == 6).alias("sensor_broken"),
                load.alias("with_load_300"),
            )
        )
    return pl.concat(parts)


def test_machines_and_times_are_on_one_side_each() -> None:
    rows = placed(fleet(12))
    sides = {split: rows.filter(pl.col("split") == split) for split in ("train", "validation", "test")}
    assert all(side.height > 500 for side in sides.values())
    assert not set(sides["train"]["machine"]) & set(sides["test"]["machine"])
    assert not set(sides["validation"]["machine"]) & set(sides["test"]["machine"])
    cut = sides["train"]["target_at"].max()
    # A window looks back five minutes at most; none that judges sees what was trained on.
    for name in ("validation", "test"):
        assert sides[name]["window_end"].min() - timedelta(seconds=300) >= cut - timedelta(seconds=15)
        assert sides[name]["window_start"].min() > cut
    assert rows.select("machine", "window_start").is_duplicated().sum() == 0


def test_machines_without_labels_are_neither_trained_on_nor_judged_by() -> None:
    rows = placed(fleet(12))
    assert not {"M04", "M09", "M06"} & set(rows["machine"])
    assert placed(fleet(12).with_columns(with_load_300=pl.lit(1.0, pl.Float32))).is_empty()


def test_a_split_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    windows = fleet(12)
    assert_frame_equal(placed(windows), placed(windows.sample(fraction=1, shuffle=True, seed=1)))
    held = [set(placed(windows, random_state=seed).filter(pl.col("split") == "test")["machine"]) for seed in range(6)]
    assert len({frozenset(one) for one in held}) > 1
    few = placed(windows, max_rows=700)
    assert few.height == 700 and few.equals(placed(windows, max_rows=700))
    assert few["split"].n_unique() == 3


def test_a_machine_that_was_held_back_stays_so_when_others_come() -> None:
    small, large = placed(fleet(12), test_share=0.5), placed(fleet(24), test_share=0.5)
    few, many = (set(rows.filter(pl.col("split") == "test")["machine"]) for rows in (small, large))
    trained = set(large.filter(pl.col("split") == "train")["machine"])
    assert few and few < many and not few & trained
    # However few machines there are, one is held back.
    assert placed(fleet(2), test_share=0.0).filter(pl.col("split") == "test")["machine"].n_unique() == 1
