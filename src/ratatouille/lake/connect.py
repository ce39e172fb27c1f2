"""Opening the lake: the only place that connects, and it always closes.

lake      the catalog (SQLite in WAL mode, or a schema on PostgreSQL) and the parquet files that it names
pinned    a session inside a read transaction: every query in it sees one version

Readers attach read-only. A writer holds the catalog's lock from before BEGIN to after COMMIT, because
two SQLite writers lose commits to "database is locked" and DuckLake does not retry that.
"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratatouille.errors import LakeError, RatError, RequestError
from ratatouille.lake import ledger
from ratatouille.lake.catalogs import catalog_of
from ratatouille.lake.catalogs.lock import exclusive, looking_back
from ratatouille.lake.catalogs.server import SCHEMES, Server
from ratatouille.lake.faults import explain, first_line
from ratatouille.lake.limits import duckdb_bytes
from ratatouille.lake.places import Files, bucket, files_of
from ratatouille.lake.places.bucket import Bucket
from ratatouille.lake.places.durable import fsync_path
from ratatouille.lake.quoting import BASE, LAKE, text, texts
from ratatouille.lake.session import Session

if TYPE_CHECKING:
    import duckdb

NETWORK_FILESYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs")
_opened = itertools.count()


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a lake lives and what it may use. Paths are absolute; 0 takes the value from the machine."""

    catalog: Path | Server
    data: Path | Bucket
    spill: Path
    memory_bytes: int = 0
    threads: int = 0
    base_catalog: Path | Server | None = None  # of an environment: the default lake
    base_data: Path | Bucket | None = None
    local: Path | None = None  # this workspace's own folder; None: where the catalog is

    @property
    def home(self) -> Path:
        """The folder of this machine for what is no part of the lake: copies, scratch, a journal in a file."""
        return self.local or Path(str(self.catalog)).parent

    @property
    def artifacts(self) -> Path | Bucket:
        """Where artifacts lie: beside a catalog in a file, else with the data, which everybody has."""
        return self.home / "artifacts" if isinstance(self.catalog, Path) else self.data / ".artifacts"

    @property
    def files(self) -> Files:
        return files_of(self.data)

    @property
    def staging(self) -> Path:
        """The folder of this machine into which candidates are written: the data's own, or one beside a bucket."""
        return self.data if isinstance(self.data, Path) else self.home / "stage"


def storage_as_text(storage: Storage) -> dict[str, Any]:
    """What another process needs to open the same lake, JSON-safe."""
    said = {name: str(getattr(storage, name)) for name in ("catalog", "data", "spill", "home")}
    return said | {name: getattr(storage, name) for name in ("memory_bytes", "threads")}


def storage_secrets(storage: Storage) -> dict[str, str]:
    """The variables without which another process cannot open the lake, for its memory alone."""
    if isinstance(storage.catalog, Path):
        return {}
    mine = ("AWS_", "PG", bucket.DEADLINE)
    return {n: v for n, v in os.environ.items() if n.startswith(mine) or n == storage.catalog.password_env}


def storage_from_text(said: Mapping[str, Any]) -> Storage:
    return Storage(
        place(said["catalog"]), data_place(said["data"]), Path(said["spill"]), said["memory_bytes"], said["threads"],
        local=Path(said["home"]),
    )  # fmt: skip


def place(said: str) -> Path | Server:
    """Where a catalog is: an absolute path, or an address."""
    return Server.of(said) if said.startswith(SCHEMES) else Path(said)


