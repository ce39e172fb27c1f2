"""SBIR: awards from federal files to a graph of companies, awards, patents and technologies."""

from dagster import definitions

from ratatouille.dagster import pipeline

from .assets import all_assets
from .checks import all_checks
from .jobs import all_jobs, all_schedules, all_sensors

all_asset_checks = all_checks

__all__ = ["all_asset_checks", "all_assets", "all_jobs", "all_schedules", "all_sensors"]


@definitions
def defs():
    return pipeline(__name__)
