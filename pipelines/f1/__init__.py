"""F1: from OpenF1 to a leaderboard."""

from dagster import definitions

from ratatouille.dagster import pipeline

from .assets import (
    api_extracted_data,
    bronze_tables_loaded,
    gold_core_tables_built,
    gold_mart_tables_built,
    session_pictures,
    silver_tables_built,
)
from .checks import all_checks
from .jobs import all_jobs, all_schedules, all_sensors

all_assets = [
    api_extracted_data,
    bronze_tables_loaded,
    silver_tables_built,
    gold_core_tables_built,
    gold_mart_tables_built,
    session_pictures,
]
all_asset_checks = all_checks

__all__ = ["all_asset_checks", "all_assets", "all_jobs", "all_schedules", "all_sensors"]


@definitions
def defs():
    return pipeline(__name__)