def data_place(said: str) -> Path | Bucket:
    """Where the data is: an absolute path, or an address."""
    return Bucket.of(said) if said.startswith("s3://") else Path(said)


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
        session = Session(cursor, doing, self.storage.home)
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

    def limit_memory(self, share: float) -> None:
        """Let DuckDB use `share` (0 to 1) of its part; what it holds beyond that goes to the spill folder now."""
        part = int(duckdb_bytes(self.storage.memory_bytes) * share)
        with self._guard:
            cursor = self._connection.cursor()
        with suppress(Exception):  # a query that runs needs more than that, and keeps it
            cursor.execute(f"set global memory_limit = {text(f'{part}B')}")
        cursor.close()

    @property
    def engine(self) -> str:
        """What computes here, by the part of its version that changes how fast it is: duckdb 1.5."""
        import duckdb

        return f"duckdb {'.'.join(duckdb.__version__.split('.')[:2])}"

    def spilled_bytes(self) -> int:
        """What DuckDB keeps in its spill folder now."""
        try:
            with os.scandir(self._spill) as files:
                return sum(file.stat().st_size for file in files)
        except OSError:  # there is none before something is spilled, and files go while they are counted
            return 0

    def disk_left_bytes(self) -> int:
        """What a write may still use, where candidates are staged and where is spilled; 0 if nobody can tell."""
        left = []
        for folder in (self.storage.staging, self.storage.spill):
            with suppress(OSError):
                left.append(shutil.disk_usage(folder).free)
        return min(left, default=0)

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
            catalog_of(self.storage.catalog).detached()
            if self.storage.base_catalog is not None:
                catalog_of(self.storage.base_catalog).detached()


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
        with catalog_of(storage.catalog).attaching() as alone:
            lake = _attached(storage, alone=alone, write=write, create=create, at=at)
            stack.callback(lake.close)
        if create or (write and at is None):
            _create_ledger(lake, create=create)
        elif not write:
            with lake.session("opening the lake") as session:
                if ledger.is_missing(session):
                    raise _nothing_here(storage)
        yield lake


def _nothing_here(storage: Storage) -> RequestError:
    return RequestError(
        "there is no lake here yet", where=str(storage.catalog), state="Nothing has been built.", next="rat run"
    )


def _attached(storage: Storage, *, alone: bool, write: bool, create: bool, at: int | datetime | None) -> Lake:
    """The lake, attached. `alone`: this process has not attached it already, so its file may be looked at."""
    try:
        exists = not alone or catalog_of(storage.catalog).is_created()
    except OSError as error:
        raise explain(error, "opening the lake", folder=storage.home) from error
    if not exists and not create:
        raise _nothing_here(storage)
    try:
        spill = _spill_folder(storage)
        if create:
            _make_folders(storage)
        with suppress(OSError):  # a disk that cannot be written to can still be read from
            storage.spill.mkdir(parents=True, exist_ok=True, mode=0o700)  # DuckDB makes only the last folder
        if alone:
            catalog_of(storage.catalog).follow(storage.data)
            if write or isinstance(storage.data, Path):  # a bucket is asked only by those who write
                storage.files.heal(storage.catalog)
        connection = _connect(storage, spill)
    except Exception as error:
        raise explain(error, "opening the lake", folder=storage.home) from error
    lake = Lake(storage, connection, spill, writable=write or create)
    try:
        if create and not exists:
            with exclusive(storage.catalog, "creating the lake"):
                first = not catalog_of(storage.catalog).is_created()
                if first:
                    _refuse_foreign_data(storage)
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


def _refuse_foreign_data(storage: Storage) -> None:
    """A second catalog over the same objects would take those of the first for orphans, and delete them."""
    if isinstance(storage.data, Bucket) and not storage.data.is_empty():
        raise RequestError(
            "there is data in the bucket's folder already, and it belongs to another lake",
            where=str(storage.data),
            next="set lake.data to a folder of its own, or lake.catalog to the catalog of that data",
        )


def _attach_base(lake: Lake, connection: duckdb.DuckDBPyConnection, base: Path | Server, data: Path | Bucket) -> None:
    """The default lake beside an environment's: read-only, and at the version that is current now."""
    catalog = catalog_of(base)
    with catalog.attaching() as alone:
        try:
            if alone and not catalog.is_created():
                return
            if alone:
                catalog.follow(data)
            _load(connection, catalog.extension)
            options = [f"data_path {text(str(data))}", "create_if_not_exists false", "read_only"]
            catalog.attach(connection.execute, BASE, options, write=False)
            found = connection.execute(f"select id from {BASE}.current_snapshot()").fetchone()
            connection.execute(f"detach {BASE}")
            options.append(f"snapshot_version {found[0] if found else 0}")
            catalog.attach(connection.execute, BASE, options, write=False)
        except Exception as error:
            lake.close()
            raise _cannot_open(error, replace(lake.storage, catalog=base)) from error


