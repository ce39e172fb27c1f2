"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratatouille.handle import find_workspace

Workspace = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", metavar="PATH", help="The workspace to work in; same as before the command."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else, on standard output.")]
Selectors = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SELECTORS",
        help="Which assets: silver.sales, +silver.sales (and what it reads), silver.sales+ (and what reads it),"
        " pipeline:sales, layer:gold, tag:, kind:, owner:, with and, or, not. None: everything that is stale.",
    ),
]
Full = Annotated[bool, typer.Option("--full", "-f", help="Rebuild all rows, of fresh assets too.")]
AcceptSchema = Annotated[
    bool, typer.Option("--accept-schema", help="Let columns go or change their type, where the code now says so.")
]
AcceptLoss = Annotated[
    bool,
    typer.Option("--accept-loss", help="Let rows go that no input gives any more: of landing files, of a history."),
]
Partitions = Annotated[
    list[str] | None,
    typer.Option(
        "--partition",
        metavar="A..B",
        help="Only these partitions of assets with materialize: partition; one value, A..B, A.. or ..B. May be repeated.",
    ),
]


def root_of(ctx: typer.Context, workspace: Path | None) -> Path:
    """The workspace that the command line means: -w here, -w before the command, the variable, the folder."""
    return find_workspace(workspace or ctx.obj)
