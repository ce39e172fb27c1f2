"""What Dagster loads: the chain of the document, its gates, its job and its sensor, with LakeFS wired as `lakefs`.

`dagster dev -m pipelines.forklift`, or by the name in the document `dagster dev -m pipeline`.
"""

from __future__ import annotations

from dagster import AssetSelection, Definitions, HookContext, define_asset_job, definitions, success_hook

from ratatouille import workspace
from ratatouille.dagster import pipeline

from .assets import ingest, model, processing, reports, training, write_back
from .io_managers import forklift_artifacts, forklift_tables
from .resources.lakefs import lakefs_from_environment
from .sensors import lakefs_new_commit_sensor
from .utils import views

# The table that stands behind each asset which runs a file.
TABLES = {
    "raw_forklift_snapshot": "bronze.forklift_telemetry",
    "header_assigned_dataset": "silver.forklift_header",
    "cleaned_height_dataset": "silver.forklift_heights",
    "carrying_dataset": "silver.forklift_carrying",
}
CHAIN = (*TABLES, "training_dataset", "trained_model", "model_performance_report")


@success_hook
def view_of_the_run(context: HookContext) -> None:
    """Note in artifacts/<run id>/ which version of its table stands for an asset in this run."""
    table = TABLES[context.op.name]
    newest = workspace(__file__).history(table, 1)[0]
    about = {"table": table, "version": newest["version"], "rows": newest["rows_total"], "run": context.run_id}
    about["command"] = f'rat query --at {newest["version"]} "select * from {table}"'  # noqa: S608 - for a person
    views.note_table(context.op.name, context.run_id, about)


_files = [*ingest.all_ingest_assets, *processing.all_processing_assets]
all_assets = [
    *(asset.with_attributes(hook_defs={view_of_the_run}) for asset in _files),
    *(training.training_dataset, model.trained_model, model.model_performance_report, model.production_model),
    *write_back.all_write_back_assets,
    *reports.all_report_assets,
]
all_asset_checks = [
    *ingest.all_ingest_checks,
    *processing.all_processing_checks,
    *training.all_training_checks,
    *model.all_model_checks,
    *write_back.all_write_back_checks,
    *reports.all_report_checks,
]
forklift_training_job = define_asset_job(
    "forklift_training_job",
    AssetSelection.assets(*CHAIN, "production_model", "results_in_lakefs"),
    description="From the telemetry of a commit to a model, which is served if it is not worse than the one before.",
)
all_jobs = [forklift_training_job]
all_sensors = [lakefs_new_commit_sensor]
all_resources = {
    "lakefs": lakefs_from_environment(),
    "forklift_artifacts": forklift_artifacts(),
    "forklift_tables": forklift_tables(),
}


@definitions
def defs() -> Definitions:
    return pipeline("pipelines.forklift")
