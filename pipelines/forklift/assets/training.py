"""training_dataset: windows with a split, the same for the same seed. The work is in features.py and training_set.py."""

from collections.abc import Iterator

import polars as pl
from dagster import AssetCheckResult, AssetExecutionContext, AssetKey, Config, Failure, MetadataValue, Output, asset
from dagster import asset_check as dagster_check
from pydantic import Field

from ratatouille import RatError, query, run, workspace

from ..features import FEATURES, LOAD_FEATURES
from ..models import rows_sha256
from ..training_set import Split, machines_sql, rows_sql

KEYS = ("machine", "window_start")
WINDOWS, TRAINING = "gold.forklift_windows", "gold.forklift_training"


class TrainingSetConfig(Config):
    """Which windows are trained on. The same numbers give the same rows."""

    random_state: int = Field(
        42, description="which machines are held back, and which rows are left out beyond max_rows"
    )
    test_share: float = Field(0.25, ge=0, lt=1, description="share of the machines that no model is trained on")
    train_share: float = Field(0.7, gt=0, lt=1, description="share of the windows before the cut in time")
    max_rows: int = Field(200_000, gt=0, description="windows at most, drawn evenly")


@asset(
    group_name="ml",
    deps=[AssetKey("carrying_dataset")],
    metadata={"table": TRAINING},
    io_manager_key="forklift_tables",
    output_required=False,
    description="Windows of history with their target, split by machine and by time.",
    compute_kind="duckdb",
)
def training_dataset(
    context: AssetExecutionContext, config: TrainingSetConfig
) -> Iterator[Output[pl.DataFrame | None]]:
    done = run("gold.forklift_windows")
    context.log.info(f"{WINDOWS}: {done['status']}, version {done['version']}")
    split = Split(**config.model_dump())
    at = workspace(__file__).history(WINDOWS, 1)[0]["version"]
    machines = query(machines_sql(WINDOWS, split), at=at)
    rows = query(rows_sql(WINDOWS, split), at=at)
    unlabelled = machines.filter(~pl.col("labelled"))["machine"].to_list()
    if rows.is_empty():
        said = f"no windows can be trained on; machines without labels: {', '.join(unlabelled) or 'none'}"
        state, cure = "Nothing was changed.", "bring telemetry of two forklifts at least, over more than ten minutes"
        raise Failure(description=f"{said}\n{WINDOWS} version {at}\n{state}\nNext: {cure}", allow_retries=False)
    if unlabelled:
        context.log.warning(
            f"Their load signal never changes or their height sensor is broken, so they have no labels: {', '.join(unlabelled)}"
        )
    counts = {split: rows.filter(pl.col("split") == split).height for split in ("train", "validation", "test")}
    context.add_output_metadata(
        {
            "rows": rows.height,
            "features": MetadataValue.json([*FEATURES, *LOAD_FEATURES]),
            "splits": MetadataValue.json(counts),
            "windows_version": at,
            "windows_available": int(machines["windows"].sum()),
            "machines_held_back": MetadataValue.json(machines.filter(pl.col("held_back"))["machine"].to_list()),
            "machines_without_labels": MetadataValue.json(unlabelled),
        }
    )
    if _stands(rows):
        context.add_output_metadata({"status": "skipped", "reason": "the same rows as the version that stands"})
        yield Output(None)
        return
    yield Output(rows)


def _stands(rows: pl.DataFrame) -> bool:
    """Whether the current version holds these very rows. What it reads is no value of the lake, so nobody else can tell."""
    try:
        current = query(f"select * from {TRAINING}")  # noqa: S608 - our own table
    except RatError:
        return False
    return current.schema == rows.schema and rows_sha256(current, KEYS) == rows_sha256(rows, KEYS)


@dagster_check(
    asset=training_dataset, blocking=True, description="Each split has windows, and both answers to learn from."
)
def training_dataset_splits_are_there_check(training_dataset: pl.DataFrame) -> AssetCheckResult:
    counted = training_dataset.group_by("split").agg(pl.len().alias("windows"), pl.col("carrying").sum())
    found = {row["split"]: row for row in counted.iter_rows(named=True)}
    lacking = [split for split in ("train", "validation", "test") if split not in found]
    one_sided = [
        split
        for split in ("train", "validation")
        if split in found and found[split]["carrying"] in (0, found[split]["windows"])
    ]
    said = [f"no windows for {', '.join(lacking)}"] if lacking else []
    said += [f"one answer only in {', '.join(one_sided)}"] if one_sided else []
    return AssetCheckResult(
        passed=not said, description="; ".join(said), metadata={"splits": MetadataValue.json(list(found.values()))}
    )


@dagster_check(
    asset=training_dataset,
    blocking=True,
    description="No machine is on both sides, and no moment before the cut is judged by.",
)
def training_dataset_does_not_leak_check(training_dataset: pl.DataFrame) -> AssetCheckResult:
    sides = {split: training_dataset.filter(pl.col("split") == split) for split in ("train", "validation", "test")}
    shared = set(sides["train"]["machine"]) & set(sides["test"]["machine"])
    trained_until = sides["train"]["target_at"].max()
    early = sum(
        rows.filter(pl.col("window_start") < trained_until).height for name, rows in sides.items() if name != "train"
    )
    forbidden = {"load", "carrying_now", "height", "speed"} & set(training_dataset.columns)
    return AssetCheckResult(
        passed=not shared and not early and not forbidden,
        metadata={
            "machines_on_both_sides": len(shared),
            "windows_that_look_back": early,
            "columns_of_the_moment": len(forbidden),
        },
    )


@dagster_check(asset=training_dataset, blocking=True, description="Every feature has a finite value in every window.")
def training_dataset_is_complete_check(training_dataset: pl.DataFrame) -> AssetCheckResult:
    lacking = [name for name in (*FEATURES, *LOAD_FEATURES) if name not in training_dataset.columns]
    there = [name for name in (*FEATURES, *LOAD_FEATURES) if name not in lacking]
    bad = training_dataset.select(
        (~pl.col(name).is_finite()).sum() + pl.col(name).null_count() for name in there
    ).sum_horizontal()
    return AssetCheckResult(
        passed=not lacking and int(bad[0]) == 0,
        metadata={"missing_features": len(lacking), "values_missing": int(bad[0])},
    )


all_training_checks = [
    training_dataset_splits_are_there_check,
    training_dataset_does_not_leak_check,
    training_dataset_is_complete_check,
]
