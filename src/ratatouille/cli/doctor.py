"""`rat doctor`: what keeps this workspace from working, and what helps."""

from __future__ import annotations

from dataclasses import asdict

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

EXAMPLES = """
rat doctor

rat doctor --json
"""


def doctor(ctx: typer.Context, workspace: options.Workspace = None, as_json: options.Json = False) -> int:
    """Look at everything that keeps a workspace from working.

    Files, extensions, permissions, disk, clock, locks, catalog and journal. Nothing is touched: a damaged or foreign
    catalog is looked at in a copy. Ends with 1 when something is wrong.
    """
    from ratatouille.upkeep.doctor import examine

    found = examine(options.root_of(ctx, workspace))
    sick = any(one.status == "error" for one in found)
    if as_json:
        p.print_json({"healthy": not sick, "findings": [asdict(one) for one in found]})
        return int(sick)
    for one in found:
        colour = {"ok": "green", "warn": "yellow", "error": "red"}[one.status]
        word = p.paint(f"{one.status:5}", colour)
        p.say(f"{word}  {one.name:12} {p.printable(one.what)}")
        if one.status == "ok":
            continue
        for line in (
            one.where,
            one.state,
            *(f"$ {step}" if step.startswith("rat ") else step for step in one.next.splitlines()),
        ):
            if line:
                p.say(f"       {p.printable(line)}")
    p.say("Something is wrong." if sick else "All is well.")
    return int(sick)
