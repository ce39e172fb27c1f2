"""HEART: plan what is stale, run it through STAGES, publish it or keep it out."""

from ratatouille.engine.plan import Outer, Request
from ratatouille.engine.records import (
    CheckResult,
    Listener,
    Plan,
    PlannedStep,
    Progress,
    RunResult,
    StepResult,
    as_json,
)
from ratatouille.engine.run import plan, run
from ratatouille.engine.workbench import Workbench, open_workbench, storage_of

__all__ = [
    "CheckResult",
    "Listener",
    "Outer",
    "Plan",
    "PlannedStep",
    "Progress",
    "Request",
    "RunResult",
    "StepResult",
    "Workbench",
    "as_json",
    "open_workbench",
    "plan",
    "run",
    "storage_of",
]
