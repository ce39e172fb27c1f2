"""What Dagster loads: the chain, its gates, its job. `dagster dev -m pipelines.recipes.definitions` works alone."""

from __future__ import annotations

from dagster import (
    AssetSelection,
    Definitions,
    define_asset_job,
    definitions,
    load_asset_checks_from_modules,
    load_assets_from_modules,
)

from ratatouille.dagster import pipeline

from . import assets, checks

all_assets = load_assets_from_modules([assets])
all_asset_checks = load_asset_checks_from_modules([checks])
CHAIN = ("raw_dataset", "cleaned_dataset", "tokenized_dataset", "train_val_splits", "trained_model")
recipes_job = define_asset_job(
    "recipes_job", AssetSelection.assets(*CHAIN), description="From raw text to an evaluated language model."
)
recipes_data_job = define_asset_job(
    "recipes_data_job", AssetSelection.assets(*CHAIN[:-1]), description="Up to the splits: needs no torch."
)
all_jobs = [recipes_job, recipes_data_job]


@definitions
def defs() -> Definitions:
    return pipeline(__package__)
