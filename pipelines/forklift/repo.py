"""What Dagster loads: the chain of the document, its gates, its job and its sensor, with LakeFS wired as `lakefs`.

`dagster dev -m pipelines.forklift`, or by the name in the document `dagster dev -m pipeline`.
"""

from __future__ import annotations

from dagster import AssetSelection, Definitions, SensorDefinition, define_asset_job, definitions

from ratatouille.dagster import pipeline

from .assets import model, training
from .io_managers import forklift_artifacts, forklift_tables

CHAIN = (
    "raw_forklift_snapshot",
    "header_assigned_dataset",
    "cleaned_height_dataset",
    "carrying_dataset",
    "training_dataset",
    "trained_model",
    "model_performance_report",
)
all_assets = [training.training_dataset, model.trained_model, model.model_performance_report, model.production_model]
all_asset_checks = [*training.all_training_checks, *model.all_model_checks]
forklift_training_job = define_asset_job(
    "forklift_training_job",
    AssetSelection.assets("training_dataset", "trained_model", "model_performance_report", "production_model"),
    description="From telemetry to a model that is served if it is not worse.",
)
all_jobs = [forklift_training_job]
all_sensors: list[SensorDefinition] = []
all_resources = {"forklift_artifacts": forklift_artifacts(), "forklift_tables": forklift_tables()}


@definitions
def defs() -> Definitions:
    return pipeline("pipelines.forklift")
