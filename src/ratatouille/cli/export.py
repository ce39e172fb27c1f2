"""`rat export`: tables for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

if TYPE_CHECKING:
    from ratatouille.upkeep.export import Exported

EXAMPLES = """
rat export gold.revenue --to out

rat export layer:gold --to out --format csv --overwrite

rat export silver.sales --to lake_of_others --format delta --version 12
"""


def export(
    ctx: typer.Context,
    selectors: Annotated[
        list[str], typer.Argument(metavar="SELECTORS", help="Which assets, as in rat run: gold.revenue, layer:gold.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder; it is made when it is not there.")],
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="parquet, csv, delta or iceberg.")
    ] = "parquet",
    version: Annotated[
        int | None,
        typer.Option(
            "--version", metavar="VERSION", help="A version of rat history ASSET, instead of the current one."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Write tables as Parquet, CSV, Delta or Iceberg.

    Each is DIR/silver.sales.parquet, or a folder DIR/silver.sales; all of them are of one version of the lake. Rows are
    streamed, and what is there is whole: it is written aside and renamed. Values are not masked. Delta and Iceberg need
    ratatouille-lakehouse[export].
    """
    from ratatouille import project as files
    from ratatouille.engine import as_json as mapping
    from ratatouille.upkeep.export import export

    def say(one: Exported) -> None:
        print(f"{one.asset} written", file=sys.stderr, flush=True)

    project = files.load(options.root_of(ctx, workspace))
    quiet = as_json or not sys.stderr.isatty()
    listener = (lambda one: None) if quiet else say
    done = export(project, selectors, to, format.lower(), version=version, overwrite=overwrite, listener=listener)
    if as_json:
        p.print_json([mapping(one) for one in done])
        return
    rows = [[one.asset, p.count(one.version), p.count(one.rows), p.bytes_(one.bytes), _shown(one.path)] for one in done]
    p.print_table(["asset", "version", "rows", "size", "written to"], rows, right=["version", "rows", "size"])


def _shown(path: str) -> str:
    """The path as a person in this folder would write it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
