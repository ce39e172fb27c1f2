"""📊 Sales Pipeline - Bronze → Silver → Gold"""

from dagster import definitions

from ratatouille.dagster import pipeline

from .assets import (
    sales_bronze,
    sales_gold,
    sales_silver,
)
from .checks import all_checks
from .jobs import sales_pipeline_job

all_assets = [
    sales_bronze,
    sales_silver,
    sales_gold,
]
all_asset_checks = all_checks
all_jobs = [sales_pipeline_job]


@definitions
def defs():
    return pipeline(__name__)
