"""The eight gates of the chain. Each reads the version that its own run has just stored; none of it is current before."""

from pathlib import Path

import polars as pl
from dagster import AssetCheckResult, asset_check

from . import assets, shards, splitting
from .stages import IDS, MASK


def _rows(folder: Path) -> int:
    return int(shards.scan(folder).select(pl.len()).collect().item())


def _columns(folder: Path) -> list[str]:
    return shards.scan(folder).collect_schema().names()


@asset_check(asset=assets.raw_dataset, blocking=True, description="The sample has rows.")
def raw_dataset_is_nonempty(raw_dataset: Path) -> AssetCheckResult:
    rows = _rows(raw_dataset)
    return AssetCheckResult(passed=rows > 0, metadata={"num_rows": rows})


@asset_check(asset=assets.raw_dataset, blocking=True, description="The source still has the text column.")
def raw_dataset_has_text_column(raw_dataset: Path) -> AssetCheckResult:
    expected, columns = shards.read_json(raw_dataset / shards.ABOUT)["text_column"], _columns(raw_dataset)
    return AssetCheckResult(
        passed=expected in columns, metadata={"expected_column": expected, "columns": ", ".join(columns)}
    )


@asset_check(asset=assets.cleaned_dataset, blocking=True, description="Cleaning has left something.")
def cleaned_dataset_is_nonempty(cleaned_dataset: Path) -> AssetCheckResult:
    rows = _rows(cleaned_dataset)
    return AssetCheckResult(passed=rows > 0, metadata={"num_rows": rows})


@asset_check(asset=assets.cleaned_dataset, blocking=True, description="No text is empty or blank.")
def cleaned_dataset_no_empty_texts(cleaned_dataset: Path) -> AssetCheckResult:
    blank = pl.col("text").is_null() | (pl.col("text").str.strip_chars() == "")
    empty = int(shards.scan(cleaned_dataset).select(blank.sum()).collect().item() or 0)
    return AssetCheckResult(passed=empty == 0, metadata={"empty_count": empty})


@asset_check(asset=assets.tokenized_dataset, blocking=True, description="input_ids and attention_mask are there.")
def tokenized_dataset_has_expected_columns(tokenized_dataset: Path) -> AssetCheckResult:
    columns = _columns(tokenized_dataset)
    missing = [name for name in (IDS, MASK) if name not in columns]
    return AssetCheckResult(
        passed=not missing, metadata={"missing_columns": ", ".join(missing), "columns": ", ".join(columns)}
    )


@asset_check(asset=assets.tokenized_dataset, blocking=True, description="There are sequences.")
def tokenized_dataset_is_nonempty(tokenized_dataset: Path) -> AssetCheckResult:
    rows = _rows(tokenized_dataset)
    return AssetCheckResult(passed=rows > 0, metadata={"num_rows": rows})


@asset_check(asset=assets.tokenized_dataset, blocking=True, description="No sequence is empty or all zeros.")
def tokenized_dataset_sequences_valid(tokenized_dataset: Path) -> AssetCheckResult:
    if IDS not in _columns(tokenized_dataset):
        return AssetCheckResult(passed=False, description=f"There is no column {IDS}.")
    # Counted part by part: a list column of a large corpus is not held in memory at once.
    zero = total = 0
    for part in shards.parts(tokenized_dataset):
        ids = pl.read_parquet(part, columns=[IDS])[IDS]
        zero += int((ids.list.max().fill_null(0) == 0).sum())
        total += len(ids)
    return AssetCheckResult(passed=zero == 0, metadata={"all_zero_sequences": zero, "total_sequences": total})


@asset_check(asset=assets.train_val_splits, blocking=True, description="Both sides are on disk, with texts in them.")
def train_val_splits_exist_on_disk(train_val_splits: Path) -> AssetCheckResult:
    wrong = splitting.problems(train_val_splits)
    there = {f"{side}_exists": (train_val_splits / side).is_dir() for side in splitting.SIDES}
    said = "; ".join(f"{side} {what}" for side, what in wrong.items())
    return AssetCheckResult(passed=not wrong, metadata={**there, "problems": said}, description=said or None)
