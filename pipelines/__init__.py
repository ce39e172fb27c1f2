"""The pipelines of this repository: each folder is one, and each package exports what Dagster should know of it."""

from . import f1, recipes, sales

_pipelines = (f1, recipes, sales)

all_assets = [asset for one in _pipelines for asset in one.all_assets]
all_asset_checks = [check for one in _pipelines for check in one.all_asset_checks]
all_jobs = [job for one in _pipelines for job in one.all_jobs]
all_schedules = [schedule for one in _pipelines for schedule in getattr(one, "all_schedules", [])]
all_sensors = [sensor for one in _pipelines for sensor in getattr(one, "all_sensors", [])]
