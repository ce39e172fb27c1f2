"""What `rat run` does once it is known what was asked: run, show what goes on, print what came of it.

Without typer: a run that has nothing to do should be over before a parser is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratatouille.cli import printing as p
from ratatouille.engine import Request
from ratatouille.engine import as_json as mapping
from ratatouille.errors import RequestError
from ratatouille.handle import run_request

if TYPE_CHECKING:
    from ratatouille.cli.progress import Reporter
    from ratatouille.engine import RunResult, StepResult

# A longer list of unchanged or built assets is counted instead of shown.
LISTED_SKIPPED = 30
LISTED_BUILT = 50


def build(root: Path, request: Request, *, as_json: bool = False) -> int:
    """Run, print, and give the exit code."""
    try:
        with _reporter(as_json) as reporter:
            result = run_request(root, request, reporter)
    except RequestError:
        native = _run_natives(root, request)
        if native is None:
            raise
        result = native
    if as_json:
        p.print_json(mapping(result))
    else:
        _print_result(result)
    return 1 if result.failed else 0


def _run_natives(root: Path, request: Request) -> RunResult | None:
    """The result of a run with native assets; None if the request names none."""
    from ratatouille import project as files
    from ratatouille.cli.native import natives_in

    found = natives_in(root, request.selectors)
    if found is None:
        return None
    natives, tables, others = found
    chosen = files.select(files.load(root), others) if others else ()
    return natives.run(list(tables), chosen, force=request.force)


def _reporter(as_json: bool) -> AbstractContextManager[Reporter | None]:
    if as_json:
        return nullcontext()
    from ratatouille.cli.progress import live_reporter, plain_reporter

    return live_reporter() if sys.stderr.isatty() else plain_reporter()


def _print_result(result: RunResult) -> None:
    if result.resumed:
        p.say(f"Went on with run {result.resumed}, which was stopped before its end.")
    if result.status == "fresh":
        _print_fresh(result)
    else:
        _print_steps(result.steps)
    for warning in (*result.warnings, *(f"{s.asset}: {w}" for s in result.steps for w in s.warnings)):
        p.say(f"{p.paint('Warning:', 'yellow')} {p.printable(warning)}")
    _print_failed_warnings(result.steps)
    _print_aside(result.set_aside)
    for step in result.steps:
        if step.error is not None:
            p.say()
            p.print_four_lines(step.error, sys.stdout)
    if result.run_id:
        p.say()
        p.say(_summary(result))


def _print_fresh(result: RunResult) -> None:
    held = [step for step in result.steps if step.status == "held"]
    fresh = len(result.steps) - len(held)
    if fresh:
        p.say(f"Nothing to do: {p.plural(fresh, 'asset')} up to date.")
    for step in held:
        p.say(f"{step.asset} is on hold: {step.reason}.")


def _print_steps(steps: Sequence[StepResult]) -> None:
    skipped = [step for step in steps if step.status == "skipped" and not step.set_aside]
    listed = [step for step in steps if len(skipped) <= LISTED_SKIPPED or step not in skipped]
    hidden = len(steps) - len(listed)
    built = [step for step in listed if step.status == "built"]
    if len(built) > LISTED_BUILT:
        slowest = {step.asset for step in sorted(built, key=lambda step: -step.seconds)[: LISTED_BUILT // 2]}
        listed = [step for step in listed if step.status != "built" or step.asset in slowest]
    names = (
        "asset",
        "status",
        "mode",
        "rows in",
        "written",
        "total",
        "quarantined",
        "rejected",
        "seconds",
        "rows/s",
        "version",
    )
    table = [_row(step) for step in listed]
    p.print_table(
        names,
        table,
        right=[name for name in names if name not in ("asset", "status", "mode")],
        status="status",
        spare=("quarantined", "rejected", "mode", "rows in", "rows/s"),
    )
    if len(built) > LISTED_BUILT:
        p.say(f"... and {len(built) - LISTED_BUILT // 2:,} more built; these were the slowest.")
    if hidden:
        p.say(f"{p.plural(hidden, 'asset')} up to date.")


def _row(step: StepResult) -> list[str]:
    if step.status != "built":
        stands = p.count(step.version) if step.version else ""
        seconds = p.seconds(step.seconds) if step.status == "failed" else ""
        return [step.asset, step.status, *[""] * 6, seconds, "", stands]
    # Folders of files have no rows, and neither has an asset that stores nothing itself.
    rows = [step.rows_in, step.rows_written, step.rows_total]
    counted = any(rows) or (step.version and step.mode != "artifact")
    return [
        step.asset,
        step.status,
        step.mode,
        *(p.count(number) if counted else "" for number in rows),
        p.nonzero(step.rows_quarantined),
        p.nonzero(step.rows_rejected),
        p.seconds(step.seconds),
        p.count(round(step.rows_per_second)) if counted else "",
        p.count(step.version),
    ]


def _print_failed_warnings(steps: Sequence[StepResult]) -> None:
    for step in steps:
        for check in step.checks:
            if not check.passed and check.severity == "warn":
                asked = f", asked for: {check.threshold}" if check.threshold else ""
                text = f"{step.asset}: {check.name} fails for {check.bad:,} of {check.rows:,} rows{asked}"
                p.say(f"{p.paint('Warning:', 'yellow')} {p.printable(text)}")
        if step.rows_quarantined or step.rows_rejected:
            kept = step.rows_quarantined + step.rows_rejected
            p.say(f"{step.asset}: {p.plural(kept, 'row')} kept out; see: rat quarantine {step.asset}")


def _print_aside(aside: Sequence[Mapping[str, Any]]) -> None:
    for row in aside:
        text = f"{row['asset']}: {row['file']} is set aside: {row['reason']}"
        p.say(f"{p.paint('Warning:', 'yellow')} {p.printable(text)}")


def _summary(result: RunResult) -> str:
    of = {status: sum(1 for step in result.steps if step.status == status) for status in ("built", "failed", "blocked")}
    said = ", ".join(f"{number} {status}" for status, number in of.items() if number) or "nothing built"
    return f"Run {result.run_id}: {said}, in {p.took(result.seconds)}."
