"""`rat docs`: the data dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

if TYPE_CHECKING:
    from ratatouille.pages.dictionary import Dictionary

EXAMPLES = """
rat docs

rat docs -o site

rat docs --check

rat docs --check --strict --json
"""
FOLDER = "data-dictionary"
_SHOWN = 50


def docs(
    ctx: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help=f"Where the site is written. Default: {FOLDER}."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compare the columns that YAML files list with those of the tables; 1 if they differ."
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --check: a table whose YAML file lists no columns differs, too.")
    ] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Write the data dictionary with its lineage, as a site that needs no server.

    Of every table: what it is, who owns it, its columns, what is checked about them, what they are made from. No row of
    a table is in it. --check alone writes nothing.
    """
    from ratatouille import project as files
    from ratatouille.pages.dictionary import dictionary
    from ratatouille.pages.site import write_site

    project = files.load(options.root_of(ctx, workspace))
    written = None
    if output is not None or not check:
        found, written = write_site(project, (output or Path(FOLDER)).expanduser())
    else:
        found = dictionary(project)
    differs = bool(found.differences or (strict and found.silent))
    if as_json:
        p.print_json(_json(found) | ({"folder": str(written.folder), "pages": written.pages} if written else {}))
    else:
        if written is not None:
            p.say(f"{p.plural(written.pages, 'page')} in {written.folder}; open {written.folder / 'index.html'}")
        _print(found, check, strict)
    if check and differs:
        raise typer.Exit(1)


def _json(found: Dictionary) -> dict[str, object]:
    from ratatouille.engine import as_json as mapping

    return {
        "workspace": found.workspace,
        "version": found.version,
        "tables": len(found.tables),
        "differences": [mapping(one) | {"said": one.said} for one in found.differences],
        "without_columns": [table.name for table in found.silent],
    }


def _print(found: Dictionary, check: bool, strict: bool) -> None:
    from ratatouille.pages.dictionary import in_short

    if check and found.differences:
        rows = [
            [o.asset, o.column, o.kind, o.listed.lower(), o.there.lower(), o.path] for o in found.differences[:_SHOWN]
        ]
        p.print_table(["table", "column", "what differs", "listed as", "is", "file"], rows, spare=["file", "listed as"])
        if len(found.differences) > _SHOWN:
            p.say(f"and {len(found.differences) - _SHOWN:,} more: --json names them all")
    p.say(p.printable(in_short(found)))
    if found.silent and (check or strict):
        names = ", ".join(table.name for table in found.silent[:5])
        more = f" and {len(found.silent) - 5:,} more" if len(found.silent) > 5 else ""
        p.say(p.printable(f"{p.plural(len(found.silent), 'table')} without listed columns: {names}{more}"))
