"""Asking: one SELECT on the lake, answered as text for people, as JSON for programs, as Arrow, or as a file.

The lake is opened for reading, `silver.sales` resolves without the name of the lake, and nothing but a SELECT
is let through. Values become text inside the database, so that a time with a zone looks the same everywhere.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ratatouille import project as files
from ratatouille.engine.gates import MASK
from ratatouille.engine.records import Answer
from ratatouille.engine.workbench import storage_of
from ratatouille.errors import LakeError, RequestError, underline
from ratatouille.lake import (
    Lake,
    QueryFailed,
    Session,
    Storage,
    candidates,
    confine,
    ledger,
    load_extension,
    open_lake,
    standing,
)
from ratatouille.lake.faults import explain
from ratatouille.lake.quoting import BASE, LAKE, ident, table, text
from ratatouille.project.records import Asset, Workspace

FORMATS = ("csv", "parquet", "xlsx", "json")
MAX_XLSX_ROWS = 1_048_575  # of one sheet, below the header
_BATCH = 1000
# What frames have no type for, or one that nobody else reads; inside lists and structs too.
_UNFRAMED = re.compile(r"\b(INTERVAL|UNION|BIGNUM|BIT|GEOMETRY|VARIANT)\b|(?<!\w)TIME WITH TIME ZONE")
_UNSHEETED = re.compile(r"[\[(]|HUGEINT|BLOB|INTERVAL|UUID|BIT|BIGNUM|WITH TIME ZONE|_NS")
_QUOTED = re.compile(r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'")


def moment(said: str | int | datetime) -> int | datetime:
    """A version, or a time (UTC unless it says otherwise). RequestError when it is neither."""
    if isinstance(said, int):
        return said
    if isinstance(said, str) and said.strip().lstrip("v").isdigit():
        return int(said.strip().lstrip("v"))
    try:
        when = said if isinstance(said, datetime) else datetime.fromisoformat(said.strip())
    except ValueError:
        raise RequestError(
            f"'{said}' is neither a version nor a time",
            where="at",
            next="A version is a number of rat history; a time looks like 2026-11-21 06:30 (UTC)",
        ) from None
    return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when


@contextmanager
def reading(
    workspace: Workspace,
    *,
    at: int | datetime | None = None,
    writes: Path | None = None,
    hidden: Mapping[str, frozenset[str]] | None = None,
    spill_bytes: int = 0,
) -> Iterator[Session]:
    """A session on the workspace's lake, read-only, in which two-part names resolve.

    It reaches no file but the lake's own and those beside `writes`, where `write_answer` will put the answer.
    `hidden`: for tables their columns (in lower case) that are masked wherever a two-part name reads them.
    `spill_bytes`: what it may write to the spill folder; 0: as much as there is.
    """
    storage = storage_of(workspace)
    with open_lake(storage, at=at) as lake, session_on(lake, candidates_too=at is None) as session:
        if writes is not None and writes.suffix.lower() == ".xlsx":
            load_extension(session, "excel")
        if spill_bytes:
            session.execute(f"set max_temp_directory_size = {text(f'{spill_bytes}B')}")
        if hidden:
            _mask(session, hidden)
        folders = [storage.data, storage.base_data, writes.resolve().parent if writes is not None else None]
        confine(session, [folder for folder in folders if folder is not None])
        yield session


@contextmanager
def session_on(lake: Lake, doing: str = "the query", *, candidates_too: bool = True) -> Iterator[Session]:
    with lake.session(doing) as session:
        session.execute(f"use {LAKE}")
        if lake.storage.base_catalog is not None:
            _see_the_default_lake(session)
        if candidates_too:
            candidates.stand_in(session, lake.storage.catalog)
        yield session


def _see_the_default_lake(session: Session) -> None:
    """In an environment: what it has not built is found in the default lake, as its runs find it."""
    schemas = session.rows(
        "select database_name, schema_name from duckdb_schemas()"
        f" where database_name in ('{LAKE}', '{BASE}') and schema_name not in ('main', '{ledger.SCHEMA}')"
        f" order by database_name <> '{LAKE}', schema_name"
    )
    path = [f"{ident(database)}.{ident(schema)}" for database, schema in schemas]
    session.execute(f"set search_path = {text(','.join([f'{LAKE}.main', *path]))}")


def _mask(session: Session, hidden: Mapping[str, frozenset[str]]) -> None:
    """Views with masked columns stand where the tables' two-part names are."""
    bases = session.value(f"select count(*) from duckdb_databases() where database_name = '{BASE}'")
    there = {lake: standing(session, lake) for lake in (LAKE, *([BASE] if bases else []))}
    layers = set()
    for name, columns in hidden.items():
        lake = next((one for one, names in there.items() if name in names), None)
        if lake is not None:
            layers.add(layer := name.partition(".")[0])
            session.execute(f"create schema if not exists memory.{ident(layer)}")
            masked = _masked(session, table(name, lake), columns)
            session.execute(f"create or replace view {table(name, 'memory')} as {masked}")
    if layers:
        path = [f"memory.{ident(layer)}" for layer in sorted(layers)]
        last = session.value("select current_setting('search_path')")
        known = session.rows(
            "select database_name, schema_name from duckdb_schemas()"
            f" where database_name = '{LAKE}' and schema_name not in ('main', '{ledger.SCHEMA}')"
        )
        path += [f"{ident(database)}.{ident(schema)}" for database, schema in known] if "," not in last else []
        session.execute(f"set search_path = {text(','.join([*path, last or f'{LAKE}.main']))}")


