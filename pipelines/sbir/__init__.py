"""SBIR: awards from federal files to a graph of companies, awards, patents and technologies.

What Dagster loads is in definitions.py. It loads when it is asked for: the files of this pipeline, which `rat run`
builds without Dagster, import modules that lie beside it.
"""

from importlib import import_module
from typing import Any

__all__ = ["all_asset_checks", "all_assets", "all_jobs", "all_schedules", "all_sensors", "defs"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # Dagster looks for definitions among these names


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("pipelines.sbir.definitions"), name)
