"""What Dagster loads: the assets of the design, their checks, jobs, schedules and the sensor."""

from dagster import definitions

from ratatouille.dagster import pipeline

from .assets import all_assets
from .checks import all_checks
from .jobs import all_jobs, all_schedules, all_sensors

all_asset_checks = all_checks

__all__ = ["all_asset_checks", "all_assets", "all_jobs", "all_schedules", "all_sensors", "defs"]


@definitions
def defs():
    return pipeline("pipelines.sbir")
