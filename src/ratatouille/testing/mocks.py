"""Given rows as what an asset reads: tables of the throw-away lake, and landing files of a throw-away workspace.

Types come from the test's own `columns`, then from the YAML file of the table that is stood in for, then from the
values themselves, as DuckDB reads them from JSON or CSV.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from ratatouille.engine import fitting
from ratatouille.engine.landing import matching_files
from ratatouille.engine.seeds import seed_select
from ratatouille.errors import RequestError
from ratatouille.lake import Lake, Session
from ratatouille.lake.quoting import ident, text
from ratatouille.lake.stage import glob_safe
from ratatouille.lake.throwaway import put_view
from ratatouille.project.cases import Case, Rows
from ratatouille.project.find import PIPELINES
from ratatouille.project.records import Asset, Project, Source

WORKSPACE_ONLY = (".rat",)  # what a throw-away workspace never shares with the real one


def mirror(root: Path, folder: Path, sources: Iterable[Source]) -> Path:
    """A workspace below `folder` that has the files of the one at `root`, but neither its lake nor its landing files."""
    there = folder / "workspace"
    there.mkdir()
    landing = {PurePosixPath(source.glob).parts[0] for source in sources}
    for entry in root.iterdir():
        # `**` and `*` match the folder of the pipelines too, which Python assets import from.
        is_landing = entry.name in landing or (entry.name != PIPELINES and any(fnmatch(entry.name, p) for p in landing))
        if entry.name not in WORKSPACE_ONLY and not is_landing:
            (there / entry.name).symlink_to(entry)
    return there


def select_of(session: Session, rows: Rows, folder: Path, declared: Mapping[str, str], fill: Iterable[str] = ()) -> str:
    """A SELECT of given rows. `declared` are types by column; columns of `fill` that no row has are null."""
    types = {name.lower(): kind for name, kind in {**declared, **rows.columns}.items() if kind}
    relation = _relation(session, rows, folder, types)
    have = session.describe(f"select * from {relation}") if relation else ()
    if relation:
        relation = f"({as_declared(session, f'select * from {relation}', types)})"
    columns = [ident(name) for name, _ in have]
    known = {name.lower() for name, _ in have}
    missing = dict.fromkeys(name for name in (*rows.columns, *declared, *fill) if name.lower() not in known)
    columns += [f"cast(null as {types.get(name.lower(), '')}) as {ident(name)}" if types.get(name.lower()) else f"null as {ident(name)}" for name in missing]  # fmt: skip
    if not columns:
        raise RequestError(
            "no row is given, so the columns are unknown",
            where="rows: []",
            next="name them: {rows: [], columns: {id: integer}}",
        )
    return f"select {', '.join(columns)} from {relation}" if relation else f"select {', '.join(columns)} where false"


def as_declared(session: Session, select: str, types: Mapping[str, str]) -> str:
    """`select` with the declared types; it fails at a value that does not fit."""
    have = session.describe(select)
    by_name = {name.lower(): kind for name, kind in types.items() if kind}
    wanted = {name: by_name.get(name.lower(), kind) for name, kind in have}
    return fitting.strictly(select, have, fitting.spelled(session, have, wanted))


def _relation(session: Session, rows: Rows, folder: Path, types: Mapping[str, str]) -> str:
    """What is given as something that can be selected from; '' for no rows. CSV with a type comes as text."""
    number = sum(1 for _ in folder.iterdir())
    if rows.rows is not None:
        if not rows.rows:
            return ""
        path = folder / f"{number}.json"
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows.rows), encoding="utf-8")
    elif rows.csv:
        path = folder / f"{number}.csv"
        path.write_text(rows.csv, encoding="utf-8")
    else:
        path = Path(rows.file)
    place = text(glob_safe(str(path)))
    match path.suffix:
        case ".csv":
            read = f"read_csv({place}, header = true, sample_size = -1"
            names = [name for name, _ in session.describe(f"select * from {read})")]
            texts = ", ".join(f"{text(name)}: 'VARCHAR'" for name in names if name.lower() in types)
            return f"{read}, types = {{{texts}}})" if texts else f"{read})"
        case ".parquet":
            return f"read_parquet({place})"
    return f"read_json({place}, sample_size = -1, maximum_depth = -1)"


def give(lake: Lake, project: Project, asset: Asset, case: Case, root: Path, mocks: Path) -> dict[str, str]:
    """Let what the case gives stand where `asset` reads; the relations that stand for tables of databases, by source.

    RequestError names an input that nothing is given for.
    """
    for source in asset.sources:
        landed = next((case.given[key] for key in (source.name, source.glob) if key in case.given), None)
        if landed is not None:
            _land(lake, landed, source, root, mocks)
    stand_ins = {}
    for name in asset.tables:
        if name not in case.given:
            raise _not_given(asset, case, name)
        with lake.session(f"making the rows of {name}") as session:
            stand_ins[name] = f"({select_of(session, case.given[name], mocks, {})})"
    for name in asset.depends_on:
        above = project.assets.get(name)
        with lake.session(f"making the rows of {name}") as session:
            if name in case.given:
                fill = above.outputs if above else ()
                select = select_of(session, case.given[name], mocks, _types(above), fill)
            elif above is not None and above.kind == "seed":
                select = as_declared(session, seed_select(session, root, above), _types(above))
            else:
                raise _not_given(asset, case, name)
        put_view(lake, name, select)
    return stand_ins


def _not_given(asset: Asset, case: Case, name: str) -> RequestError:
    return RequestError(
        f"{asset.name} reads {name}, and the test gives no rows of it",
        where=f"{case.path}:{case.line}",
        next=f"given: {{{name}: [...]}}",
    )


_ORIGIN = {"_file": "VARCHAR", "_loaded_at": "TIMESTAMP", "_run_id": "VARCHAR"}


def _types(above: Asset | None) -> dict[str, str]:
    """The types that the files of an asset declare, by column: of its own columns, and of its landing files'."""
    if above is None:
        return {}
    landed = {name: kind for source in above.sources for name, kind in source.columns}
    known = {**landed, **(_ORIGIN if above.sources else {})}
    mine = {name: kind for name, kind in known.items() if name in above.outputs}
    return {**mine, **{column.name: column.type for column in above.columns if column.type}}


