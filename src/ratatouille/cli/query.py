"""`rat query`: any question, in SQL."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

if TYPE_CHECKING:
    from ratatouille.engine.records import Answer

EXAMPLES = """
rat query "select store_id, sum(total) from silver.sales group by all"

rat query "from silver.sales" --at 12 --limit 100

rat query "from silver.sales" --at "2026-11-20 18:00" -o sales.parquet

rat query - < question.sql
"""
ROWS = 40


def query(
    ctx: typer.Context,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT; - reads it from standard input.")],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="VERSION|TIME", help="The lake as it was at a version or a time (UTC)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write all rows to a .csv, .parquet, .xlsx or .json file."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help=f"Rows to show (default {ROWS}; with --json all).")
    ] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Ask the lake, in SQL.

    One SELECT, with tables called by layer and name: silver.sales. Nothing can be changed here.
    """
    from ratatouille import project as files
    from ratatouille.engine import ask, storage_of

    text = _text(sql)
    settings = files.load(options.root_of(ctx, workspace)).workspace
    output = output.expanduser() if output is not None else None
    with ask.reading(settings, at=None if at is None else ask.moment(at), writes=output) as session:
        if output is not None:
            rows = ask.write_answer(session, text, output, storage_of(settings))
            p.print_json({"file": str(output), "rows": rows}) if as_json else p.say(
                f"{p.plural(rows, 'row')} in {output}"
            )
        elif as_json:
            _print_json_rows(ask.json_rows(session, text, limit))
        else:
            _print_answer(ask.answer(session, text, limit or ROWS))


def _text(sql: str) -> str:
    if sql != "-":
        return sql
    if sys.stdin.isatty():
        print("Type a SELECT, then Ctrl-D:", file=sys.stderr)
    return sys.stdin.read()


def _print_json_rows(rows: Iterable[str]) -> None:
    """An array with one row in each line: whole for a parser, and one row after the other for a pipe."""
    first = True
    for row in rows:
        p.say(f"[{row}" if first else f",{row}")
        first = False
    p.say("[]" if first else "]")


def _print_answer(found: Answer) -> None:
    p.print_rows(found.columns, found.rows)
    shown = len(found.rows)
    p.say(f"The first {shown:,} rows; more with --limit, all with -o FILE." if found.more else p.plural(shown, "row"))
