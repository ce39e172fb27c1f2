"""`rat runs`: what is going on, and how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p
from ratatouille.observe.compare import asked

if TYPE_CHECKING:
    from ratatouille.observe.findings import Finding
    from ratatouille.project.records import Workspace

EXAMPLES = """
rat runs

rat runs -n 5 --json

rat runs 20261121T0615
"""


def runs(
    ctx: typer.Context,
    run_id: Annotated[
        str | None, typer.Argument(metavar="RUN", help="One run, by its id or the beginning of it: its steps.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many runs, newest first.")] = 20,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show runs, or the steps of one.

    A run is running, done, failed, interrupted, or died: its process is gone. Times are in UTC. Of one run also what its
    steps used, and what was unusual about them.
    """
    from ratatouille import project as files
    from ratatouille.engine import as_json as mapping
    from ratatouille.engine import look

    settings = files.load(options.root_of(ctx, workspace)).workspace
    if run_id is None:
        found = look.runs(settings, limit)
        p.print_json([_timed(run) for run in found]) if as_json else _print_runs(found)
        return
    run, steps = look.one_run(settings, run_id)
    strange, samples = _observed(settings, run["run_id"])
    if as_json:
        unusual = [mapping(one) for one in strange]
        shown = {"steps": [_timed(step) for step in steps], "unusual": unusual, "samples": samples}
        p.print_json(_timed(run) | shown)
    else:
        _print_runs([run])
        _print_steps(steps)
        _print_observed(strange, samples)


def _observed(settings: Workspace, run_id: str) -> tuple[list[Finding], list[dict[str, Any]]]:
    """What was unusual about a run, and what it used while it went on."""
    from ratatouille.engine import look
    from ratatouille.observe.findings import kept

    with look.reading_journal(settings) as journal:
        return (kept(journal, run_id), journal.samples(run_id)) if journal else ([], [])


def _print_observed(found: list[Finding], samples: list[dict[str, Any]]) -> None:
    for one in found:
        sure = "" if one.level != "suspect" else " (once so far)"
        p.say(p.printable(f"{one.asset}: {one.kind}: {one.said}{sure}"))
    if samples:
        peak, spilled = (max(one[name] for one in samples) for name in ("memory_bytes", "spill_bytes"))
        left = min(one["disk_left_bytes"] for one in samples)
        used = (
            f"at most {p.bytes_(peak)} of memory ({max(one['memory_share'] for one in samples):.0%} of the profile's)"
        )
        p.say(
            f"In {p.plural(len(samples), 'sample')}: {used}, {p.bytes_(spilled)} spilled, {p.bytes_(left)} left on the disk."
        )


def _timed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Times as text instead of seconds since 1970."""
    said = {name: f"{p.when(row[name]).replace(' ', 'T')}Z" for name in row if name.endswith("_at") and row[name]}
    return dict(row) | said


def _print_runs(found: list[dict[str, Any]]) -> None:
    if not found:
        p.say("Nothing has run yet. Start with: rat run")
        return
    p.print_table(
        ["run", "status", "started (UTC)", "seconds", "asked for", "steps"],
        [
            [
                run["run_id"],
                run["status"],
                p.when(run["started_at"]),
                p.seconds(_took(run)),
                asked(run["request"]),
                ", ".join(f"{number} {status}" for status, number in run["steps"].items()),
            ]
            for run in found
        ],
        right=["seconds"],
        status="status",
    )
    for run in found:
        if run["error"] and len(found) == 1:
            p.print_four_lines(run["error"])


def _took(row: Mapping[str, Any]) -> float:
    return float((row["ended_at"] or time.time()) - row["started_at"])


def _print_steps(steps: list[dict[str, Any]]) -> None:
    p.say()
    p.print_table(
        ["asset", "attempt", "status", "seconds", "CPU", "memory", "spilled", "written", "version", "why"],
        [
            [
                step["asset"],
                str(step["attempt"]),
                step["status"],
                p.seconds(step["record"].get("seconds") or _took(step)),
                p.seconds((step["record"].get("measured") or {}).get("cpu_s")),
                p.bytes_(step["record"]["peak_memory_bytes"]) if step["record"].get("peak_memory_bytes") else "",
                p.bytes_(spilled) if (spilled := (step["record"].get("measured") or {}).get("spill_bytes")) else "",
                p.count(step["record"].get("rows_written")),
                p.count(step["record"].get("version")),
                step["record"].get("reason", ""),
            ]
            for step in steps
        ],
        right=["attempt", "seconds", "CPU", "memory", "spilled", "written", "version"],
        status="status",
        spare=["CPU", "spilled", "memory"],
    )
    for step in steps:
        if step["record"].get("error"):
            p.say()
            p.print_four_lines(step["record"]["error"], sys.stdout)
