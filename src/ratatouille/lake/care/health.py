"""The health of a lake, found out without touching it.

Opening a SQLite file in write-ahead mode makes files beside it, even for reading. So what is looked into is a private
copy, and the rest is asked of the file system and the kernel.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ratatouille.errors import UNCHANGED, RatError
from ratatouille.lake.catalogs import catalog_of
from ratatouille.lake.catalogs.server import Server
from ratatouille.lake.connect import NETWORK_FILESYSTEMS, Storage, extension_file, filesystem_of
from ratatouille.lake.places.bucket import Bucket
from ratatouille.lake.quoting import ident
from ratatouille.lake.unsettled import FOLDER as UNSETTLED

FORMAT = (1, 0)  # of the catalog, as this version's DuckLake writes it
_MAGIC = b"SQLite format 3\x00"
_FREE_BYTES, _FREE_SHARE = 200 << 20, 0.05  # less is an error; less is worth a warning
_WAL_BYTES = 64 << 20
_SKEW_S = 300.0
_BUILT_AT = datetime(2026, 1, 1, tzinfo=UTC).timestamp()  # no clock is right that is before this code


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. status: ok | warn | error; the four lines are those of an error."""

    name: str
    status: str
    what: str
    where: str = ""
    state: str = ""
    next: str = ""


def findings(storage: Storage, journal: Path | Server) -> Iterator[Finding]:
    """Everything that can be known of the lake at `storage` from outside, in the order in which to mend it."""
    file = storage.catalog
    yield from _extensions(catalog_of(file).extension)
    yield from _folder(storage)
    yield from _disk(storage)
    if isinstance(storage.data, Bucket):
        yield _bucket(storage.data)
    if isinstance(file, Server):
        yield from _server(file)
    else:
        yield from _locks(file)
        yield from _catalog(file, storage)
        yield from _wal(file)
    yield from _unsettled(storage)
    yield from _journal(journal) if isinstance(journal, Path) else _served_journal(journal)


def _bucket(data: Bucket) -> Finding:
    """Whether objects can be listed. Nothing is written, so whether they can be written is not known."""
    try:
        left = {one.path.split("/")[1] for one in data.listed(UNSETTLED, "looking into the bucket")}
    except RatError as error:
        return _bad("bucket", "error", error.what, data, error.next)
    if left:
        state = "Nothing is lost: the next run settles it."
        return _bad("commits", "warn", f"{len(left)} commits were stopped half-way", data, "rat run", state)
    return Finding("bucket", "ok", "it answers", str(data))


def _server(server: Server) -> Iterator[Finding]:
    cure = "start it, or mend lake.catalog in workspace.yaml"
    metadata = f'"{server.schema}".ducklake_metadata'
    try:
        if not server.exists():
            yield Finding("catalog", "ok", "nothing was built yet", str(server))
            return
        made = str(server.ask("looking at the catalog", f"select value from {metadata} where key = 'version'")[0])
        newest = f"select count(*), max(snapshot_time)::text from {ident(server.schema)}.ducklake_snapshot"
        count, last = server.ask("looking at the catalog", newest)
        idle = (
            "select count(*) from pg_stat_activity where state = 'idle in transaction'"
            " and application_name like 'rat %' and xact_start < now() - interval '1 day'"
        )
        old = server.ask("looking at the catalog", idle)[0]
    except RatError as error:
        yield _bad("catalog", "error", error.what, server, error.next or cure)
        return
    if _number(made) > FORMAT:
        what = f"the catalog has format {made}, which is newer than this version of rat ({FORMAT[0]}.{FORMAT[1]})"
        yield _bad("catalog", "error", what, server, "pip install --upgrade ratatouille-lakehouse")
        return
    if old:
        what = f"{old} processes have been reading the catalog for more than a day: the server cannot tidy up"
        yield _bad("catalog", "warn", what, server, "rat runs shows what is going on; end what hangs")
    yield from _clock(last, server)
    yield Finding("catalog", "ok", f"format {made}, {count:,} versions, on PostgreSQL", str(server))


