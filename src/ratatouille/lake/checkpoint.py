"""Checkpoints: what a step has finished of its chunks, kept until its version is published.

spool       the rows to work through, written once as one parquet file; a chunk is a range of its rows, so where a
            chunk begins and ends never depends on threads, on the order of a scan, or on a source that changed since
finished    a chunk whose results are on disk, fsynced and entered in the manifest with their checksums
manifest    one JSON line for each of these, appended and fsynced; a last line that was cut off counts as absent

They lie beside the catalog, one folder for each asset: only the holder of the asset's lease writes there. A folder
with another key (other inputs, other code) is removed and begun anew. All of it is safe to delete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ratatouille.lake.connect import Storage
from ratatouille.lake.faults import plainly
from ratatouille.lake.layout import Layout, copy_options, in_order
from ratatouille.lake.limits import duckdb_bytes
from ratatouille.lake.places.durable import checksum, fsync_path
from ratatouille.lake.quoting import ident, text
from ratatouille.lake.session import Session
from ratatouille.lake.stage import (
    Staged,
    batch_select,
    glob_safe,
    make_folder,
    no_batch,
    parquet,
    staged_files,
)
from ratatouille.lake.types import Columns, storable_select

FOLDER = "chunks"
_MANIFEST = "manifest.jsonl"


@dataclass(frozen=True, slots=True)
class Spool:
    """The rows of one loop over chunks: `rows` of them, in the order of `by`, if that was asked for."""

    path: Path
    rows: int
    by: tuple[str, ...] = ()

    def select(self, start: int, end: int) -> str:
        """The rows from number `start` up to `end`, counted from 0. Row groups outside are not read."""
        return (
            f"select * exclude (file_row_number) from read_parquet({text(glob_safe(str(self.path)))},"
            f" file_row_number = true) where file_row_number >= {start} and file_row_number < {end}"
        )

    def end_of_group(self, session: Session, end: int) -> int:
        """`end`, or the end of the rows that have the same `by` as the last one before it."""
        if not self.by or end >= self.rows:
            return min(end, self.rows)
        file = f"read_parquet({text(glob_safe(str(self.path)))}, file_row_number = true)"
        last = f"(select * from {file} where file_row_number = {end - 1})"
        same = " and ".join(f"a.{ident(column)} is not distinct from b.{ident(column)}" for column in self.by)
        # The first row after `end` that differs: rows are sorted, so the search may stop at a window of them.
        window = 1024
        while end < self.rows:
            until = min(end + window, self.rows)
            found = session.value(
                f"select min(a.file_row_number) from {file} a, {last} b"
                f" where a.file_row_number >= {end} and a.file_row_number < {until} and not ({same})"
            )
            if found is not None:
                return int(found)
            end, window = until, window * 4
        return self.rows


@dataclass(frozen=True, slots=True)
class Finished:
    """A chunk that is done: rows `start` to `end` of the spool of loop number `loop`, and the files with its results."""

    loop: int
    start: int
    end: int
    files: tuple[Mapping[str, Any], ...]  # name, rows, bytes, sha256, facts


@dataclass(slots=True)
class Checkpoint:
    """The checkpoint of one step. Use `open_checkpoint`; nothing is on disk before the first spool."""

    folder: Path
    key: str
    run_id: str
    memory_bytes: int = 0  # of the resource profile
    finished: list[Finished] = field(default_factory=list)
    columns: Columns | None = None  # of the results
    taken_over: int = 0  # chunks that an earlier attempt has finished
    needs_all: bool = False  # build gave rows beside its chunks, or left their loop: it must see every chunk
    _spools: dict[int, Spool] = field(default_factory=dict)
    _open: tuple[int, int, int] | None = None
    _files: list[Mapping[str, Any]] = field(default_factory=list)
    _whole: bool = True  # every chunk so far gave rows
    _number: int = 0

    @property
    def in_chunk(self) -> bool:
        return self._open is not None

    @property
    def kept(self) -> int:
        """Finished chunks that a later attempt need not do again."""
        return len(self.finished)

    def done(self, loop: int) -> int:
        """The row up to which the chunks of this loop are finished."""
        return max((one.end for one in self.finished if one.loop == loop), default=0)

    def spool(self, loop: int, session: Session, select: str, by: Sequence[str] = ()) -> Spool:
        """The rows of `select`, in the order of `by`: those of the attempt that went before, if it got that far."""
        if loop in self._spools and self._spools[loop].by == tuple(by):
            return self._spools[loop]
        with plainly("writing the rows to work through"):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self.folder / f"spool-{loop}.parquet"
            ordered = f"select * from (\n{select}\n) order by {', '.join(map(ident, by))}" if by else select
            stored, columns = storable_select(ordered, session.describe(select), "chunks")
            # A row group is held in memory until it is written, and a chunk reads whole ones.
            group = f"row_group_size_bytes {max(1 << 20, duckdb_bytes(self.memory_bytes) // 32)}"
            rows = session.rows(f"copy (\n{stored}\n) to {text(str(path))} ({parquet(columns)}, {group})")[0][1]
            fsync_path(path)
        spool = self._spools[loop] = Spool(path, int(rows), tuple(by))
        self._write({"spool": loop, "rows": spool.rows, "by": by, "bytes": path.stat().st_size})
        return spool

    def begin_anew(self, loop: int) -> None:
        """This loop goes over rows of its own, not over those that an earlier attempt wrote down for the same number."""
        if loop == 0:
            self.start_over()
            return
        self._spools.pop(loop, None)  # what stands of loops before it is of this attempt, too
        self.needs_all |= any(one.loop == loop for one in self.finished)

    def begin(self, loop: int, start: int, end: int) -> None:
        """What is staged from now on is the result of these rows."""
        self._open, self._files = (loop, start, end), []

    def end(self) -> None:
        """The results of the chunk that was begun are all there: it need not be done again.

        A chunk that gave nothing may be one whose rows come later, with another chunk: from there on nothing is kept.
        """
        if self._open is None:
            return
        loop, start, end = self._open
        self._open = None
        self._whole &= bool(self._files)
        if self._whole:
            with plainly("keeping a finished chunk"):
                files = []
                for file in self._files:
                    with open(self.folder / file["name"], "rb") as handle:
                        files.append({**file, "sha256": checksum(handle)})
                        os.fsync(handle.fileno())
            self.finished.append(Finished(loop, start, end, tuple(files)))
            self._write({"chunk": [loop, start, end], "columns": self.columns, "files": files})

    def path_for(self, folder: Path, number: int) -> Path:
        """Where the next result goes: what belongs to a chunk is written here, the rest into the attempt's folder."""
        if not self.in_chunk:
            self.needs_all |= bool(self.finished)
            return folder / f"batch_{number:06}.parquet"
        while (path := self.folder / f"out-{self._number:06}.parquet").exists():
            self._number += 1
        return path

    def wrote(self, path: Path, row: Sequence[Any]) -> None:
        facts = {name: dict(said) for name, said in row[4].items()}
        self._files.append({"name": path.name, "rows": row[1], "bytes": row[2], "facts": facts})

    def start_over(self) -> None:
        """Forget everything; also after a publish, when nothing of it is needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # other keys, or other assets, have theirs
            self.folder.parent.rmdir()
            self.folder.parent.parent.rmdir()
        self.finished, self._spools, self._files = [], {}, []
        self.columns, self.taken_over, self.needs_all, self._open = None, 0, False, None
        self._whole, self._number = True, 0

    def _write(self, said: Mapping[str, Any]) -> None:
        with plainly("keeping a finished chunk"):
            path = self.folder / _MANIFEST
            new = not path.exists()
            with path.open("a", encoding="utf-8") as handle:
                if new:
                    handle.write(json.dumps({"key": self.key, "run_id": self.run_id}) + "\n")
                handle.write(json.dumps(said, default=str) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
            if new:
                for folder in (self.folder, self.folder.parent, self.folder.parent.parent):
                    fsync_path(folder)


def open_checkpoint(
    storage: Storage, asset: str, key: str, run_id: str, may_take_over: Callable[[str], bool]
) -> Checkpoint:
    """The checkpoint of a step, with what an attempt of the same `key` has left, if its run `may_take_over` from.

    Whoever calls holds the asset's lease.
    """
    found = Checkpoint(storage.home / FOLDER / asset / key, key, run_id, storage.memory_bytes)
    for other in _entries(found.folder.parent):
        if other.name != key:
            shutil.rmtree(other, ignore_errors=True)
    try:
        lines = (found.folder / _MANIFEST).read_text(encoding="utf-8").splitlines()
        head, *said = [json.loads(line) for line in lines if _is_whole(line)]
    except (OSError, ValueError):
        found.start_over()
        return found
    if head.get("key") != key or not may_take_over(str(head.get("run_id"))):
        found.start_over()
        return found
    for one in said:
        if "spool" in one:
            path = found.folder / f"spool-{one['spool']}.parquet"
            if not path.is_file() or path.stat().st_size != one["bytes"]:
                break
            found._spools[one["spool"]] = Spool(path, one["rows"], tuple(one["by"]))
        elif all(_is_as_written(found.folder / file["name"], file) for file in one["files"]):
            loop, start, end = one["chunk"]
            found.finished.append(Finished(loop, start, end, tuple(one["files"])))
            found.columns = tuple((name, kind) for name, kind in one["columns"])
        else:
            break  # what comes after a hole is done again
    found.taken_over = len(found.finished)
    return found


def stage_chunks(
    selects: Iterator[tuple[Session, str]],
    asset: str,
    folder: Path,
    checkpoint: Checkpoint,
    layout: Layout = Layout(),  # noqa: B008  frozen
) -> Staged:
    """`stage_batches`, of results some of which belong to chunks. Those of an earlier attempt are taken over.

    What belongs to no chunk is cut and ordered by the layout; if all of it is, the result is `partitioned`.
    """
    make_folder(folder)
    written: list[tuple[Any, ...]] = []
    columns: Columns | None = None
    laid_out = bool(layout.partition_by)
    try:
        for session, select in selects:
            # Not before: the code that gives the SELECT may have asked to begin anew.
            stored, columns = batch_select(session, select, columns or checkpoint.columns, asset)
            path = checkpoint.path_for(folder, len(written))
            if laid_out and not checkpoint.in_chunk:
                written += _cut(session, stored, path.with_suffix(""), columns, layout)
                continue
            row = session.rows(f"copy (\n{stored}\n) to {text(str(path))} ({parquet(columns)})")[0]
            if checkpoint.in_chunk:
                checkpoint.columns = columns
                checkpoint.wrote(path, row)
                row = _linked(path, folder, len(written), {"rows": row[1], "bytes": row[2], "facts": row[4]})
            written.append(row)
        for one in checkpoint.finished[: checkpoint.taken_over]:
            for file in one.files:
                written.append(_linked(checkpoint.folder / file["name"], folder, len(written), file))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    columns = columns or checkpoint.columns
    if columns is None:
        shutil.rmtree(folder, ignore_errors=True)
        raise no_batch(asset)
    return replace(staged_files(folder, columns, written), partitioned=laid_out and not checkpoint.finished)


def _cut(session: Session, select: str, folder: Path, columns: Columns, layout: Layout) -> list[tuple[Any, ...]]:
    """A folder for each value of the layout's columns; nothing for no rows."""
    options = f"{parquet(columns)}, {copy_options(layout)}, overwrite_or_ignore true"
    written = session.rows(f"copy (\n{in_order(select, layout)}\n) to {text(str(folder))} ({options})")
    return [row for row in written if row[1]]


def _linked(path: Path, folder: Path, number: int, file: Mapping[str, Any]) -> tuple[Any, ...]:
    """A result in the attempt's folder too, under a second name: it stays with the checkpoint until it is published."""
    to = folder / f"batch_{number:06}.parquet"
    with plainly("staging a finished chunk"):
        try:
            os.link(path, to)
        except OSError:  # another disk
            shutil.copyfile(path, to)
    return (str(to), file["rows"], file["bytes"], None, file["facts"])


def _is_as_written(path: Path, file: Mapping[str, Any]) -> bool:
    try:
        with path.open("rb") as handle:
            return bool(path.stat().st_size == file["bytes"] and checksum(handle) == file["sha256"])
    except OSError:
        return False


def _is_whole(line: str) -> bool:
    with suppress(ValueError):
        return isinstance(json.loads(line), dict)
    return False


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
