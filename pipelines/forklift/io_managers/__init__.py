"""The lake's IO managers, with a view of what each run has made (utils/views.py).

forklift_artifacts   models and reports: versioned folders
forklift_tables      frames: tables

What is kept, gated and read is the lake's business; a view that cannot be written is said in the log, and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from ratatouille.dagster import artifact_io_manager, lake_io_manager

from ..utils import views


class WithViews(dg.IOManager):
    """An IO manager of the lake that also shows what it has stored. `show(context, value)` writes the view."""

    def __init__(self, kept_by: Any, stored: Callable[..., None], loaded: Callable[..., None]) -> None:
        self._kept_by, self._stored, self._loaded = kept_by, stored, loaded

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        self._kept_by.handle_output(context, obj)
        _shown(context, self._stored, context, obj)

    def load_input(self, context: dg.InputContext) -> Any:
        value = self._kept_by.load_input(context)
        _shown(context, self._loaded, context, value)
        return value

    def __getattr__(self, name: str) -> Any:
        # Gates and plans ask the lake's own: which version stands, what a check's verdict means.
        return getattr(self._kept_by, name)


def forklift_artifacts() -> WithViews:
    return WithViews(artifact_io_manager(__file__), _nothing, _link)


def forklift_tables() -> WithViews:
    return WithViews(lake_io_manager(__file__), _note, _nothing)


def _shown(context: Any, show: Callable[..., None], *told: Any) -> None:
    try:
        show(*told)
    except OSError as error:
        context.log.warning(f"The view of this run cannot be written: {error}. What was stored is stored.")


def _nothing(context: Any, value: Any) -> None:
    """Nothing to show."""


def _link(context: dg.InputContext, value: Any) -> None:
    # Each version is read by its checks, also one that they reject, and its folder is called after its run.
    if isinstance(value, Path) and context.has_asset_key:
        views.link_folder(context.asset_key.path[-1], value)


def _note(context: dg.OutputContext, value: Any) -> None:
    if context.has_asset_key and hasattr(value, "height"):
        table = str(context.definition_metadata.get("table", ""))
        about = {"table": table, "run": context.run_id, "rows": value.height, "columns": value.columns}
        views.note_table(context.asset_key.path[-1], context.run_id, about | {"history": f"rat history {table}"})
