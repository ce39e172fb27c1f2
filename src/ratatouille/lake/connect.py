"""Opening the lake: the only place that connects, and it always closes.

lake      the catalog (SQLite in WAL mode) and the parquet files that it names
pinned    a session inside a read transaction: every query in it sees one version

Readers attach read-only. A writer holds `<catalog>.lock` from before BEGIN to after COMMIT, because
two SQLite writers lose commits to "database is locked" and DuckLake does not retry that.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ratatouille.errors import LakeError, RatError, RequestError
from ratatouille.lake import catalog_file, ledger, unsettled
from ratatouille.lake.faults import can_be_written, explain
from ratatouille.lake.lock import exclusive, looking_back
from ratatouille.lake.quoting import BASE, LAKE, text, texts
from ratatouille.lake.session import Session

if TYPE_CHECKING:
    import duckdb

NETWORK_FILESYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs")
_opened = itertools.count()
# Of the machine's memory (or the container's): room for Python, frames and the page cache.
MEMORY_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a lake lives and what it may use. Paths are absolute; 0 takes the value from the machine."""

    catalog: Path
    data: Path
    spill: Path
    memory_bytes: int = 0
    threads: int = 0
    base_catalog: Path | None = None  # of an environment: the default lake
    base_data: Path | None = None


class Lake:
    """An open lake. Use `open_lake`."""

    def __init__(self, storage: Storage, connection: duckdb.DuckDBPyConnection, spill: Path, *, writable: bool) -> None:
        self.storage = storage
        self.writable = writable
        self.attached = False
        self._connection = connection
        self._spill = spill
        # duckdb.cursor() on one connection is not safe from several threads at once.
        self._guard = threading.Lock()
        self._open: list[duckdb.DuckDBPyConnection] = []
        self._named: dict[str, threading.Lock] = {}
        # DuckDB opens a SQLite connection for each transaction. The first one to come recovers the WAL, the last one
        # to go truncates it, and whoever comes meanwhile is told "busy" and waits a whole second: so one at a time.
        self._door = threading.Lock()

    @property
    def threads(self) -> int:
        return self.storage.threads or default_threads()

    @contextmanager
    def session(self, doing: str = "reading the lake") -> Iterator[Session]:
        with self._guard:
            cursor = self._connection.cursor()
            self._open.append(cursor)
        session = Session(cursor, doing, self.storage.catalog.parent)
        try:
            yield session
        finally:
            with self._door:
                session.rollback()
            with self._guard:
                self._open.remove(cursor)
            cursor.close()

    @contextmanager
    def pinned(self, doing: str = "reading the lake") -> Iterator[Session]:
        """A session in which all queries see the version that is current now."""
        with self.session(doing) as session:
            with self._door:
                session.execute("begin transaction")
                _ = session.snapshot
            yield session

    @contextmanager
    def guard_of(self, name: str) -> Iterator[None]:
        """One thread at a time does what is named so."""
        with self._guard:
            lock = self._named.setdefault(name, threading.Lock())
        with lock:
            yield

    def interrupt(self) -> None:
        """Stop the queries that are running."""
        with self._guard:
            for cursor in self._open:
                cursor.interrupt()

    def close(self) -> None:
        """May be called twice."""
        self._connection.close()
        shutil.rmtree(self._spill, ignore_errors=True)
        if self.attached:
            self.attached = False
            catalog_file.detached(self.storage.catalog)
            if self.storage.base_catalog is not None:
                catalog_file.detached(self.storage.base_catalog)


@contextmanager
def open_lake(
    storage: Storage, *, write: bool = False, create: bool = False, at: int | datetime | None = None
) -> Iterator[Lake]:
    """Open the lake at `storage`; `at` shows it as it was at a version or a time (UTC).

    `create` makes the lake first if it is not there. Raises RequestError if there is none, LakeError if it
    cannot be opened.
    """
    with ExitStack() as stack:
        if at is not None:
            stack.enter_context(looking_back(storage.catalog))
        with catalog_file.attaching(storage.catalog) as alone:
            lake = _attached(storage, alone=alone, write=write, create=create, at=at)
            stack.callback(lake.close)
        if create or (write and at is None):
            _create_ledger(lake, create=create)
        yield lake