def _bad(name: str, status: str, what: str, where: object, next: str, state: str = UNCHANGED) -> Finding:
    return Finding(name, status, what, str(where), state, next)


def _extensions(reader: str) -> Iterator[Finding]:
    try:
        wanted = version("duckdb")
    except PackageNotFoundError:
        yield _bad("extensions", "error", "DuckDB is not installed", "Python package duckdb", "pip install duckdb")
        return
    wrong = False
    names = ("ducklake", reader, "excel")
    for name in names:
        package = f"duckdb-extension-{name.replace('_', '-')}"
        cure = f"pip install '{package}=={wanted}'"
        try:
            have = version(package)
        except PackageNotFoundError:
            have = ""
        if have != wanted:
            said = f"is version {have}" if have else "is not installed"
            yield _bad("extensions", "error", f"{package} {said}, and DuckDB is {wanted}", package, cure)
            wrong = True
            continue
        try:
            there = extension_file(name).is_file()
        except RatError:
            there = False
        if not there:
            yield _bad("extensions", "error", f"{package} has no binary for DuckDB {wanted}", package, cure)
            wrong = True
    if not wrong:
        yield Finding("extensions", "ok", f"DuckDB {wanted} with {', '.join(names)}")


def _folder(storage: Storage) -> Iterator[Finding]:
    folder = storage.home
    if not folder.exists():
        return
    kind = filesystem_of(folder)
    if kind in NETWORK_FILESYSTEMS:
        what = f"the catalog is on a network filesystem ({kind}), where locks are not reliable"
        cure = "set `lake: {catalog: ...}` in workspace.yaml to a local folder"
        yield _bad("folder", "error", what, folder, cure)
    here = [path for path in (folder, Path(str(storage.catalog)), storage.staging) if path.exists()]
    closed = [path for path in here if not os.access(path, os.W_OK | os.R_OK)]
    foreign = [path for path in here if path.stat().st_uid != os.getuid()]
    others = stat.S_IMODE(folder.stat().st_mode) & 0o077
    if closed:
        cure = f"chown -R {os.getuid()} '{folder}', or run as the user that owns it"
        yield _bad("permissions", "error", "this user may not read and write the lake", closed[0], cure)
    elif foreign and os.getuid():
        cure = f"chown -R {os.getuid()} '{folder}'"
        yield _bad("permissions", "warn", "another user owns a part of the lake", foreign[0], cure)
    if others:
        what = f"other users may look into the lake (mode {stat.S_IMODE(folder.stat().st_mode):04o})"
        yield _bad("permissions", "warn", what, folder, f"chmod 700 '{folder}'")
    if not (closed or others or (foreign and os.getuid())):
        yield Finding("permissions", "ok", "yours alone")


def _disk(storage: Storage) -> Iterator[Finding]:
    for folder in dict.fromkeys((_there(storage.home), _there(storage.staging), _there(storage.spill))):
        found = os.statvfs(folder)
        free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        cure = "rat clean --dry-run\nfree some space; a run needs about twice what it writes"
        shown = f"{free / 1e9:,.1f} of {size / 1e9:,.1f} GB free"
        if found.f_flag & os.ST_RDONLY:
            yield _bad("disk", "error", "the disk is read-only", folder, "mount it for writing")
        elif free < _FREE_BYTES:
            yield _bad("disk", "error", f"the disk is nearly full: {free / 1e6:,.0f} MB free", folder, cure)
        elif found.f_files and found.f_favail < 1000:
            what = f"the disk has room for {found.f_favail} more files only"
            yield _bad("disk", "error", what, folder, cure)
        elif free < _FREE_SHARE * size:
            yield _bad("disk", "warn", f"the disk is filling up: {shown}", folder, cure)
        else:
            yield Finding("disk", "ok", shown, str(folder))
        return  # they are on one disk but for rare settings, and the first one is the one that must not fill up


def _there(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())


