"""Forklift: from telemetry in LakeFS to a registered model that says whether a forklift carries.

What Dagster loads is in repo.py. It loads when it is asked for: the files of this pipeline, which `rat run` builds
without Dagster, import modules that lie beside it.
"""

from importlib import import_module
from typing import Any

# Where all pipelines are loaded together, recipes has a trained_model too: ours is forklift/trained_model there.
prefix_where_taken = "forklift"
__all__ = ["all_asset_checks", "all_assets", "all_jobs", "all_resources", "all_sensors", "defs"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # Dagster looks for definitions among these names


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("pipelines.forklift.repo"), name)