def attach_pinned(connection: duckdb.DuckDBPyConnection, storage: Storage, version: int) -> None:
    """Attach the lake as it was at `version`, read-only, to a connection that somebody else has opened."""
    _load_extensions(connection, storage)
    _attach(connection, storage, write=False, create=False, at=version)


def _make_folders(storage: Storage) -> None:
    if isinstance(storage.catalog, Path):
        _refuse_network_filesystem(storage.catalog)
    storage.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    storage.staging.mkdir(parents=True, exist_ok=True, mode=0o700)


def settings(storage: Storage, spill: Path) -> dict[str, str | bool | int | float | list[str]]:
    """What every DuckDB that reads the lake is started with."""
    return {
        "memory_limit": f"{duckdb_bytes(storage.memory_bytes)}B",
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
        _load_extensions(connection, storage)
        connection.execute("set allow_unsigned_extensions = false")
    except BaseException:
        connection.close()
        raise
    return connection


def _load_extensions(connection: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    connection.execute("set global TimeZone = 'UTC'")
    _load(connection, "ducklake", catalog_of(storage.catalog).extension)
    for data in (storage.data, storage.base_data):
        if isinstance(data, Bucket):
            _open_bucket(connection, data)


def _open_bucket(connection: duckdb.DuckDBPyConnection, data: Bucket) -> None:
    _load(connection, "httpfs", *(["aws"] if bucket.needs_chain() else []))
    connection.execute(f"set global http_timeout = {max(1, round(bucket.deadline_s()))}")
    try:
        connection.execute(data.secret_sql())
    except Exception as error:  # from nothing: the statement holds the key
        raise LakeError(
            f"the keys of the bucket cannot be had: {first_line(error)}",
            where=str(data),
            next="export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role",
        ) from None


def _load(connection: duckdb.DuckDBPyConnection, *names: str) -> None:
    for name in names:
        connection.execute(f"load {text(str(extension_file(name)))}")


def _create_ledger(lake: Lake, *, create: bool) -> None:
    """Create the ledger, or give that of an earlier release its new columns. Without `create` only the second."""
    with lake.session("opening the lake") as session:
        if not (ledger.is_earlier(session) or (create and not ledger.exists(session))):
            return
    with exclusive(lake.storage.catalog, "creating the lake"), lake.session("creating the lake") as session:
        ledger.create(session)
    # The names of the new folders, up to the one that was there before.
    root = lake.storage.staging
    for folder in (root, root.parent, root.parent.parent):
        fsync_path(folder)


def _attach(
    connection: duckdb.DuckDBPyConnection,
    storage: Storage,
    *,
    write: bool,
    create: bool,
    at: int | datetime | None,
) -> None:
    options = [f"data_path {text(str(storage.data))}", f"create_if_not_exists {str(create).lower()}"]
    # A version is files with checksums, so tables are never inlined into the catalog; the ledger is.
    options += ["data_inlining_row_limit 0"] if write else ["read_only"]
    if isinstance(at, datetime):
        options += [f"snapshot_time {text(at.isoformat(sep=' '))}"]
    elif at is not None:
        options += [f"snapshot_version {int(at)}"]
    try:
        catalog_of(storage.catalog).attach(connection.execute, LAKE, options, write=write)
    except Exception as error:
        if at is not None and "snapshot" in str(error).lower():
            raise RequestError(
                f"the lake has no version {at}", where=str(storage.catalog), next="rat history"
            ) from error
        raise _cannot_open(error, storage) from error


def _cannot_open(error: Exception, storage: Storage) -> RatError:
    known = explain(error, "opening the lake", folder=storage.home)
    if isinstance(storage.catalog, Server):
        known.where = str(storage.catalog)
    elif not isinstance(known, LakeError):
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


def confine(session: Session, folders: Sequence[Path | Bucket]) -> None:
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
