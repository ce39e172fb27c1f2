"""`rat rollback`: an earlier version becomes the current one again."""

from __future__ import annotations

from typing import Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

EXAMPLES = """
rat rollback silver.sales --to 12

rat release silver.sales
"""


def rollback(
    ctx: typer.Context,
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="Which asset: silver.sales")],
    to: Annotated[int, typer.Option("--to", metavar="VERSION", help="A version of rat history ASSET.")],
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Bring an earlier version of an asset back.

    It is published again as a new version, with its memory of landing files, and the asset is put on hold: runs leave
    it alone until its code or config changes, or until rat release.
    """
    from ratatouille import project as files
    from ratatouille.cli.native import with_native_names
    from ratatouille.engine import as_json as mapping
    from ratatouille.engine import holds

    root = options.root_of(ctx, workspace)
    project = files.load(root)
    with holds.bench_on(project) as bench:
        done = with_native_names(root, asset, lambda name: holds.roll_back(bench, name, to))
    if as_json:
        p.print_json(mapping(done))
        return
    entry = done.entry
    p.say(
        f"{entry.asset} is version {to} again: {p.plural(entry.rows_total, 'row')}, published as version {entry.version}."
    )
    p.say(f"It is on hold: runs leave it alone until its code or config changes, or: rat release {entry.asset}")
    if done.replaced:
        p.say(f"Version {done.replaced} can be read (rat query --at {done.replaced}) and brought back in the same way.")
    if done.below:
        p.say(f"Below it, and stale now: {', '.join(done.below)}. Build them with: rat run")