def _locks(file: Path) -> Iterator[Finding]:
    lock = Path(f"{file}.lock")
    cure = "wait for it to end; rat runs shows what is going on"
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        descriptor = -1
    if descriptor >= 0:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            yield _bad("lock", "warn", "another process is writing to the lake just now", holder, cure)
        finally:
            os.close(descriptor)
    holder = _sqlite_writer(file)
    if holder:
        what = "another program keeps the catalog locked"
        yield _bad(
            "lock", "error", what, holder, f"close that program (kill {holder.split()[1]} ends it), then: rat doctor"
        )


def _sqlite_writer(catalog: Path) -> str:
    """Who holds SQLite's own exclusive lock on the file, from the kernel's list; '' if nobody."""
    try:
        inode = catalog.stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        words = line.split()
        if "POSIX" in words and "WRITE" in words and words[5].endswith(f":{inode}") and int(words[4]) != os.getpid():
            return f"process {words[4]} has {catalog}"
    return ""


@contextmanager
def _copied(file: Path) -> Iterator[sqlite3.Connection]:
    """A private copy of a SQLite file and its log, open."""
    with tempfile.TemporaryDirectory(prefix="rat-doctor-") as folder:
        for suffix in ("", "-wal"):
            if os.path.exists(f"{file}{suffix}"):
                shutil.copyfile(f"{file}{suffix}", f"{folder}/copy{suffix}")
        with closing(sqlite3.connect(f"{folder}/copy")) as copy:
            yield copy


def _catalog(file: Path, storage: Storage) -> Iterator[Finding]:
    restore = f"restore it from a backup, or move it away (mv '{file}' '{file}.bad') and run: rat run"
    if not file.exists():
        if storage.staging.is_dir() and any(storage.staging.rglob("*.parquet")):
            yield _bad("catalog", "error", "the catalog is gone, and its data files are there", file, restore)
        else:
            yield Finding("catalog", "ok", "nothing was built yet", str(file))
        return
    try:
        start, size = _start_of(file), file.stat().st_size
    except OSError as error:
        yield _bad("catalog", "error", f"the catalog cannot be read: {error.strerror}", file, restore)
        return
    if not size:
        what = "the catalog is empty: whoever was creating it was stopped"
        yield _bad("catalog", "warn", what, file, "rat run creates it", "Nothing was published.")
        return
    if start != _MAGIC:
        kind = "a DuckDB file" if start[8:12] == b"DUCK" else "no SQLite file"
        yield _bad(
            "catalog", "error", f"the catalog is {kind}: it is damaged, or belongs to something else", file, restore
        )
        return
    try:
        with _copied(file) as copy:
            yield from _inside(copy, file, storage, restore)
    except sqlite3.DatabaseError as error:
        yield _bad("catalog", "error", f"the catalog is damaged: {error}", file, restore)
    except OSError as error:
        yield _bad(
            "catalog", "error", f"the catalog cannot be copied to be looked at: {error.strerror}", file, "rat doctor"
        )


def _start_of(file: Path) -> bytes:
    with open(file, "rb") as handle:
        return handle.read(16)


def _inside(copy: sqlite3.Connection, file: Path, storage: Storage, restore: str) -> Iterator[Finding]:
    said = copy.execute("pragma integrity_check(3)").fetchall()
    if said != [("ok",)]:
        yield _bad("catalog", "error", f"the catalog is damaged: {said[0][0].splitlines()[-1]}", file, restore)
        return
    tables = {name for (name,) in copy.execute("select name from sqlite_master")}
    if "ducklake_metadata" not in tables:
        some = ", ".join(sorted(tables)[:3]) or "nothing"
        what = f"the catalog is a SQLite file of something else (it holds {some})"
        cure = "set `lake: {catalog: ...}` in workspace.yaml to a file of its own, then: rat run"
        yield _bad("catalog", "error", what, file, cure)
        return
    facts = dict(copy.execute("select key, value from ducklake_metadata where scope is null").fetchall())
    made = facts.get("version", "")
    if _number(made) > FORMAT:
        what = f"the catalog has format {made}, which is newer than this version of rat ({FORMAT[0]}.{FORMAT[1]})"
        yield _bad("catalog", "error", what, file, "pip install --upgrade ratatouille-lakehouse")
        return
    if not copy.execute("select 1 from ducklake_table where table_name = 'ledger' and end_snapshot is null").fetchone():
        what = "the lake has no ledger: another program made it, or creating it was stopped"
        yield _bad("catalog", "warn", what, file, "rat run writes one beside the tables that are there")
    count, newest = copy.execute("select count(*), max(snapshot_time) from ducklake_snapshot").fetchone()
    yield from _clock(newest, file)
    named = Path(facts.get("data_path", f"{storage.data}/"))
    if named != storage.data:
        what = f"the lake was moved: its catalog names {named}"
        cure = "the next command follows it, when the data files are where it is now"
        yield _bad("catalog", "warn", what, storage.data, cure)
    yield Finding("catalog", "ok", f"format {made}, {count:,} versions, whole", str(file))


