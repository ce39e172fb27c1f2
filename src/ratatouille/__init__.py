"""Ratatouille: a lakehouse in a folder. An asset is a file; running it builds a candidate, checks it, makes it visible.

    from ratatouille import run, query, workspace, tools

    run("silver.sales")["status"]                     # completed | skipped
    query("select count(*) as n from silver.sales")["n"][0]

Importing this package loads nothing heavy; the first call does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratatouille.errors import GateFailed, LakeError, RatError, RequestError, StepFailed, TransientError

if TYPE_CHECKING:
    from polars import DataFrame

    from ratatouille import tools as tools
    from ratatouille.handle import Workspace

__all__ = [
    "GateFailed",
    "LakeError",
    "RatError",
    "RequestError",
    "StepFailed",
    "TransientError",
    "query",
    "run",
    "tools",
    "workspace",
]


def run(
    *selectors: str,
    full: bool = False,
    accept_schema: bool = False,
    accept_loss: bool = False,
    resume: bool = True,
    partitions: Sequence[str] = (),
) -> dict[str, Any]:
    """Build assets of the calling file's workspace; without selectors everything that is stale.

    One asset gives a JSON-safe mapping with `status` (completed, skipped, held), `version`, row counts and
    `seconds`; several give an overall `status` and the same for each under `steps`. A failed asset raises
    GateFailed, StepFailed or LakeError; a wrong request or file raises RequestError.
    """
    from ratatouille.handle import workspace_of_caller

    return workspace_of_caller().run(
        *selectors,
        full=full,
        accept_schema=accept_schema,
        accept_loss=accept_loss,
        resume=resume,
        partitions=partitions,
    )


def query(sql: str, at: str | int | datetime | None = None) -> DataFrame:
    """The rows of one SELECT on the calling file's workspace, as a polars frame with plain Python scalars.

    `at` is a version (an int) or a time (UTC unless it says otherwise). Raises RequestError when the query is
    wrong or nothing was built yet.
    """
    from ratatouille.handle import workspace_of_caller

    return workspace_of_caller().query(sql, at)


def workspace(path: str | Path | None = None) -> Workspace:
    """The workspace at or above `path`; without a path that of the calling file."""
    from ratatouille.handle import Workspace, find_workspace, workspace_of_caller

    return Workspace(find_workspace(path)) if path is not None else workspace_of_caller()


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "tools":
        return import_module("ratatouille.tools")
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ratatouille-lakehouse")
        except PackageNotFoundError:
            return "0.1.0"
    raise AttributeError(f"module 'ratatouille' has no attribute {name!r}")
