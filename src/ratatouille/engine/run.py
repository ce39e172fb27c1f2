"""A run: plan, resume what a killed run left, let a crew work through it, say what became of each asset."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ratatouille import project as files
from ratatouille.engine import fresh, last_known
from ratatouille.engine.crew import Crew, current
from ratatouille.engine.log import kept_log
from ratatouille.engine.measured import sample_of
from ratatouille.engine.memory import size
from ratatouille.engine.outcomes import left_out
from ratatouille.engine.plan import Outer, Request, State, make_plan, read_state, reads, version_tokens
from ratatouille.engine.recorded import recorded
from ratatouille.engine.records import Listener, Plan, RunResult
from ratatouille.engine.workbench import Workbench
from ratatouille.lake import damaged_tables, ledger
from ratatouille.lake.journal import glance


def plan(bench: Workbench, request: Request) -> Plan:
    """What `run` would do now."""
    files.ensure_valid(bench.project)
    with bench.lake.pinned("planning") as session:
        state = read_state(session, bench.project, aside=bench.journal.files_set_aside())
    planned = _plan(bench, request, state)
    building = {step.asset for step in planned.to_build}
    aside = fresh.still_set_aside(bench.project, [s.asset for s in planned.steps if s.asset not in building], state)
    said = [f"{row['file']} is not in {row['asset']}: {row['reason']}" for row in aside]
    return replace(planned, warnings=(*planned.warnings, *said))


def _plan(bench: Workbench, request: Request, state: State) -> Plan:
    with bench.lake.session("planning") as session:
        tokens = version_tokens(bench.project, list(bench.project.assets), session)
    return make_plan(bench.project, request, state, tokens=tokens)


def run(
    bench: Workbench,
    request: Request,
    listener: Listener | None = None,
    known: State | None = None,
    within: Outer | None = None,
) -> RunResult:
    """Build what `request` asks for. A failed asset is in the result; wrong files or requests raise.

    `known` is the state as somebody just read it: it spares a look at the ledger if nothing was published since.
    `within` is the orchestrator's run that this is a part of: what that run has published is not built again.
    """
    files.ensure_valid(bench.project, request.selectors if request.alone else ())
    outer = current.get()
    if outer is not None and outer.bench.root == bench.root:
        return outer.join(request)
    bench.journal.reap()
    asked: dict[str, Any] = {"selectors": list(request.selectors), "force": request.force}
    if request.partitions:
        asked["partitions"] = list(request.partitions)
    resumed = bench.journal.runs_to_resume(asked) if request.resume and within is None else []
    if within is not None:
        asked, resumed = {"label": within.label}, list(within.resumes)
    started = time.monotonic()
    with bench.lake.pinned("planning") as session:
        aside = bench.journal.files_set_aside()
        if known is not None and known.version == session.snapshot:
            state = known.with_files_set_aside(aside)
        else:
            state = read_state(session, bench.project, aside=aside)
        published_by = [within.run_id, *resumed] if within else resumed
        already = {
            name: entry for one in reversed(published_by) for name, entry in ledger.published_in(session, one).items()
        }
    planned = _plan(bench, request, state)
    if not planned.to_build:
        _write_down(bench, state)
        return fresh.result(bench.project, planned, state, started)
    run_id = within.run_id if within else ""
    with (
        recorded(bench.journal, asked, resumed, run_id, partial(sample_of, bench.lake)) as journalled,
        kept_log() as log,
    ):
        attempt = within.attempt if within else 1
        crew = Crew(bench, request, journalled, planned, state, already, listener, attempt, published_by)
        crew.damaged = _damaged_inputs(bench, planned)
        steps = crew.go()
        journalled.status = "failed" if any(step.status in ("failed", "blocked") for step in steps) else "done"
        still_aside: Sequence[Mapping[str, Any]] = ()
        with journalled.journal_may_fail():
            state = crew.state.with_files_set_aside(bench.journal.files_set_aside())
            still_aside = fresh.still_set_aside(bench.project, [step.asset for step in steps], state)
    _write_down(bench, crew.state)
    warnings = (*planned.warnings, *journalled.warnings, *_about_memory(bench, crew))
    if within is None:  # a process of an orchestrator's run knows its own step only
        with journalled.journal_may_fail():
            said = {asset: list(lines) for asset, lines in log.items()}
            notes = {"left_out": left_out(steps), "warnings": warnings, "log": said}
            glance.note(bench.journal.do, journalled.run_id, notes)
    return RunResult(
        journalled.run_id,
        journalled.status,
        steps,
        time.monotonic() - started,
        resumed[0] if resumed and within is None else "",
        warnings,
        tuple(still_aside),
    )


def _about_memory(bench: Workbench, crew: Crew) -> list[str]:
    asked, used = bench.lake.storage.memory_bytes, crew.gauge.budget_bytes
    said = []
    if asked > used:
        said.append(f"resources: memory: {size(asked)} is more than the container's limit, {size(used)}, which counts")
    if crew.gauge.was_high:
        said.append(f"memory was above 80 % of {size(used)}: chunks were halved, and steps waited for each other")
    return said


def _write_down(bench: Workbench, state: State) -> None:
    with bench.lake.session("planning") as session:
        last_known.write_down(bench.project, state, session)


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