def _land(lake: Lake, rows: Rows, source: Source, root: Path, mocks: Path) -> None:
    """Given rows as a landing file of the source's format."""
    name = _matching_name(source.glob)
    if rows.file:
        own = str(PurePosixPath(source.glob).parent / Path(rows.file).name)
        name = own if "*" not in str(PurePosixPath(source.glob).parent) else name
    target = root / name
    if not target.resolve().is_relative_to(root.resolve()):  # through a link: a file of the real workspace
        raise RequestError(
            f"the given rows of {source.glob} would lie in {target.parent.name}/, which the test shares with the workspace",
            where="given:",
            next=f"read landing files from a folder of their own, not {source.glob}",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if rows.file:
        shutil.copyfile(rows.file, target)
    elif rows.csv:
        target.write_text(rows.csv, encoding=source.encoding)
    else:
        with lake.session("making a landing file") as session:
            select = select_of(session, rows, mocks, dict(source.columns))
            options = {
                "csv": f"format csv, header {str(source.header).lower()}, delimiter {text(source.delimiter)}",
                "json": "format json",
                "parquet": "format parquet",
            }[source.format]
            session.execute(f"copy ({select}) to {text(str(target))} ({options})")
    if name not in matching_files(root, source.glob):
        raise RequestError(
            f"{Path(name).name} is no landing file of {source.glob}",
            where="given:",
            next="give the file a name that matches",
        )


def _matching_name(glob: str) -> str:
    return re.sub(r"\[[^\]]*\]|\?", "x", glob.replace("**/", "").replace("*", "given"))
