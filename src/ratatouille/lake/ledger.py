"""The ledger: what was published, written in the transaction that published it.

entry     one published version of one asset
head      an asset's newest entry: its current version
landing   the landing files that the rows of an asset's current version came from
hold      an asset that was rolled back and must not be rebuilt until its code changes or it is released
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from ratatouille.lake.quoting import LAKE, METADATA, ident, idents, text
from ratatouille.lake.session import Session

SCHEMA = "rat"
LEDGER = f"{LAKE}.{SCHEMA}.ledger"
LANDING = f"{LAKE}.{SCHEMA}.landing"
HOLDS = f"{LAKE}.{SCHEMA}.holds"
QUARANTINE = f"{LAKE}.{SCHEMA}.quarantine"
QUARANTINE_COLUMNS = (
    ("asset", "VARCHAR"),
    ("run_id", "VARCHAR"),
    ("origin", "VARCHAR"),  # gate | reject
    ("checks", "VARCHAR"),
    ("reason", "VARCHAR"),
    ("file", "VARCHAR"),
    ("line", "BIGINT"),
    ("row", "VARCHAR"),  # JSON, or the raw line of a file that could not be read
    ("quarantined_at", "TIMESTAMP"),
)
# Rows of the ledger's tables stay in the catalog up to this many per insert: no tiny parquet files,
# and one fsync covers the data and what is said about it.
_INLINED_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One published version. Times in UTC, sizes in bytes, durations in seconds."""

    asset: str
    run_id: str
    version: int = 0  # the lake's snapshot; known after the commit
    action: str = "build"  # build | rollback | replay | discard
    note: str = ""  # what a person should know of it: why rows were discarded
    materialize: str = "table"
    mode: str = "full"  # full | incremental | partition | artifact
    fingerprint: str = ""
    code_hash: str = ""
    text_hash: str = ""
    token: str = ""  # what the asset's `version:` said
    partitions: Mapping[str, str] = field(default_factory=dict)  # those replaced -> fingerprint; none: not by partition
    base_version: int = 0  # the version that this one was built on; 0: none
    restored_version: int = 0  # of a rollback
    unchanged_since: int = 0  # the version whose rows this one repeats; 0: it changed rows
    inputs: Mapping[str, int] = field(default_factory=dict)
    columns: tuple[tuple[str, str], ...] = ()
    checks: tuple[Mapping[str, Any], ...] = ()
    manifest: tuple[Mapping[str, Any], ...] = ()  # {path, rows, bytes, sha256}; path relative to the data folder
    rows_in: int = 0
    rows_written: int = 0
    rows_deleted: int = 0
    rows_total: int = 0
    rows_quarantined: int = 0
    rows_rejected: int = 0
    bytes_written: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    measured: Mapping[str, Any] = field(default_factory=dict)  # how it was built: stages, CPU, columns, ...
    published_at: datetime | None = None
    published_by: str = ""

    @property
    def data_version(self) -> int:
        """The version in which the rows last changed: what assets below compare with."""
        return self.unchanged_since or self.version


@dataclass(frozen=True, slots=True)
class LandingFile:
    """A landing file whose rows are in an asset's current version. `file` is relative to the workspace."""

    asset: str
    file: str
    bytes: int
    modified_ns: int
    sha256: str
    rows_in: int
    rows_rejected: int
    run_id: str


@dataclass(frozen=True, slots=True)
class Hold:
    asset: str
    version: int
    code_hash: str
    run_id: str
    held_at: datetime


_JSON_FIELDS = ("inputs", "columns", "checks", "manifest", "partitions", "measured")
_MAPPINGS = ("inputs", "partitions", "measured")
_TYPES = {"str": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "datetime": "TIMESTAMP", "datetime | None": "TIMESTAMP"}


def _shape(record: type[Entry | LandingFile | Hold]) -> dict[str, str]:
    """Column -> type of the table that keeps a record. An entry's version is the snapshot that its row is in."""
    return {
        f.name: _TYPES.get(str(f.type), "VARCHAR") for f in fields(record) if (record, f.name) != (Entry, "version")
    }


_ENTRY, _LANDING, _HOLD = _shape(Entry), _shape(LandingFile), _shape(Hold)


