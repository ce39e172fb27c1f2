"""The pipelines of this repository: each folder is one, and each package exports what Dagster should know of it.

They load when Dagster asks for the lists. A file asset that imports a module of its own pipeline loads neither.
"""

from importlib import import_module
from typing import Any

_PIPELINES = ("f1", "forklift", "recipes", "sales", "sbir")
__all__ = ["all_asset_checks", "all_assets", "all_jobs", "all_schedules", "all_sensors"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    loaded = [import_module(f"pipelines.{one}") for one in _PIPELINES]
    return [each for one in loaded for each in getattr(one, name, [])]