def answer(
    session: Session, sql: str, limit: int, *, ours: bool = False, longest: int = 0, characters: int = 0
) -> Answer:
    """The first `limit` rows as text. `ours`: the SQL was made here, not by a person.

    `longest`: letters of one value, `characters` of all together, after which no more rows are taken; 0: any number.
    """
    with _as_request(sql, ours):
        columns = session.describe(sql)
        cut = (f"left(c{i}::varchar, {longest})" if longest else f"c{i}::varchar" for i in range(len(columns)))
        select = f"select {', '.join(cut)} from {_numbered(sql, columns)}"
        found, more = _fetch(session, f"{select} limit {limit + 1}" if longest else select, limit, characters)
    return Answer(columns, tuple(found), more)


def masked_select(session: Session, relation: str, asset: Asset | None) -> str:
    """A SELECT over a relation whose sensitive columns show no more than whether there is a value."""
    hidden = asset.hidden if asset else frozenset()
    return _masked(session, relation, hidden) if hidden else f"select * from {relation}"


def _masked(session: Session, relation: str, hidden: frozenset[str]) -> str:
    shown = (
        f"case when {ident(n)} is not null then '{MASK}' end as {ident(n)}" if n.lower() in hidden else ident(n)
        for n, _ in session.describe(f"select * from {relation}")
    )
    return f"select {', '.join(shown)} from {relation}"


def json_rows(session: Session, sql: str, limit: int | None = None, *, ours: bool = False) -> Iterator[str]:
    """Each row as the text of a JSON object; numbers keep their digits, what JSON cannot say is null."""
    with _as_request(sql, ours):
        columns = session.describe(sql)
        names = _unique([name for name, _ in columns])
        values = ", ".join(f"{ident(name)} := c{i}" for i, name in enumerate(names))
        rows = f"select to_json(struct_pack({values}))::varchar from {_numbered(sql, columns)}"
        session.execute(rows)
        left = limit if limit is not None else -1
        while left and (batch := _next(session, min(_BATCH, left) if left > 0 else _BATCH)):
            left -= len(batch) if left > 0 else 0
            for (row,) in batch:
                yield _strict(row)


def arrow(session: Session, sql: str, *, ours: bool = False) -> Any:
    """All rows as a pyarrow.Table; types that frames do not have become text."""
    with _as_request(sql, ours):
        columns = session.describe(sql)
        names = _unique([name for name, _ in columns])
        plain = [(f"c{i}", _QUOTED.sub("", kind)) for i, (_, kind) in enumerate(columns)]
        odd = any(_UNFRAMED.search(kind) for _, kind in plain) or names != [name for name, _ in columns]
        if odd:
            chosen = (f"{c}::varchar" if _UNFRAMED.search(kind) else c for c, kind in plain)
            listed = ", ".join(f"{one} as {ident(name)}" for one, name in zip(chosen, names, strict=True))
            sql = f"select {listed} from {_numbered(sql, columns)}"
        result = session.execute(sql)
        try:
            return result.to_arrow_table()
        except Exception as error:
            raise explain(error, session.doing) from error


def write_answer(session: Session, sql: str, target: Path, storage: Storage) -> int:
    """Write all rows to a .csv, .parquet, .xlsx or .json file; returns how many. Whole or not at all."""
    kind = target.suffix.lower().lstrip(".")
    _refuse_target(target, kind, storage)
    with _as_request(sql):
        columns = session.describe(sql)
        names = _unique([name for name, _ in columns])
        listed = ", ".join(f"{_cell(f'c{i}', columns[i][1], kind)} as {ident(name)}" for i, name in enumerate(names))
        select = f"select {listed} from {_numbered(sql, columns)}"
        if kind == "xlsx":
            _refuse_too_many(session, sql, columns)
        beside = target.with_name(f".{target.stem}.{os.getpid()}.partial.{kind}")
        try:
            written = session.value(f"copy ({select}) to {text(str(beside))} ({_options(kind)})")
            os.replace(beside, target)
        except OSError as error:
            raise LakeError(
                f"{target} cannot be written: {error.strerror}", where=str(target), next="choose another place: -o"
            ) from error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
    return int(written or 0)


