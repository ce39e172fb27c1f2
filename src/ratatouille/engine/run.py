"""A run: plan, resume what a killed run left, let a crew work through it, say what became of each asset."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from datetime import UTC, datetime

from ratatouille import project as files
from ratatouille.engine import outcomes
from ratatouille.engine.crew import Crew, current
from ratatouille.engine.plan import Request, State, make_plan, read_state, reads, version_tokens
from ratatouille.engine.records import Listener, Plan, RunResult
from ratatouille.engine.workbench import Workbench
from ratatouille.errors import RatError
from ratatouille.lake import (
    damaged_tables,
    heartbeat,
    ledger,
)


def plan(bench: Workbench, request: Request) -> Plan:
    """What `run` would do now."""
    files.ensure_valid(bench.project)
    with bench.lake.pinned("planning") as session:
        return _plan(bench, request, read_state(session, bench.project, aside=bench.journal.files_set_aside()))


def _plan(bench: Workbench, request: Request, state: State) -> Plan:
    with bench.lake.session("planning") as session:
        tokens = version_tokens(bench.project, list(bench.project.assets), session)
    planned = make_plan(bench.project, request, state, tokens=tokens)
    return replace(planned, warnings=(*planned.warnings, *_still_set_aside(bench, planned, state)))


def _still_set_aside(bench: Workbench, planned: Plan, state: State) -> list[str]:
    """Files that could not be read and did not change: said again each time, until somebody mends them."""
    chosen = {step.asset for step in planned.steps if step.action != "build"}
    return [
        f"{row['file']} is not in {row['asset']}: {row['reason']}"
        for row in state.aside_rows
        if row["asset"] in chosen and (bench.root / row["file"]).exists()
    ]


def run(bench: Workbench, request: Request, listener: Listener | None = None) -> RunResult:
    """Build what `request` asks for. A failed asset is in the result; wrong files or requests raise."""
    files.ensure_valid(bench.project)
    outer = current.get()
    if outer is not None and outer.bench.root == bench.root:
        return outer.join(request)
    bench.journal.reap()
    asked = {"selectors": list(request.selectors), "force": request.force}
    resumed = bench.journal.runs_to_resume(asked) if request.resume else []
    started = time.monotonic()
    with bench.lake.pinned("planning") as session:
        state = read_state(session, bench.project, aside=bench.journal.files_set_aside())
        already = {
            name: entry for one in reversed(resumed) for name, entry in ledger.published_in(session, one).items()
        }
    planned = _plan(bench, request, state)
    if not planned.to_build:
        return _fresh(planned, started)
    run_id = new_run_id()
    bench.journal.start_run(run_id, asked, resumes=resumed)
    crew = Crew(bench, request, run_id, planned, state, already, listener)
    status, error = "failed", None
    try:
        with heartbeat(bench.journal, run_id):
            crew.damaged = _damaged_inputs(bench, planned)
            steps = crew.go()
        status = "failed" if any(step.status in ("failed", "blocked") for step in steps) else "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except RatError as failed:
        error = failed.as_record()
        raise
    finally:
        with crew.journal_may_fail():
            bench.journal.end_run(run_id, status, error)
    return RunResult(
        run_id,
        status,
        steps,
        time.monotonic() - started,
        resumed[0] if resumed else "",
        (*planned.warnings, *crew.warnings),
    )


def _damaged_inputs(bench: Workbench, planned: Plan) -> dict[str, str]:
    """Tables whose files are not what was published: those that this run reads, adds to or replaces."""
    steps = {step.asset: step for step in planned.to_build}
    read = {above for name in steps for above in reads(bench.project, name) if above not in steps}
    read |= {name for name, step in steps.items() if step.mode == "incremental"}
    replaced = {name for name, step in steps.items() if step.version is not None} - read
    if not read and not replaced:
        return {}
    journal, storage, every_s = bench.journal, bench.lake.storage, bench.project.workspace.verify_every_s
    with bench.lake.pinned("verifying the inputs") as session:
        found = damaged_tables(session, journal, storage, sorted(read), every_s)
        return found | damaged_tables(session, journal, storage, sorted(replaced), math.inf)


def new_run_id() -> str:
    """Sortable by time, unique enough for a folder name: 20261121T061530-9f3a2c."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{random.SystemRandom().getrandbits(24):06x}"


def _fresh(planned: Plan, started: float) -> RunResult:
    steps = tuple(outcomes.skipped(step) for step in planned.steps)
    return RunResult("", "fresh", steps, time.monotonic() - started, warnings=planned.warnings)
