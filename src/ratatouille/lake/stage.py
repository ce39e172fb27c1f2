"""Staging: a candidate's rows as parquet files in their final place, seen by nobody yet.

The files lie in the table's own folder, one sub-folder per attempt, so publishing registers them
without a copy (and on object storage without a rename). Until then no catalog names them; an attempt
that dies leaves only files, which `discard` or upkeep removes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ratatouille.errors import LakeError, RatError
from ratatouille.lake.connect import Storage
from ratatouille.lake.faults import explain
from ratatouille.lake.layout import Layout, copy_options, in_order
from ratatouille.lake.places.bucket import Bucket
from ratatouille.lake.places.durable import checksum, fsync_folders, fsync_path, make_private
from ratatouille.lake.quoting import ident, text
from ratatouille.lake.session import Session
from ratatouille.lake.types import Columns, storable_select

_T = TypeVar("_T")
_R = TypeVar("_R")
_SEALERS = 8  # files that are made durable at a time


def parquet(columns: Columns) -> str:
    """How rows of these columns are written. Version 2's delta encodings: half the bytes, a fifth less time to write, half
    the time to read. But DuckDB 1.5.5 cannot write some lists of texts with them ("not enough space in buffer to fulfill
    write request", and duckdb#24936), so those are written as version 1.
    """
    listed = any("VARCHAR" in kind and ("[" in kind or "MAP(" in kind) for _, kind in columns)
    return f"format parquet, parquet_version {'v1' if listed else 'v2'}, return_stats true"


@dataclass(frozen=True, slots=True)
class StagedFile:
    path: str  # absolute, or an address
    rows: int
    bytes: int
    sha256: str = ""  # known once sealed


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """What the parquet footers say of a column over all staged files. Extremes as text; None if unknown."""

    nulls: int
    minimum: str | None
    maximum: str | None
    has_nan: bool


@dataclass(frozen=True, slots=True)
class Staged:
    """Rows on disk that no reader sees."""

    folder: Path | Bucket  # a bucket once sealed, where the data is in one
    columns: Columns
    files: tuple[StagedFile, ...]
    facts: Mapping[str, ColumnFacts] = field(default_factory=dict)
    partitioned: bool = False  # its files lie in folders like day=2026-11-21

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def relation(self) -> str:
        """A SELECT over the staged rows."""
        if self.files:
            files = ", ".join(text(glob_safe(file.path)) for file in self.files)
            return f"select * from read_parquet([{files}], hive_partitioning = false)"
        nothing = ", ".join(f"cast(null as {kind}) as {ident(name)}" for name, kind in self.columns)
        return f"select {nothing} where false"


def attempt_folder(storage: Storage, asset: str, run_id: str, attempt: str) -> Path:
    """Where an attempt at `asset` stages its files: inside the table's folder, never used twice."""
    layer, _, table = asset.partition(".")
    return storage.staging / layer / table / f"{run_id}-{attempt}"


def stage(
    session: Session,
    select: str,
    asset: str,
    folder: Path,
    columns: Columns | None = None,
    layout: Layout = Layout(),  # noqa: B008  frozen
) -> Staged:
    """Run `select` and write its rows below `folder`; nothing is fsynced or visible.

    `columns` are those of `select`, where the caller knows them already.
    """
    stored, columns = storable_select(select, columns or session.describe(select), asset)
    make_folder(folder)
    try:
        written = session.rows(
            f"copy (\n{in_order(stored, layout)}\n) to {text(str(folder))}"
            f" ({parquet(columns)}{_groups(session)}, {copy_options(layout)}, overwrite_or_ignore true)"
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return replace(staged_files(folder, columns, written), partitioned=bool(layout.partition_by))


def _groups(session: Session) -> str:
    """Row groups of at most a sixteenth of DuckDB's memory: each thread holds one until it is written, and 122,880 rows
    with a page of text each are 160 MB. Narrow rows never get there."""
    limit, ordered = session.rows(
        "select current_setting('memory_limit'), current_setting('preserve_insertion_order')"
    )[0]
    number, _, unit = str(limit).partition(" ")
    size = float(number) * {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}.get(unit, 1)
    return "" if ordered else f", row_group_size_bytes {max(8 << 20, int(size / 16))}"


def stage_batches(session: Session, selects: Iterator[str], asset: str, folder: Path) -> Staged:
    """Write one file per SELECT as they come; every batch gets the columns and types of the first."""
    make_folder(folder)
    columns: Columns | None = None
    written: list[tuple[Any, ...]] = []
    try:
        for number, select in enumerate(selects):
            stored, columns = batch_select(session, select, columns, asset)
            path = text(str(folder / f"batch_{number:06}.parquet"))
            written += session.rows(f"copy (\n{stored}\n) to {path} ({parquet(columns)})")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if columns is None:
        shutil.rmtree(folder, ignore_errors=True)
        raise no_batch(asset)
    return staged_files(folder, columns, written)


def batch_select(session: Session, select: str, columns: Columns | None, asset: str) -> tuple[str, Columns]:
    """`select` with the columns and types of the batches before it, or of its own if it is the first; and those."""
    if columns is None:
        return storable_select(select, session.describe(select), asset)
    wanted = ", ".join(f"cast({ident(name)} as {kind}) as {ident(name)}" for name, kind in columns)
    return f"select {wanted} from (\n{select}\n)", columns


def no_batch(asset: str) -> LakeError:
    return LakeError(
        f"{asset}: build() gave no batch, so its columns are unknown",
        where=asset,
        next="yield at least one frame; an empty frame with the right columns will do",
    )


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=False, mode=0o700)
    except OSError as error:
        raise explain(error, "making room for the candidate") from error


def staged_files(folder: Path, columns: Columns, written: Sequence[tuple[Any, ...]]) -> Staged:
    kept = [row for row in written if row[1] > 0]
    for row in written:
        if row[1] == 0:
            os.unlink(row[0])
    files = tuple(StagedFile(path=row[0], rows=row[1], bytes=row[2]) for row in kept)
    return Staged(folder, columns, files, _facts([row[4] for row in kept], columns))


def _facts(statistics: Sequence[Mapping[str, Mapping[str, str]]], columns: Columns) -> dict[str, ColumnFacts]:
    """Footer statistics of flat columns; a column that any file says nothing about is left out."""
    facts = {}
    for name, _ in columns:
        each = [file.get(ident(name)) for file in statistics]
        if not each or any(one is None or "null_count" not in one for one in each):
            continue
        known = [one for one in each if one is not None]
        facts[name] = ColumnFacts(
            nulls=sum(int(one["null_count"]) for one in known),
            minimum=_extreme(known, "min", min),
            maximum=_extreme(known, "max", max),
            has_nan=any(one.get("has_nan") == "true" for one in known),
        )
    return facts


def _extreme(known: Sequence[Mapping[str, str]], which: str, pick: Any) -> str | None:
    """The extreme over all files, for whole numbers only: others do not compare as they print."""
    values = [one[which] for one in known if which in one]
    if not values or len(values) < sum(1 for one in known if int(one["null_count"]) < int(one["num_values"])):
        return None
    try:
        return str(pick(int(value) for value in values))
    except ValueError:
        return values[0] if len(values) == 1 else None


def seal(staged: Staged, root: Path | Bucket) -> Staged:
    """Make the staged files durable and read-only, and take their checksums. `root` is where the lake's data is."""
    if not staged.files:
        discard(staged)
        return staged
    if isinstance(root, Bucket):
        return _uploaded(staged, root)
    folder = Path(str(staged.folder))
    folders = {above for file in staged.files for above in Path(file.path).parents if above.is_relative_to(folder)}
    try:
        files = _side_by_side(_sealed, staged.files)
        make_private([Path(file.path) for file in files])
        _side_by_side(fsync_path, folders)
        fsync_folders(folder, root)
    except OSError as error:
        raise explain(error, "making the staged files durable") from error
    return replace(staged, files=tuple(files))


def _side_by_side(do: Callable[[_T], _R], things: Collection[_T]) -> list[_R]:
    """A disk makes many files durable in hardly more time than one, if it is asked for all at once."""
    if len(things) < 2:
        return [do(thing) for thing in things]
    with ThreadPoolExecutor(_SEALERS) as crew:
        return list(crew.map(do, things))


def _sealed(file: StagedFile) -> StagedFile:
    with open(file.path, "rb") as handle:
        digest = checksum(handle)
        os.fsync(handle.fileno())
    return replace(file, sha256=digest)


def _uploaded(staged: Staged, root: Bucket) -> Staged:
    """The staged files as objects of the same names below `root`; those of this machine are gone then."""
    folder = Path(str(staged.folder))
    target = root / "/".join(folder.parts[-3:])  # <layer>/<table>/<attempt>
    below = {file.path: Path(file.path).relative_to(folder).as_posix() for file in staged.files}
    files = []
    try:
        for file in staged.files:
            with open(file.path, "rb") as handle:
                digest = checksum(handle)
            files.append(replace(file, path=f"{target}/{below[file.path]}", sha256=digest))
        target.upload(((Path(path), name) for path, name in below.items()), "uploading the candidate")
    except OSError as error:
        raise explain(error, "uploading the candidate") from error
    shutil.rmtree(folder, ignore_errors=True)
    return replace(staged, folder=target, files=tuple(files))


def discard(staged: Staged) -> None:
    if isinstance(staged.folder, Bucket):
        with suppress(RatError):  # upkeep finds what nobody names
            staged.folder.delete([staged.folder.relative(file.path) for file in staged.files])
    else:
        shutil.rmtree(staged.folder, ignore_errors=True)


def glob_safe(path: str) -> str:
    """A path for DuckDB functions that read `[`, `*` and `?` as patterns."""
    return "".join(f"[{char}]" if char in "[*?" else char for char in path)


def footer_facts(session: Session, staged: Staged) -> dict[str, dict[str, float]]:
    """Of each flat column of staged files: rows, nulls, bytes as stored, and where it is known: `distinct` (different
    values, the most in one row group; the writer counts those of its dictionaries), `min` and `max` of numbers.

    Only the footers are read.
    """
    if not staged.files or isinstance(staged.folder, Bucket):
        return {}
    files = ", ".join(text(glob_safe(file.path)) for file in staged.files)
    numbers = ", ".join(
        text(name) for name, kind in staged.columns if kind.startswith(("DECIMAL", "DOUBLE", "FLOAT")) or "INT" in kind
    )
    rows = session.rows(
        "select path_in_schema, sum(num_values)::bigint, sum(coalesce(stats_null_count, 0))::bigint,"
        " sum(total_compressed_size)::bigint,"
        " case when count(stats_distinct_count) = count(*) then max(stats_distinct_count) end,"
        f" min(try_cast(stats_min_value as double)) filter (path_in_schema in ({numbers or 'null'})),"
        f" max(try_cast(stats_max_value as double)) filter (path_in_schema in ({numbers or 'null'}))"
        f" from parquet_metadata([{files}]) group by path_in_schema"
    )
    known = {name for name, _ in staged.columns}
    names = ("rows", "nulls", "bytes", "distinct", "min", "max")
    return {
        row[0]: {name: value for name, value in zip(names, row[1:], strict=True) if value is not None}
        for row in rows
        if row[0] in known
    }