def _options(kind: str) -> str:
    return {
        "csv": "format csv, header true",
        "parquet": "format parquet, compression zstd",
        "json": "format json, array true",
        "xlsx": "format xlsx, header true",
    }[kind]


def _cell(place: str, type_name: str, kind: str) -> str:
    return f"{place}::varchar" if kind == "xlsx" and _UNSHEETED.search(_no_decimal(type_name)) else place


def _no_decimal(type_name: str) -> str:
    """A plain decimal is a number in a sheet; anything else with parentheses is text."""
    return re.sub(r"^DECIMAL\(\d+,\d+\)$", "DECIMAL", type_name)


def _refuse_target(target: Path, kind: str, storage: Storage) -> None:
    if kind not in FORMATS:
        raise RequestError(
            f"'{target.name}' does not say in which format to write",
            where=str(target),
            next=f"Use a name that ends in {', '.join('.' + one for one in FORMATS)}",
        )
    resolved = target.resolve()
    if resolved.is_relative_to(storage.staging.resolve()) or resolved.is_relative_to(storage.home.resolve() / "cache"):
        raise RequestError("a query does not write into the lake", where=str(target), next="Choose another folder")
    if not resolved.parent.is_dir():
        raise RequestError(f"there is no folder {target.parent}", where=str(target), next=f"mkdir -p {target.parent}")
    if resolved.is_dir():
        raise RequestError(f"{target} is a folder", where=str(target), next="Name a file")


def _refuse_too_many(session: Session, sql: str, columns: tuple[tuple[str, str], ...]) -> None:
    rows = session.value(f"select count(*) from {_numbered(sql, columns)}")
    if rows > MAX_XLSX_ROWS:
        raise RequestError(
            f"a sheet holds {MAX_XLSX_ROWS:,} rows, and this query gives {rows:,}",
            where=".xlsx",
            next="Write .csv or .parquet, or ask for less",
        )


def _numbered(sql: str, columns: tuple[tuple[str, str], ...]) -> str:
    """The query as a relation whose columns are c0, c1, ...: two of a query's may have one name."""
    return f"(\n{sql}\n) q({', '.join(f'c{i}' for i in range(len(columns)))})"


def _unique(names: list[str]) -> list[str]:
    taken: dict[str, int] = {}
    found = []
    for name in names:
        taken[name.lower()] = taken.get(name.lower(), 0) + 1
        found.append(name if taken[name.lower()] == 1 else f"{name}_{taken[name.lower()] - 1}")
    return found


def _fetch(session: Session, sql: str, count: int, characters: int = 0) -> tuple[list[tuple[Any, ...]], bool]:
    """The first `count` rows of texts, fewer when they have more letters than `characters`; whether there are others."""
    session.execute(sql)
    found: list[tuple[Any, ...]] = []
    left = characters
    size = count + 1 if not characters else 20
    while batch := _next(session, min(size, count + 1 - len(found))):
        found += batch
        left -= sum(len(value or "") for row in batch for value in row)
        if len(found) > count or (characters and left < 0):
            return found[:count], True
    return found, False


def _next(session: Session, count: int) -> list[tuple[Any, ...]]:
    try:
        return session.cursor.fetchmany(count)
    except Exception as error:
        raise explain(error, session.doing) from error


def _strict(row: str) -> str:
    if "NaN" not in row and "Infinity" not in row:
        return row
    return json.dumps(json.loads(row, parse_constant=lambda _: None), ensure_ascii=False)


@contextmanager
def _as_request(sql: str, ours: bool = False) -> Iterator[None]:
    """Only a SELECT passes; what DuckDB refuses in it is the request's mistake, not the lake's."""
    if not ours:
        files.parse_select(sql)
    try:
        yield
    except QueryFailed as failed:
        if "disabled by configuration" in (failed.message or failed.what):
            raise RequestError(
                "This query cannot run: a query reads tables of the lake, and no files.",
                where=_place(sql, failed),
                next="read the file with an asset: select * from {{ source('landing/...') }}, then: rat run",
            ) from failed
        raise RequestError(
            f"This query cannot run: {failed.message or failed.what}",
            where=_place(sql, failed),
            next=failed.next or "rat show",
        ) from failed


def _place(sql: str, failed: QueryFailed) -> str:
    """The place in the person's own text: what was run begins one line above it."""
    lines = sql.splitlines()
    if not 2 <= failed.line <= len(lines) + 1:
        return "query"
    line = lines[failed.line - 2]
    if line not in failed.where:  # a long line was cut, and the column with it
        return failed.where.partition("\n")[2].strip("\n") or "query"
    return underline("query", failed.line - 1, max(1, failed.column), 1, line)
