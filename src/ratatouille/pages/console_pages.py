"""The console's page and its downloads. A query is posted; what it gives is on the same page, or a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import BinaryIO

from starlette.responses import HTMLResponse, Response, StreamingResponse

from ratatouille.engine.records import Answer
from ratatouille.errors import RatError
from ratatouille.pages import html, words
from ratatouille.pages.console import DOWNLOADS, Console, Result
from ratatouille.project.records import Project

_PIECE_BYTES = 1 << 16
_TABLES = 300  # names offered beside the query


def show_console(project: Project, console: Console, form: Mapping[str, str]) -> Response:
    """The page; with `sql` in the form also what it gives, or why it gives nothing."""
    sql = form.get("sql", "")
    result: Result | None = None
    error: RatError | None = None
    if sql.strip():
        try:
            result = console.ask(project, sql)
        except RatError as failed:
            error = failed
    return _page(project, console, sql, result, error)


def download(project: Project, console: Console, form: Mapping[str, str]) -> Response:
    """All rows as a file of the form's `kind`; the page with the error when there are none to be had."""
    sql, kind = form.get("sql", ""), form.get("kind", "csv")
    folder = Path(mkdtemp(prefix="rat-download-"))
    try:
        target = folder / f"query.{kind if kind in DOWNLOADS else 'csv'}"
        console.write(project, sql, target)
        file = target.open("rb")
        size = target.stat().st_size
    except RatError as error:
        return _page(project, console, sql, None, error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the open file stays readable
    headers = {"Content-Disposition": "attachment; filename=" + target.name, "Content-Length": str(size)}
    return StreamingResponse(_pieces(file), media_type=DOWNLOADS[target.suffix[1:]], headers=headers)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _page(project: Project, console: Console, sql: str, result: Result | None, error: RatError | None) -> Response:
    names = sorted({*project.assets, *project.natives})
    text = html.page(
        "console.html",
        workspace=project.workspace,
        here="/console",
        sql=sql,
        error=error.as_record() if error else None,
        result=result,
        answer=Answer(result.columns, result.rows, result.more) if result else None,
        cut=_cut(result) if result else 0,
        limits=console.limits,
        tables=names[:_TABLES],
        others=max(0, len(names) - _TABLES),
        masked=sorted(f"{a.name}.{c.name}" for a in project.assets.values() for c in a.columns if c.sensitive),
    )
    return HTMLResponse(text, 400 if error else 200)


def _cut(result: Result) -> int:
    """How many values are longer than the page shows."""
    return sum(1 for row in result.rows for value in row if value is not None and len(value) > words.LONGEST_CELL)