def create(session: Session) -> None:
    """The ledger's tables. Each step may have been done by a process that died after it."""
    session.execute(f"create schema if not exists {LAKE}.{SCHEMA}")
    session.execute(f"call {LAKE}.set_option('data_inlining_row_limit', {_INLINED_ROWS}, schema => '{SCHEMA}')")
    session.execute("begin transaction")
    tables = ((LEDGER, _ENTRY), (LANDING, _LANDING), (HOLDS, _HOLD), (QUARANTINE, dict(QUARANTINE_COLUMNS)))
    for table, shape in tables:
        columns = ", ".join(f"{ident(name)} {kind}" for name, kind in shape.items())
        session.execute(f"create table if not exists {table} ({columns})")
        known = {row[0] for row in session.rows(f"describe {table}")}
        for name, kind in shape.items():
            if name not in known:  # a lake of an earlier release
                session.execute(f"alter table {table} add column {ident(name)} {kind}")
    for table in (LEDGER, HOLDS, LANDING, QUARANTINE):
        # A table that never held a row has no statistics, and then reading it takes 3 ms for each column.
        session.execute(f"insert into {table} (asset) values ('')")
        session.execute(f"delete from {table} where asset = ''")  # and no more: a lake of before has rows here
    session.execute("commit")


def exists(session: Session) -> bool:
    """Whether the ledger is there, with every column that this release writes."""
    return set(_ENTRY) <= _columns(session)


def is_earlier(session: Session) -> bool:
    """Whether the ledger is there, as an earlier release made it."""
    known = _columns(session)
    return "run_id" in known and not set(_ENTRY) <= known


def is_missing(session: Session) -> bool:
    """Whether there is no table at all: whoever made the lake died before the ledger was there."""
    return not session.value(f"select count(*) from {METADATA}.ducklake_table")


def _columns(session: Session) -> set[str]:
    rows = session.rows(
        f"select column_name from {METADATA}.ducklake_column where end_snapshot is null"
        f" and table_id = (select min(table_id) from {METADATA}.ducklake_table where table_name = 'ledger')"
    )
    return {row[0] for row in rows}


def heads(session: Session, assets: Sequence[str] | None = None, lake: str = LAKE) -> dict[str, Entry]:
    """The newest entry of each asset (of `assets`, if given), by name."""
    some = "true" if assets is None else f"asset in ({_in(assets)})"
    newest = "row_number() over (partition by asset order by snapshot_id desc) = 1"
    return {e.asset: e for e in _entries(session, f"{some} qualify {newest}", lake=lake)}


@dataclass(frozen=True, slots=True)
class Brief:
    """An entry in brief: what somebody asks who looks at many of them."""

    asset: str
    version: int
    data_version: int
    run_id: str
    action: str
    materialize: str
    mode: str
    token: str
    note: str
    code_hash: str
    restored_version: int
    rows_written: int
    rows_total: int
    seconds: float
    published_at: datetime | None
    said_inputs: str  # as JSON, which few ask for
    said_columns: str

    @property
    def inputs(self) -> Mapping[str, int]:
        return _inputs(self.said_inputs)

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        return tuple((name, kind) for name, kind in json.loads(self.said_columns or "[]"))


@lru_cache(maxsize=10_000)
def _inputs(said: str) -> Mapping[str, int]:
    return MappingProxyType(json.loads(said or "{}"))


def briefs(session: Session, *, after: int = 0) -> list[Brief]:
    """Every entry in brief, oldest first; `after` a version only those of later ones.

    The ledger has no index, so this reads all of it, but the columns that it needs: 4 ms for each thousand entries.
    """
    rows = session.rows(
        "select asset, snapshot_id, coalesce(nullif(unchanged_since, 0), snapshot_id), run_id, action, materialize, mode,"
        " token, note, code_hash, restored_version, rows_written, rows_total, seconds, published_at, inputs, columns"
        f" from {LEDGER} where snapshot_id > {int(after)} order by snapshot_id"
    )
    same: dict[Any, Any] = {}  # most texts are there a thousand times
    return [Brief(*(same.setdefault(v, v) if isinstance(v, str) else v for v in row)) for row in rows]


def entries(session: Session, asset: str | None = None, limit: int = 1000) -> list[Entry]:
    """Published versions, newest first."""
    where = f"asset = {text(asset)}" if asset else "true"
    return _entries(session, where, f" order by snapshot_id desc limit {int(limit)}")


def all_of(session: Session, assets: Sequence[str]) -> list[Entry]:
    """Every entry of `assets`."""
    return _entries(session, f"asset in ({_in(assets)})")


