"""`rat verify`: is everything still what was published?"""

from __future__ import annotations

from typing import Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

EXAMPLES = """
rat verify

rat verify silver.sales --all

rat verify --json
"""


def verify(
    ctx: typer.Context,
    assets: Annotated[list[str] | None, typer.Argument(metavar="ASSETS", help="Which ones; without any all.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every version that can be read, not only the current one.")
    ] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> int:
    """Compare every file with its size and checksum, and the catalog with the ledger.

    Names what is damaged and ends with 1; nothing is changed. Runs look at what they read by themselves: its size each
    time, its checksum once a day (verify_every).
    """
    from ratatouille import project as files
    from ratatouille.cli.progress import byte_progress
    from ratatouille.engine import as_json as mapping
    from ratatouille.upkeep.verify import verify

    project = files.load(options.root_of(ctx, workspace))
    with byte_progress("verifying", quiet=as_json) as progress:
        done = verify(project, assets or (), every_version=every, progress=progress)
    if as_json:
        p.print_json(mapping(done) | {"whole": done.whole})
        return 0 if done.whole else 1
    if done.damaged:
        rows = [[one.severity, one.asset, one.where, one.what, "yes" if one.current else "no"] for one in done.damaged]
        p.print_table(["severity", "asset", "where", "what", "current"], rows)
    looked = f"{p.plural(done.files, 'file')} of {p.plural(done.assets, 'table')}, {p.bytes_(done.bytes)}"
    wrong = [one for one in done.damaged if one.severity == "error"]
    if not wrong:
        p.say(f"{looked}: all as published.")
        return 0
    names = list(dict.fromkeys(one.asset for one in wrong if one.current))
    p.say(f"{looked}: {p.plural(len(wrong), 'thing')} damaged.")
    if names:
        p.say("Nothing is computed from a damaged current version. Build it again, or bring a whole one back:")
        p.say(f"  $ rat run {names[0]} -f        $ rat history {names[0]}")
    return 1
