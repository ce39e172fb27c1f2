"""`rat plan`: what a run would do, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p
from ratatouille.errors import RequestError

if TYPE_CHECKING:
    from ratatouille.engine import PlannedStep

EXAMPLES = """
rat plan

rat plan gold.sales_summary

rat plan gold.daily --partition 2026-11-01..2026-11-30

rat plan pipeline:sales --full --json
"""


def plan(
    ctx: typer.Context,
    selectors: options.Selectors = None,
    full: options.Full = False,
    partition: options.Partitions = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show what a run would build, and why.

    For each asset: the rule that applied, the mode, and the rows and landing files that it would read. Nothing is
    built.
    """
    from ratatouille.cli.native import natives_in
    from ratatouille.engine import Plan, Request, look
    from ratatouille.engine import as_json as mapping

    root = options.root_of(ctx, workspace)
    request = Request(tuple(selectors or ()), force=full, partitions=tuple(partition or ()))
    try:
        planned = look.plan_of(look.usable_project(root, request), request)
    except RequestError:
        found = natives_in(root, request.selectors)
        if found is None:
            raise
        natives, tables, others = found
        steps = natives.plan(list(tables), force=full)
        if others:
            rest = replace(request, selectors=tuple(others))
            steps += look.plan_of(look.usable_project(root, rest), rest).steps
        planned = Plan(tuple(steps))
    if as_json:
        p.print_json(mapping(planned))
        return
    p.print_table(
        ["asset", "does", "mode", "rule", "why", "reads", "stands"],
        [_row(step) for step in planned.steps],
        right=["stands"],
    )
    for step in planned.steps:
        for file in step.files[:10] if step.action == "build" else ():
            p.say(f"  {step.asset} reads {p.printable(file)}")
        if step.action == "build" and len(step.files) > 10:
            p.say(f"  {step.asset} reads {len(step.files) - 10} more files")
    for warning in planned.warnings:
        p.say(f"{p.paint('Warning:', 'yellow')} {p.printable(warning)}")
    n_build = len(planned.to_build)
    p.say(f"rat run would build {n_build} of {p.plural(len(planned.steps), 'asset')}.")


def _row(step: PlannedStep) -> list[str]:
    builds = step.action == "build"
    reads = []
    if builds and step.rows:
        reads.append(p.plural(step.rows, "row"))
    if builds and step.files:
        reads.append(p.plural(len(step.files), "file"))
    version = p.count(step.version)
    return [step.asset, step.action, step.mode if builds else "", step.rule, step.reason, ", ".join(reads), version]
