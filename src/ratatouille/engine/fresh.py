"""Runs that have nothing to do: most runs of a schedule. They should be over before DuckDB would be loaded."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ratatouille.engine.landing import is_there
from ratatouille.engine.plan import Request, State, make_plan
from ratatouille.engine.records import Plan, PlannedStep, RunResult, StepResult
from ratatouille.engine.workbench import journal_path
from ratatouille.lake import open_journal
from ratatouille.project.records import Project


def nothing_to_do(project: Project, request: Request, state: State) -> RunResult | None:
    """The result of a run that has nothing to do, if `state` tells so without the lake."""
    started = time.monotonic()
    if request.force or request.partitions or any(asset.version for asset in project.assets.values()):
        return None  # only the lake, or the person's own code, can tell
    with open_journal(journal_path(project.workspace), create=False) as journal:
        state = state.with_files_set_aside(journal.files_set_aside())
    planned = make_plan(project, request, state)
    return None if planned.to_build else result(project, planned, state, started)


def result(project: Project, planned: Plan, state: State, started: float) -> RunResult:
    """Every step skipped. `started` in seconds of time.monotonic()."""
    steps = tuple(skipped(step, state) for step in planned.steps)
    aside = still_set_aside(project, [step.asset for step in steps], state)
    return RunResult("", "fresh", steps, time.monotonic() - started, warnings=planned.warnings, set_aside=tuple(aside))


def skipped(step: PlannedStep, state: State, reason: str = "") -> StepResult:
    status, entry = "held" if step.action == "hold" else "skipped", state.heads.get(step.asset)
    return StepResult(step.asset, status, reason or step.reason, version=step.version, entry=entry)


def still_set_aside(project: Project, assets: Collection[str], state: State) -> list[Mapping[str, Any]]:
    """Files that could not be read and are still there: said each time, until somebody mends them."""
    root = Path(project.workspace.root)
    return [row for row in state.aside_rows if row["asset"] in assets and is_there(root, row["file"])]
