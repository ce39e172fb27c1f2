"""The job that runs all of the sales pipeline."""

from dagster import AssetSelection, define_asset_job

sales_pipeline_job = define_asset_job(
    name="sales_pipeline",
    selection=AssetSelection.groups("sales"),
    description="Run full sales pipeline: Bronze → Silver → Gold",
)