def published_in(session: Session, run_id: str) -> dict[str, Entry]:
    """What a run has published so far, by asset."""
    return {e.asset: e for e in _entries(session, f"run_id = {text(run_id)}")}


def _entries(session: Session, where: str, rest: str = "", lake: str = LAKE) -> list[Entry]:
    # By the columns that are there: a lake of an earlier release, or an earlier version of this one, has not all.
    found = session.execute(f"select *, snapshot_id as version from {lake}.{SCHEMA}.ledger where {where}{rest}")
    names = [column[0] for column in found.description]
    return [_entry(dict(zip(names, row, strict=True))) for row in session.fetched(found)]


def _entry(said: Mapping[str, Any]) -> Entry:
    values = {name: said[name] for name in (*_ENTRY, "version") if said.get(name) is not None}
    return Entry(**values | _unpacked(values))


def _unpacked(values: Mapping[str, Any]) -> dict[str, Any]:
    """What stands as JSON in `values`, as an entry has it."""
    found = {}
    for name in _JSON_FIELDS:
        if name in values:
            loaded = json.loads(values[name] or "{}")
            found[name] = loaded if name in _MAPPINGS else tuple(tuple(x) if isinstance(x, list) else x for x in loaded)
    return found


def write_entries(session: Session, new: Iterable[Entry]) -> None:
    _insert(session, LEDGER, _ENTRY, [_values(entry) for entry in new])


def _values(entry: Entry) -> dict[str, Any]:
    values = {name: getattr(entry, name) for name in _ENTRY}
    return values | {name: json.dumps(values[name], default=str) for name in _JSON_FIELDS}


def as_record(entry: Entry) -> dict[str, Any]:
    """An entry as a JSON-safe mapping; `from_record` makes it again."""
    values = {**_values(entry), "version": entry.version}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def from_record(said: Mapping[str, Any]) -> Entry:
    """The entry that `as_record` wrote, today or when entries said less. Raises KeyError, TypeError, ValueError."""
    at = said.get("published_at")
    return _entry({**said, "published_at": datetime.fromisoformat(at) if at else None})


def landing_files(session: Session, asset: str, *, version: int | None = None) -> list[LandingFile]:
    at = f" at (version => {int(version)})" if version is not None else ""
    rows = session.rows(f"select {idents(_LANDING)} from {LANDING}{at} where asset = {text(asset)} order by file")
    return [LandingFile(*row) for row in rows]


def landing_by_asset(session: Session, assets: Sequence[str]) -> dict[str, list[LandingFile]]:
    """What each of `assets` remembers of landing files."""
    if not assets:
        return {}
    found: dict[str, list[LandingFile]] = {}
    for row in session.rows(f"select {idents(_LANDING)} from {LANDING} where asset in ({_in(assets)})"):
        found.setdefault(row[0], []).append(LandingFile(*row))
    return found


def remember_files(session: Session, asset: str, files: Sequence[LandingFile], *, forget: Sequence[str] | None) -> None:
    """Replace what `asset` remembers of landing files: of the files in `forget`, or of all if it is None."""
    if forget is None:
        session.execute(f"delete from {LANDING} where asset = {text(asset)}")
    elif forget:
        session.execute(f"delete from {LANDING} where asset = {text(asset)} and file in ({_in(forget)})")
    _insert(session, LANDING, _LANDING, [asdict(file) for file in files])


def holds(session: Session) -> dict[str, Hold]:
    return {row[0]: Hold(*row) for row in session.rows(f"select {idents(_HOLD)} from {HOLDS}")}


def hold(session: Session, new: Hold) -> None:
    release(session, new.asset)
    _insert(session, HOLDS, _HOLD, [asdict(new)])


def release(session: Session, asset: str) -> None:
    session.execute(f"delete from {HOLDS} where asset = {text(asset)}")


def _insert(session: Session, table: str, shape: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows. They travel as one JSON text: thousands of values of their own cost milliseconds a row."""
    if not rows:
        return
    kinds = json.dumps([dict(shape)])
    session.execute(
        f"insert into {table} ({idents(shape)}) select {idents(shape)}"
        f" from (select unnest(from_json({text(json.dumps(rows, default=str))}, {text(kinds)}), recursive := true))"
    )


def _in(values: Iterable[str]) -> str:
    return ", ".join(text(value) for value in values) or "null"