def _attached(storage: Storage, *, alone: bool, write: bool, create: bool, at: int | datetime | None) -> Lake:
    """The lake, attached. `alone`: this process has not attached it already, so its file may be looked at."""
    try:
        exists = not alone or catalog_file.is_created(storage.catalog)
    except OSError as error:
        raise explain(error, "opening the lake", folder=storage.catalog.parent) from error
    if not exists and not create:
        raise RequestError(
            "there is no lake here yet",
            where=str(storage.catalog),
            state="Nothing has been built.",
            next="rat run",
        )
    try:
        spill = _spill_folder(storage)
        if create:
            _make_folders(storage)
        with suppress(OSError):  # a disk that cannot be written to can still be read from
            storage.spill.mkdir(parents=True, exist_ok=True, mode=0o700)  # DuckDB makes only the last folder
        if alone:
            catalog_file.follow(storage.catalog, storage.data)
            unsettled.heal(storage)
        connection = _connect(storage, spill)
    except Exception as error:
        raise explain(error, "opening the lake", folder=storage.catalog.parent) from error
    lake = Lake(storage, connection, spill, writable=write or create)
    try:
        if create and not exists:
            with exclusive(storage.catalog, "creating the lake"):
                first = not catalog_file.is_created(storage.catalog)
                _attach(connection, storage, write=True, create=first, at=None)
        else:
            _attach(connection, storage, write=write or create, create=False, at=at)
    except BaseException:
        lake.close()
        raise
    lake.attached = True
    if storage.base_catalog is not None and storage.base_data is not None:
        _attach_base(lake, connection, storage.base_catalog, storage.base_data)
    return lake


def _attach_base(lake: Lake, connection: duckdb.DuckDBPyConnection, catalog: Path, data: Path) -> None:
    """The default lake beside an environment's: read-only, and at the version that is current now."""
    with catalog_file.attaching(catalog) as alone:
        try:
            if alone and not catalog_file.is_created(catalog):
                return
            if alone:
                catalog_file.follow(catalog, data)
            attach = f"attach {text(f'ducklake:sqlite:{catalog}')} as {BASE} ("
            attach += f"data_path {text(str(data))}, meta_busy_timeout 10000, create_if_not_exists false, read_only"
            connection.execute(f"{attach})")
            found = connection.execute(f"select id from {BASE}.current_snapshot()").fetchone()
            connection.execute(f"detach {BASE}")
            connection.execute(f"{attach}, snapshot_version {found[0] if found else 0})")
        except Exception as error:
            lake.close()
            raise _cannot_open(error, replace(lake.storage, catalog=catalog)) from error


def attach_pinned(connection: duckdb.DuckDBPyConnection, storage: Storage, version: int) -> None:
    """Attach the lake as it was at `version`, read-only, to a connection that somebody else has opened."""
    _load_extensions(connection)
    _attach(connection, storage, write=False, create=False, at=version)


def _make_folders(storage: Storage) -> None:
    _refuse_network_filesystem(storage.catalog)
    storage.catalog.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    storage.data.mkdir(parents=True, exist_ok=True, mode=0o700)


def settings(storage: Storage, spill: Path) -> dict[str, str | bool | int | float | list[str]]:
    """What every DuckDB that reads the lake is started with."""
    return {
        "memory_limit": f"{storage.memory_bytes or default_memory_bytes()}B",
        "threads": storage.threads or default_threads(),
        "temp_directory": str(spill),
        "preserve_insertion_order": False,  # halves the memory of large writes
        "autoinstall_known_extensions": False,  # extensions come from the wheels, never from the network
        "autoload_known_extensions": False,
    }


def _connect(storage: Storage, spill: Path) -> duckdb.DuckDBPyConnection:
    import duckdb

    # DuckDB checks the signature of 70 MB of extensions at every opening: 0.17 s, nine tenths of it. Ours lie in
    # hashed wheels beside DuckDB itself; once they are loaded nothing unsigned can be, and that cannot be undone.
    connection = duckdb.connect(config=settings(storage, spill) | {"allow_unsigned_extensions": True})
    try:
        _load_extensions(connection)
        connection.execute("set allow_unsigned_extensions = false")
    except BaseException:
        connection.close()
        raise
    return connection


def _load_extensions(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("set global TimeZone = 'UTC'")
    for name in ("ducklake", "sqlite_scanner"):
        connection.execute(f"load {text(str(extension_file(name)))}")


def _create_ledger(lake: Lake, *, create: bool) -> None:
    """Create the ledger, or give that of an earlier release its new columns. Without `create` only the second."""
    with lake.session("opening the lake") as session:
        if not (ledger.is_earlier(session) or (create and not ledger.exists(session))):
            return
    with exclusive(lake.storage.catalog, "creating the lake"), lake.session("creating the lake") as session:
        ledger.create(session)
    # The names of the new folders, up to the one that was there before.
    for folder in (lake.storage.data, lake.storage.data.parent, lake.storage.data.parent.parent):
        fsync_path(folder)


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable: a file is only there when its folder says so."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _attach(
    connection: duckdb.DuckDBPyConnection,
    storage: Storage,
    *,
    write: bool,
    create: bool,
    at: int | datetime | None,
) -> None:
    options = [f"data_path {text(str(storage.data))}", "meta_busy_timeout 10000"]
    options += [f"create_if_not_exists {str(create).lower()}"]
    # A version is files with checksums, so tables are never inlined into the catalog; the ledger is.
    options += ["meta_journal_mode 'WAL'", "data_inlining_row_limit 0"] if write else ["read_only"]
    if isinstance(at, datetime):
        options += [f"snapshot_time {text(at.isoformat(sep=' '))}"]
    elif at is not None:
        options += [f"snapshot_version {int(at)}"]
    try:
        try:
            _attach_file(connection, storage.catalog, options)
        except Exception:
            if write or can_be_written(storage.catalog.parent):
                raise
            # SQLite needs room beside the catalog even to read it; a copy elsewhere reads as well.
            _attach_file(connection, _copy_of(storage.catalog), options)
    except Exception as error:
        if at is not None and "snapshot" in str(error).lower():
            raise RequestError(
                f"the lake has no version {at}", where=str(storage.catalog), next="rat history"
            ) from error
        raise _cannot_open(error, storage) from error


