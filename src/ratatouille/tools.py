"""Looking around in a workspace, from Python: files, tables, columns, first rows.

Every function works on the workspace of the file that calls it (see `ratatouille.workspace`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratatouille.errors import RequestError
from ratatouille.handle import _frame, _json_safe, workspace_of_caller
from ratatouille.lake.quoting import table as quoted

if TYPE_CHECKING:
    from polars import DataFrame

    from ratatouille.project.records import Project


def ls(path: str | Path = "landing") -> list[str]:
    """The files below a folder of the workspace, sorted: `["landing/sales/a.csv", ...]`; none if there is no folder.

    Hidden files are left out. Raises RequestError for a path that leads out of the workspace.
    """
    root = workspace_of_caller().root
    folder = (root / path).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise RequestError(
            f"tools.ls('{path}') leads out of the workspace", where=str(folder), next=f"Stay below {root}"
        )
    if folder.is_file():
        return [folder.relative_to(root.resolve()).as_posix()]
    return sorted(_files_below(folder, root.resolve()))


def _files_below(folder: Path, root: Path) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(here, name)
            # A link may stand in the folder and lead out of it.
            if not name.startswith(".") and path.resolve().is_relative_to(root):
                yield path.relative_to(root).as_posix()


def layers() -> list[str]:
    """The workspace's layers in order: `["bronze", "silver", "gold"]`."""
    return list(_project().workspace.layers)


def tables() -> list[str]:
    """The names of all tables and views that can be queried, in the order of layers."""
    from ratatouille.engine import look

    return [one.name for one in look.overview(_project()) if one.version is not None]


def schema(table: str) -> dict[str, str]:
    """Column name -> DuckDB type of a published table (of one not built yet: as far as its files say)."""
    from ratatouille.engine import look

    return {column.name: column.type for column in look.page(_project(), table, rows=0).columns}


def preview(table: str, n: int = 10) -> DataFrame:
    """The first `n` rows as a polars frame, sensitive columns masked."""
    from ratatouille.engine import ask, look

    project = _project()
    page = look.page(project, table, rows=0)
    if page.head is None:
        raise RequestError(
            f"{page.shown.name} was never built", where=page.shown.path, next=f"rat run +{page.shown.name}"
        )
    with ask.reading(project.workspace) as session:
        select = ask.masked_select(session, quoted(page.shown.name), page.asset)
        return _frame(session, f"{select} limit {int(n)}", ours=True)


def info(table: str) -> dict[str, Any]:
    """What is known of an asset, JSON-safe: description, kind, path, status, version, rows, columns, checks, ..."""
    from ratatouille.engine import as_json, look

    page = look.page(_project(), table, rows=0)
    asset, head = page.asset, page.head
    return _json_safe(
        as_json(page.shown)
        | {
            "description": asset.description if asset else "",
            "pipeline": asset.pipeline if asset else "",
            "owners": asset.owners if asset else (),
            "tags": asset.tags if asset else (),
            "columns": [as_json(column) for column in page.columns],
            "checks": [check.name for check in asset.checks] if asset else [],
            "upstream": page.upstream,
            "downstream": page.downstream,
            "run_id": head.run_id if head else None,
        }
    )


def tree() -> str:
    """The workspace as text: layers, their assets, what stands of each."""
    from ratatouille.engine import look

    project = _project()
    shown = look.overview(project)
    lines = [project.workspace.name]
    known = [layer for layer in project.workspace.layers if any(one.layer == layer for one in shown)]
    for layer in [*known, *sorted({one.layer for one in shown} - set(known))]:
        lines.append(f"  {layer}")
        for one in shown:
            if one.layer == layer:
                rows = f"{one.rows:,} row{'' if one.rows == 1 else 's'}, " if one.rows is not None else ""
                stands = f"{rows}version {one.version}" if one.version is not None else "not built yet"
                lines.append(f"    {one.name.partition('.')[2]}  ({one.materialize}, {stands})")
    return "\n".join(lines)


def _project() -> Project:
    from ratatouille import project

    return project.load(workspace_of_caller().root)
