"""`rat release`: let an asset that was rolled back go on."""

from __future__ import annotations

from typing import Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

EXAMPLES = """
rat release silver.sales
"""


def release(
    ctx: typer.Context,
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="Which asset: silver.sales")],
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Take an asset off hold after a rollback.

    The next run builds it again, in full.
    """
    from ratatouille import project as files
    from ratatouille.cli.native import with_native_names
    from ratatouille.engine import as_json as mapping
    from ratatouille.engine import holds

    root = options.root_of(ctx, workspace)
    project = files.load(root)
    with holds.bench_on(project) as bench:
        hold = with_native_names(root, asset, lambda name: holds.release(bench, name))
    if as_json:
        p.print_json(mapping(hold))
        return
    p.say(f"{hold.asset} is no longer held at version {hold.version}. Build it again with: rat run {hold.asset}")
