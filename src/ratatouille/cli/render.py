"""`rat render`: the SQL that a run would run."""

from __future__ import annotations

from typing import Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

EXAMPLES = """
rat render silver.sales

rat render silver.sales --incremental
"""


def render(
    ctx: typer.Context,
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="Which asset: silver.sales")],
    incremental: Annotated[
        bool, typer.Option("--incremental", help="As a run would build it on top of the version that stands.")
    ] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Print the SQL that a run would run.

    The SELECT that the asset would be built from, its template filled in. Nothing is built.
    """
    from ratatouille import project as files
    from ratatouille.engine import look

    project = files.load(options.root_of(ctx, workspace))
    files.ensure_valid(project)
    sql = look.sql_of(project, asset, incremental=incremental)
    p.print_json({"asset": asset, "incremental": incremental, "sql": sql}) if as_json else p.say(sql)
