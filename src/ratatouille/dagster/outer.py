"""Which Dagster run the calling code is part of, as the engine knows runs: all steps of one are one run.

asked       a person clicked Materialize or named the assets: what is fresh runs too
automatic   a schedule, a sensor, automation, a backfill, a retry: what is fresh is skipped
"""

from __future__ import annotations

import dagster as dg

from ratatouille import handle
from ratatouille.engine import Outer

STALE_ONLY = "ratatouille/stale_only"  # the tag of a run that skips what is fresh, as `rat run` does
_AUTOMATIC = (
    STALE_ONLY,
    "dagster/schedule_name",
    "dagster/sensor_name",
    "dagster/auto_materialize",
    "dagster/from_automation_condition",
    "dagster/backfill",
    "dagster/is_resume_retry",
    "dagster/is_asset_resume_retry",
    "dagster/retry_number",
)
_NAMED = 5  # assets in the name of a run
_FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_PARENTS = ("dagster/parent_run_id", "dagster/root_run_id")


def outer_of(context: dg.OpExecutionContext) -> Outer:
    """The run and the attempt that a step's context belongs to."""
    resumes = tuple(dict.fromkeys(_parents(context)))
    return Outer(
        context.run_id,
        f"Dagster {_asked_for(context)}".strip(),
        context.retry_number + 1,
        resumes if is_automatic(context) else (),
    )


def _asked_for(context: dg.OpExecutionContext) -> str:
    """The job; where there is none but Dagster's own, the assets: runs that were asked for the same are compared."""
    if not str(context.job_name).startswith("__"):
        return str(context.job_name)
    keys = context.run.asset_selection or context.job_def.asset_layer.selected_asset_keys
    names = sorted(key.to_user_string() for key in keys)
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def is_automatic(context: dg.OpExecutionContext) -> bool:
    """Whether nobody asked for these assets just now, or they are the rest of a run that failed."""
    if context.retry_number > 0 or any(name in context.run.tags for name in _AUTOMATIC):
        return True
    before = next((context.instance.get_run_by_id(run_id) for run_id in _parents(context)), None)
    return before is not None and before.status in _FAILED


def _parents(context: dg.OpExecutionContext) -> list[str]:
    """The run that this one executes again, and the first of its kind."""
    run = context.run
    found = [run.parent_run_id, run.root_run_id, *(run.tags.get(name) for name in _PARENTS)]
    return [run_id for run_id in found if run_id]


def _calling_run() -> Outer | None:
    try:
        return outer_of(dg.OpExecutionContext.get())
    except dg.DagsterInvariantViolationError:
        return None


def tell_the_engine() -> None:
    """From now on `run()` in the body of a Dagster asset belongs to that asset's run."""
    if _calling_run not in handle.outer_runs:
        handle.outer_runs.append(_calling_run)
