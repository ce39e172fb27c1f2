"""The catalog as a file: what Python's own SQLite may read of it, and when.

attached  open in DuckDB, by this process. A process that closes a file loses all its POSIX locks on it, so of two
          SQLites in one process the first to close takes the locks of the other: nothing here reads a catalog
          that is attached
moved     a workspace that was moved or copied takes its catalog along, and that holds absolute paths. Opened from
          another folder it would read, and on clean-up delete, the files of the folder that it came from. So the
          paths are rewritten once, before attaching
"""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from ratatouille.errors import LakeError
from ratatouille.lake.catalogs.lock import exclusive
from ratatouille.lake.faults import can_be_written
from ratatouille.lake.places.bucket import Bucket
from ratatouille.lake.quoting import text

_PATH_TABLES = ("ducklake_data_file", "ducklake_delete_file", "ducklake_files_scheduled_for_deletion")
_guard = threading.RLock()
_attached: Counter[Path] = Counter()


class CatalogFile:
    """A catalog in a SQLite file: what `catalogs.Catalog` asks for."""

    extension = "sqlite_scanner"

    def __init__(self, file: Path) -> None:
        self.file = file

    def attaching(self) -> AbstractContextManager[bool]:
        return attaching(self.file)

    def detached(self) -> None:
        detached(self.file)

    def is_created(self) -> bool:
        return is_created(self.file)

    def has_tables(self) -> bool:
        return is_created(self.file, "select 1 from ducklake_table")

    def follow(self, data: Path | Bucket) -> None:
        follow(self.file, Path(str(data)))

    def newest_version(self) -> tuple[int, str] | None:
        return newest_version(self.file)

    def attach(self, run: Callable[[str], object], alias: str, options: Sequence[str], *, write: bool) -> None:
        busy = ["meta_busy_timeout 10000", *(["meta_journal_mode 'WAL'"] if write else [])]
        listed = ", ".join([*options, *busy])
        try:
            run(f"attach {text(f'ducklake:sqlite:{self.file}')} as {alias} ({listed})")
        except Exception:
            if write or can_be_written(self.file.parent):
                raise
            # SQLite needs room beside the catalog even to read it; a copy elsewhere reads as well.
            run(f"attach {text(f'ducklake:sqlite:{_copy_of(self.file)}')} as {alias} ({listed})")

    def example_sql(self) -> str:
        return f"LOAD ducklake; LOAD sqlite; ATTACH {text(f'ducklake:sqlite:{self.file}')} AS lake (READ_ONLY);"

    def settle(self, about: str, before: int) -> int | None:
        """SQLite may have written all of a commit to the WAL before the fsync failed. This process no longer sees it,
        but the next one would recover it after a crash. A checkpoint that truncates the WAL decides it either way;
        then the same connection looks for what the commit says about itself.
        """
        try:
            with closing(sqlite3.connect(self.file, timeout=5)) as catalog:
                (busy, _, _) = catalog.execute("pragma wal_checkpoint(truncate)").fetchone()
                found = catalog.execute(
                    "select max(snapshot_id) from ducklake_snapshot_changes"
                    " where commit_extra_info = ? and snapshot_id > ?",
                    (about, before),
                ).fetchone()
        except sqlite3.Error:
            return None
        if found[0] is not None:
            return int(found[0])
        return 0 if busy == 0 else None


