"""`rat runs`: what is going on, and how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p
from ratatouille.observe.compare import asked

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

    A run is running, done, failed, interrupted, or died: its process is gone. Times are in UTC.
    """
    from ratatouille import project as files
    from ratatouille.engine import look

    settings = files.load(options.root_of(ctx, workspace)).workspace
    if run_id is None:
        found = look.runs(settings, limit)
        p.print_json([_timed(run) for run in found]) if as_json else _print_runs(found)
        return
    run, steps = look.one_run(settings, run_id)
    if as_json:
        p.print_json(_timed(run) | {"steps": [_timed(step) for step in steps]})
    else:
        _print_runs([run])
        _print_steps(steps)


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
        ["asset", "attempt", "status", "seconds", "written", "version", "why"],
        [
            [
                step["asset"],
                str(step["attempt"]),
                step["status"],
                p.seconds(step["record"].get("seconds") or _took(step)),
                p.count(step["record"].get("rows_written")),
                p.count(step["record"].get("version")),
                step["record"].get("reason", ""),
            ]
            for step in steps
        ],
        right=["attempt", "seconds", "written", "version"],
        status="status",
    )
    for step in steps:
        if step["record"].get("error"):
            p.say()
            p.print_four_lines(step["record"]["error"], sys.stdout)