def _number(said: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in said.split("-")[0].split("."))
    except ValueError:
        return (0,)


def _clock(newest: str | None, file: object) -> Iterator[Finding]:
    now = time.time()
    try:
        last = datetime.fromisoformat(newest).timestamp() if newest else 0.0
    except ValueError:
        last = 0.0
    cure = "set the clock (timedatectl set-ntp true), then run the same command again"
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if last > now + _SKEW_S:
        what = f"the clock is wrong: it says {shown}, and the newest version is of {newest}"
        state = "Retention, freshness and schedules would be wrong; nothing was changed."
        yield _bad("clock", "error", what, file, cure, state)
    elif now < _BUILT_AT:
        yield _bad("clock", "error", f"the clock is wrong: it says {shown}", "this machine", cure)
    else:
        yield Finding("clock", "ok", shown)


def _wal(file: Path) -> Iterator[Finding]:
    log = Path(f"{file}-wal")
    try:
        size = log.stat().st_size
    except OSError:
        return
    if not size:
        return
    state = "Nothing is lost: what was committed is in it, and the next command takes it in."
    what = f"the catalog's log was left over ({size:,} bytes): a process was stopped, or is at work now"
    if size > _WAL_BYTES:
        what = f"the catalog's log has grown to {size / 1e6:,.0f} MB: somebody reads without ever ending"
    yield _bad("log", "warn", what, log, 'rat query "select 1"', state)


def _unsettled(storage: Storage) -> Iterator[Finding]:
    left = list((storage.staging / UNSETTLED).glob("*"))
    if left:
        state = "Nothing is lost: the next command settles it."
        yield _bad(
            "commits", "warn", f"{len(left)} commits were stopped half-way", left[0], 'rat query "select 1"', state
        )


def _journal(file: Path) -> Iterator[Finding]:
    cure = f"move it away (mv '{file}' '{file}.bad'); nothing that was published is only there"
    if not file.exists():
        return
    try:
        with _copied(file) as copy:
            said = copy.execute("pragma integrity_check(3)").fetchall()
            if said != [("ok",)]:
                raise sqlite3.DatabaseError(said[0][0].splitlines()[-1])
            counts = dict(copy.execute("select status, count(*) from runs group by status").fetchall())
    except sqlite3.DatabaseError as error:
        yield _bad("journal", "error", f"the journal is damaged: {error}", file, cure, "The lake is not affected.")
        return
    except OSError as error:
        yield _bad("journal", "error", f"the journal cannot be read: {error.strerror}", file, cure)
        return
    yield Finding("journal", "ok", f"{sum(counts.values()):,} runs, {counts.get('running', 0)} going on", str(file))


def _served_journal(server: Server) -> Iterator[Finding]:
    where, doing = f"{server}, schema {server.journal_schema}", "looking at the journal"
    runs = f"{ident(server.journal_schema)}.runs"
    try:
        if server.ask(doing, "select to_regclass(%s)", (runs,))[0] is None:
            return
        count, going_on = server.ask(doing, f"select count(*), count(*) filter (where status = 'running') from {runs}")
    except RatError as error:
        yield _bad("journal", "error", error.what, where, error.next, "The lake is not affected.")
        return
    yield Finding("journal", "ok", f"{count:,} runs, {going_on} going on, on PostgreSQL", where)
