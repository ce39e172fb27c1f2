"""Jobs, schedules and the sensor of the pipeline, by the names of its document. Everything is stopped until you start it."""

from dagster import AssetSelection, DefaultScheduleStatus, RunConfig, ScheduleDefinition, define_asset_job

from ratatouille.dagster import alert_on_failure, file_sensor

from .assets import CHAIN, ExtractionConfig

_extraction, _bronze, _silver, _core, _marts = CHAIN

f1_pipeline_job = define_asset_job(
    "f1_pipeline_job", AssetSelection.assets(*CHAIN), description="From the API to the marts."
)
# Its name in the document's example of a run.
f1_data_pipeline = define_asset_job(
    "f1_data_pipeline", AssetSelection.assets(*CHAIN), description="The same as f1_pipeline_job."
)
extraction_job = define_asset_job("extraction_job", AssetSelection.assets(_extraction))
bronze_job = define_asset_job("bronze_job", AssetSelection.assets(_bronze))
silver_job = define_asset_job("silver_job", AssetSelection.assets(_silver))
gold_job = define_asset_job("gold_job", AssetSelection.assets(_core, _marts))
all_jobs = [f1_pipeline_job, f1_data_pipeline, extraction_job, bronze_job, silver_job, gold_job]

daily_f1_pipeline = ScheduleDefinition(
    name="daily_f1_pipeline",
    job=f1_pipeline_job,
    cron_schedule="0 2 * * *",
    default_status=DefaultScheduleStatus.STOPPED,
)
hourly_api_extraction = ScheduleDefinition(
    name="hourly_api_extraction",
    job=extraction_job,
    cron_schedule="0 * * * *",
    default_status=DefaultScheduleStatus.STOPPED,
)
# Lap times are corrected long after a race: once a week everything is read again and compared.
weekly_full_refresh = ScheduleDefinition(
    name="weekly_full_refresh",
    job=f1_pipeline_job,
    cron_schedule="0 3 * * 0",
    default_status=DefaultScheduleStatus.STOPPED,
    run_config=RunConfig({"api_extracted_data": ExtractionConfig(mode="latest", num_sessions=1000, refresh=True)}),
)
all_schedules = [daily_f1_pipeline, hourly_api_extraction, weekly_full_refresh]

# A session's files appear when it is whole; its manifest, which changes before that, is not among them. What the sensor
# asks for extracts nothing, so it cannot start itself.
new_session_file_sensor = file_sensor(
    name="new_session_file_sensor",
    files="landing/f1/**/[!m]*.json*",
    job=f1_pipeline_job,
    asset_selection=CHAIN[1:],
    every_s=300,
    description="Loads sessions that somebody has put into landing/f1, from bronze on.",
)
# Messages to the addresses in RATATOUILLE_ALERTS: slack://..., mailto://...
f1_alerts = alert_on_failure(name="f1_alerts", jobs=all_jobs)
all_sensors = [new_session_file_sensor, f1_alerts]
