"""Jobs, schedules and the sensor of the pipeline: one job for each group of the design, and one for everything.

Each takes the mode of its assets as run config: incremental (the default), or full_refresh. Schedules and sensor are
stopped until you start them.
"""

from dagster import AssetSelection, DefaultScheduleStatus, RunConfig, ScheduleDefinition, define_asset_job

from ratatouille.dagster import alert_on_failure, file_sensor

from .assets import Mode, all_assets

_everything = AssetSelection.assets(*all_assets)

sbir_pipeline_job = define_asset_job(
    "sbir_pipeline_job", _everything, description="All five stages: extract, validate, enrich, transform, load."
)
sbir_ingestion_job = define_asset_job("sbir_ingestion_job", _everything & AssetSelection.groups("sbir_ingestion"))
enrichment_job = define_asset_job("enrichment_job", _everything & AssetSelection.groups("enrichment"))
cet_pipeline_job = define_asset_job("cet_pipeline_job", _everything & AssetSelection.groups("cet_pipeline"))
patent_loading_job = define_asset_job("patent_loading_job", _everything & AssetSelection.groups("patent_loading"))
graph_construction_job = define_asset_job(
    "graph_construction_job", _everything & AssetSelection.groups("graph_construction")
)
all_jobs = [
    sbir_pipeline_job,
    sbir_ingestion_job,
    enrichment_job,
    cet_pipeline_job,
    patent_loading_job,
    graph_construction_job,
]

daily_sbir_incremental = ScheduleDefinition(
    name="daily_sbir_incremental",
    job=sbir_pipeline_job,
    cron_schedule="0 3 * * *",
    default_status=DefaultScheduleStatus.STOPPED,
)
# SAM.gov's file is a month's, and so is SBIR.gov's: once in a while everything is made again from scratch.
monthly_sbir_full_refresh = ScheduleDefinition(
    name="monthly_sbir_full_refresh",
    job=sbir_pipeline_job,
    cron_schedule="0 4 10 * *",
    default_status=DefaultScheduleStatus.STOPPED,
    run_config=RunConfig({one.key.path[-1]: Mode(mode="full_refresh") for one in all_assets}),
)
all_schedules = [daily_sbir_incremental, monthly_sbir_full_refresh]

new_award_file_sensor = file_sensor(
    name="new_award_file_sensor",
    files="landing/sbir/**/*.*",
    job=sbir_pipeline_job,
    every_s=300,
    description="Runs the pipeline on what is new when files arrive in landing/sbir.",
)
# Messages to the addresses in RATATOUILLE_ALERTS: slack://..., mailto://...
sbir_alerts = alert_on_failure(name="sbir_alerts", jobs=all_jobs)
all_sensors = [new_award_file_sensor, sbir_alerts]