def _copy_of(catalog: Path) -> Path:
    """The catalog and its WAL in a private folder that goes with this process."""
    folder = tempfile.mkdtemp(prefix="rat-catalog-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for suffix in ("", "-wal"):
        if os.path.exists(f"{catalog}{suffix}"):
            shutil.copyfile(f"{catalog}{suffix}", f"{folder}/{catalog.name}{suffix}")
    return Path(folder) / catalog.name


@contextmanager
def attaching(catalog: Path) -> Iterator[bool]:
    """The block attaches the catalog, and nothing else in this process touches it meanwhile.

    Gives whether nobody here has it attached already: only then may it be read. `detached` ends it.
    """
    with _guard:
        yield not _attached[catalog]
        _attached[catalog] += 1


def detached(catalog: Path) -> None:
    with _guard:
        _attached[catalog] -= 1


def newest_version(catalog: Path) -> tuple[int, str] | None:
    """The newest version and when it was made, in the catalog's own words; None if that cannot be told from here.

    It takes a millisecond, where loading DuckDB takes a hundred: enough to see that nothing has happened.
    """
    newest = "select snapshot_id, snapshot_time from ducklake_snapshot order by snapshot_id desc limit 1"
    with _guard:
        if _attached[catalog]:
            return None
        try:
            if not catalog.exists():
                return None
            with closing(_open_to_read(catalog)) as reader:
                found = reader.execute(newest).fetchone()
        except (sqlite3.Error, OSError):
            return None
    return (int(found[0]), str(found[1])) if found else None


def follow(catalog: Path, data: Path) -> None:
    """Point the catalog at `data` if it names another folder, and only if the files are really in `data`."""
    here = f"{data}/"
    try:
        named = _named_folder(catalog) if is_created(catalog) else None
        if named is None or named == here:
            return
        _check_files(catalog, named, data)
        with exclusive(catalog, "moving the catalog"):
            writer = sqlite3.connect(catalog, isolation_level=None, timeout=10)
            try:
                _repoint(writer, here)
            finally:
                writer.close()
    except sqlite3.OperationalError as error:
        if not can_be_written(catalog.parent):
            return  # it cannot have been moved here and written to since
        raise unreadable(catalog, error) from error
    except sqlite3.DatabaseError as error:
        raise unreadable(catalog, error) from error


def unreadable(catalog: Path, error: Exception) -> LakeError:
    return LakeError(
        f"the catalog cannot be read: {error}",
        where=str(catalog),
        state="The file was not touched.",
        next="restore the catalog from a backup, or move it away and run: rat run",
    )


def is_created(catalog: Path, asked: str = "select 1 from sqlite_master where name = 'ducklake_metadata'") -> bool:
    """Whether there is a lake's catalog: a process that died while creating one leaves an empty file."""
    if not catalog.exists():
        return False
    try:
        with closing(_open_to_read(catalog)) as reader:
            return bool(reader.execute(asked).fetchone())
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return False
        return catalog.stat().st_size > 0  # SQLite needs room beside the file even to read it
    except sqlite3.DatabaseError as error:
        raise unreadable(catalog, error) from error


def _open_to_read(catalog: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{catalog.as_uri()}?mode=ro", uri=True, timeout=10)


def _named_folder(catalog: Path) -> str | None:
    with closing(_open_to_read(catalog)) as reader:
        found = reader.execute("select value from ducklake_metadata where key = 'data_path'").fetchone()
    return found[0] if found else None


def _check_files(catalog: Path, named: str, data: Path) -> None:
    """Data files lie in their table's folder and are named relative to it."""
    with closing(_open_to_read(catalog)) as reader:
        sample = reader.execute(
            "select s.path || t.path || f.path from ducklake_data_file f join ducklake_table t using (table_id)"
            " join ducklake_schema s using (schema_id) where f.path_is_relative and f.end_snapshot is null limit 20"
        ).fetchall()
    missing = [path for (path,) in sample if not (data / path).exists()]
    if missing:
        raise LakeError(
            "the catalog names data files that are not in this workspace",
            where=f"{missing[0]} is not under {data}",
            state="The catalog was not touched.",
            next=f"move the files to {data}, or set `lake: {{data: ...}}` back to {named}",
        )


def _repoint(connection: sqlite3.Connection, here: str) -> None:
    connection.execute("begin immediate")
    found = connection.execute("select value from ducklake_metadata where key = 'data_path'").fetchone()
    named = found[0] if found else here
    if named != here:
        for table in _PATH_TABLES:
            connection.execute(
                f"update {table} set path = ? || substr(path, ?) where path_is_relative = 0 and substr(path, 1, ?) = ?",
                (here, len(named) + 1, len(named), named),
            )
        connection.execute("update ducklake_metadata set value = ? where key = 'data_path'", (here,))
    connection.execute("commit")