def _attach_file(connection: duckdb.DuckDBPyConnection, catalog: Path, options: Sequence[str]) -> None:
    connection.execute(f"attach {text(f'ducklake:sqlite:{catalog}')} as {LAKE} ({', '.join(options)})")


def _copy_of(catalog: Path) -> Path:
    """The catalog and its WAL in a private folder that goes with this process."""
    folder = tempfile.mkdtemp(prefix="rat-catalog-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for suffix in ("", "-wal"):
        if os.path.exists(f"{catalog}{suffix}"):
            shutil.copyfile(f"{catalog}{suffix}", f"{folder}/{catalog.name}{suffix}")
    return Path(folder) / catalog.name


def _cannot_open(error: Exception, storage: Storage) -> RatError:
    known = explain(error, "opening the lake", folder=storage.catalog.parent)
    if not isinstance(known, LakeError):
        return LakeError(
            f"the catalog cannot be opened: {known.what.removeprefix('opening the lake: ')}",
            where=str(storage.catalog),
            state="The file was not touched.",
            next="restore the catalog from a backup, or move it away and run: rat run",
        )
    return known


def load_extension(session: Session, name: str) -> None:
    """Load an extension from its wheel, e.g. `excel`; says which package to install if it is missing."""
    session.execute(f"load {text(str(extension_file(name)))}")


def confine(session: Session, folders: Sequence[Path]) -> None:
    """From here on this opening of the lake reaches only files below `folders`, and no setting can be changed.

    What is attached stays attached. Extensions must be loaded before. It cannot be undone.
    """
    session.execute(f"set allowed_directories = {texts(f'{folder}/' for folder in folders)}")
    session.execute("set enable_external_access = false")
    session.execute("set lock_configuration = true")


def extension_file(name: str) -> Path:
    """The extension's binary inside its wheel.

    DuckDB finds the entry point by the file's name, so the sqlite one must come from the
    `-sqlite-scanner` wheel: the `-sqlite` wheel holds the same bytes under a name that does not load.
    """
    import duckdb

    module = f"duckdb_extension_{name}"
    found = find_spec(module)
    if found is None or found.origin is None:
        raise RequestError(
            f"the DuckDB extension {name} is not installed",
            where=f"Python package {module}",
            next=f"pip install 'duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}'",
        )
    return Path(found.origin).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"


def default_threads() -> int:
    return len(os.sched_getaffinity(0))


def default_memory_bytes() -> int:
    """MEMORY_SHARE of what this process may use: the machine's memory or its cgroup's, in bytes."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = min(limit, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue  # no cgroup, or "max"
    return int(limit * MEMORY_SHARE)


def _spill_folder(storage: Storage) -> Path:
    """A folder for this lake alone: DuckDB's spill files of two instances would collide in one."""
    if storage.spill.is_dir():
        for old in storage.spill.iterdir():
            pid = old.name.partition("-")[0]
            if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(old, ignore_errors=True)  # left by a killed process
    return storage.spill / f"{os.getpid()}-{next(_opened)}"


def _refuse_network_filesystem(path: Path) -> None:
    kind = filesystem_of(path)
    if kind in NETWORK_FILESYSTEMS:
        raise RequestError(
            f"the lake's catalog cannot live on a network filesystem ({kind}): its locks are not reliable there",
            where=str(path),
            state="Nothing was created.",
            next="set `lake: {catalog: ...}` in workspace.yaml to a local folder",
        )


def filesystem_of(path: Path) -> str:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    inside = [(point, kind) for point, kind in mounts if path.is_relative_to(point)]
    return max(inside, key=lambda mount: len(mount[0]))[1] if inside else ""


def make_private(paths: Sequence[Path]) -> None:
    """Published files are read-only: a plain `COPY ... TO` must not overwrite them."""
    for path in paths:
        os.chmod(path, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
