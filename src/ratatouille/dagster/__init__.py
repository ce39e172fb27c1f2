"""The Dagster face: every file an asset, every gate a check, and native Dagster assets on the lake.

    from ratatouille.dagster import definitions, pipeline, guard, lake_io_manager, asset_check, AssetCheckResult

The only package that imports dagster. Its names load when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "AssetCheckResult": "plain_checks",
    "Batches": "io_managers",
    "Workspace": "component",
    "alert_on_failure": "alerts",
    "artifact_io_manager": "io_managers",
    "asset_check": "plain_checks",
    "code_location": "code_location",
    "dbt_asset": "dbt",
    "dbt_assets": "dbt",
    "definitions": "code_location",
    "file_sensor": "triggers",
    "guard": "guarding",
    "lake_io_manager": "io_managers",
    "pipeline": "code_location",
    "workspace_io_manager": "io_managers",
    "workspace_definitions": "code_location",
}
__all__ = [name for name in _HOMES if name != "code_location"]


def __dir__() -> list[str]:
    # `dg list components` looks for components among these names.
    return sorted({*globals(), *_HOMES})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOMES[name]}")
    return module if name == _HOMES[name] else getattr(module, name)
