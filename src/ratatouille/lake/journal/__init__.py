"""The journal: what is going on. Runs, attempts, leases, heartbeats, failures.

lease     the right to publish one asset, with a token that grows each time it changes hands
dead      a run whose process is gone (pid and boot id), or whose heartbeat stopped on another machine

It lies beside the lake (`.rat/journal.sqlite`, or a schema on the catalog's server) and may be deleted: nothing that
was published is only here.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ratatouille.errors import LakeError
from ratatouille.lake.catalogs.server import Server
from ratatouille.lake.faults import explain
from ratatouille.lake.journal import points, retention
from ratatouille.lake.journal.books import Books, Do, PostgresBooks, SqliteBooks, T

HEARTBEAT_S = 5.0
DEAD_AFTER_S = 30.0  # without a heartbeat, on a machine whose processes we cannot see
RESUME_WITHIN_S = 86_400.0

_TABLES = (
    """create table if not exists runs (
    run_id text primary key, status text, request text, pid bigint, started_ticks text, boot_id text, host text,
    started_at double precision, heartbeat_at double precision, ended_at double precision, error text, resumes text)""",
    """create table if not exists steps (
    run_id text, asset text, attempt bigint, status text, record text, started_at double precision,
    ended_at double precision, primary key (run_id, asset, attempt))""",
    """create table if not exists leases (
    asset text primary key, token bigint, run_id text, pid bigint, started_ticks text, boot_id text, host text,
    heartbeat_at double precision, held bigint)""",
    """create table if not exists set_aside (
    asset text, file text, bytes bigint, modified_ns bigint, reason text, run_id text, at double precision,
    primary key (asset, file))""",
    "create table if not exists verified (path text primary key, at double precision)",
    # Of candidates.py: versions that wait for verdicts.
    """create table if not exists candidates (
    asset text, run_id text, token bigint, entry text, staged text, gates text, state text, version bigint,
    at double precision, primary key (asset, run_id, token))""",
    """create table if not exists verdicts (
    asset text, run_id text, token bigint, gate text, passed bigint, record text, at double precision,
    primary key (asset, run_id, token, gate))""",
    *points.TABLES,
    *retention.TABLES,
    "create index if not exists steps_by_asset on steps (asset, started_at)",
    "create index if not exists runs_by_start on runs (started_at)",
    *points.INDEXES,
)
_LAST_ATTEMPT_FAILED = """
select 1 from steps s where run_id = ? and status in ('failed', 'died', 'blocked')
and attempt = (select max(attempt) from steps t where t.run_id = s.run_id and t.asset = s.asset)"""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, so that another one can tell whether it still lives."""

    pid: int
    started_ticks: str  # tells a reused pid apart
    boot_id: str
    host: str

    def is_alive(self, heartbeat_at: float, now: float) -> bool:
        me = this_process()
        if (self.host, self.boot_id) == (me.host, me.boot_id):
            return _started_ticks(self.pid) == self.started_ticks
        if self.host == me.host:
            return False  # the machine was restarted since
        return now - heartbeat_at < DEAD_AFTER_S


def this_process() -> Owner:
    pid = os.getpid()
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot_id = ""
    return Owner(pid, _started_ticks(pid), boot_id, socket.gethostname())


def _started_ticks(pid: int) -> str:
    """The kernel's start time of a process, field 22 of /proc/<pid>/stat; '' if it is gone.

    A zombie is gone too: it only waits for its parent to ask how it ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


class Journal:
    """One open journal; safe from several threads and processes. Use `open_journal`."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._me = this_process()

    def close(self) -> None:
        self._books.close()

    def do(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """One statement, with `?` for values. It may run twice: see `Books`."""
        return self._books.do(sql, values)

    def alone(self, work: Callable[[Do], T]) -> T:
        """Run `work` in a transaction beside which no other such transaction runs. It may run twice: see `Books`."""
        return self._books.alone(work)

    def now(self) -> float:
        """Seconds since 1970, by the journal's clock."""
        return self._books.now()

    # Runs

    def start_run(self, run_id: str, request: Mapping[str, Any], *, resumes: Sequence[str] = ()) -> None:
        """`resumes`: the killed runs that this one goes on from, newest first.

        A run may have several processes, as those of an orchestrator have: each starts it, and its row names one
        of them that lives.
        """
        now, me = self.now(), self._me
        asked = json.dumps(request, sort_keys=True)
        self.do(
            "insert into runs (run_id, status, request, pid, started_ticks, boot_id, host, started_at, heartbeat_at,"
            " resumes) values (?, 'running', ?, ?, ?, ?, ?, ?, ?, ?) on conflict (run_id) do update set"
            " status = 'running', pid = excluded.pid, started_ticks = excluded.started_ticks, ended_at = null,"
            " boot_id = excluded.boot_id, host = excluded.host, heartbeat_at = excluded.heartbeat_at",
            (run_id, asked, me.pid, me.started_ticks, me.boot_id, me.host, now, now, json.dumps(list(resumes))),
        )

    def end_run(self, run_id: str, status: str, error: Mapping[str, str] | None = None) -> None:
        """This process is done with the run; the run ends with the last of its processes."""
        now = self.now()

        def end(do: Do) -> None:
            if self._handed_over(do, run_id, now):
                return
            # In another of its processes:
            failed = status == "done" and do(_LAST_ATTEMPT_FAILED, (run_id,))
            how = "failed" if failed else status
            do(
                "update runs set status = ?, ended_at = ?, error = coalesce(?, error) where run_id = ?",
                (how, now, json.dumps(error) if error else None, run_id),
            )
            do("update steps set status = ? where run_id = ? and status = 'running'", (how, run_id))

        self._books.alone(end)

    def beat(self, run_id: str) -> None:
        now, me = self.now(), self._me
        mine = "run_id = ? and pid = ? and host = ?"
        self.do(f"update runs set heartbeat_at = ? where {mine}", (now, run_id, me.pid, me.host))
        self.do(f"update leases set heartbeat_at = ? where {mine} and held = 1", (now, run_id, me.pid, me.host))

    def reap(self) -> list[str]:
        """Mark runs whose process is gone as died; returns them. The leases of dead processes are free again."""
        now, dead = self.now(), []
        found = self.do(
            "select run_id, pid, started_ticks, boot_id, host, heartbeat_at from runs where status = 'running'"
        )
        for run_id, pid, ticks, boot_id, host, heartbeat_at in found:
            if Owner(pid, ticks, boot_id, host).is_alive(heartbeat_at, now):
                continue
            if self._books.alone(partial(self._bury, run_id, heartbeat_at, now)):
                dead.append(run_id)
        return dead

    def _bury(self, run_id: str, heartbeat_at: float, now: float, do: Do) -> bool:
        """Whether the run is dead now."""
        if self._handed_over(do, run_id, now):
            return False
        do("update runs set status = 'died', ended_at = ? where run_id = ?", (heartbeat_at, run_id))
        do("update steps set status = 'died' where run_id = ? and status = 'running'", (run_id,))
        do("update leases set held = 0 where run_id = ?", (run_id,))
        return True

    def _handed_over(self, do: Do, run_id: str, now: float) -> bool:
        """Whether another process works on the run; its row names that one then. Leases of dead ones are freed."""
        others = do(
            "select asset, pid, started_ticks, boot_id, host, heartbeat_at from leases where run_id = ? and held = 1",
            (run_id,),
        )
        living = None
        for asset, *owner, heartbeat_at in others:
            if Owner(*owner) == self._me:
                continue
            if Owner(*owner).is_alive(heartbeat_at, now):
                living = (*owner, heartbeat_at)
                continue
            do("update leases set held = 0 where run_id = ? and asset = ?", (run_id, asset))
            do(
                "update steps set status = 'died' where run_id = ? and asset = ? and status = 'running'",
                (run_id, asset),
            )
        if living is not None:
            do(
                "update runs set pid = ?, started_ticks = ?, boot_id = ?, host = ?, heartbeat_at = ? where run_id = ?",
                (*living, run_id),
            )
        return living is not None

    def runs_to_resume(self, request: Mapping[str, Any]) -> list[str]:
        """The newest run if it died while answering the same request not long ago, and those it resumed itself."""
        found = self.do(
            "select run_id, status, request, heartbeat_at, resumes from runs order by started_at desc limit 1"
        )
        if not found:
            return []
        run_id, status, asked, heartbeat_at, resumes = found[0]
        same = asked == json.dumps(request, sort_keys=True)
        if status != "died" or not same or self.now() - heartbeat_at > RESUME_WITHIN_S:
            return []
        return [run_id, *json.loads(resumes or "[]")]

    def runs(
        self, limit: int = 50, *, before: float | None = None, status: str = "", prefix: str = ""
    ) -> list[dict[str, Any]]:
        """Newest first, with the number of steps by status. `before` a time in seconds since 1970, `prefix` of the id."""
        names = ("run_id", "status", "request", "pid", "host", "started_at", "heartbeat_at", "ended_at", "error")
        asked: list[tuple[str, Any]] = [("started_at < ?", before)] if before is not None else []
        asked += [("status = ?", status)] if status else []
        asked += [("substr(run_id, 1, ?) = ?", (len(prefix), prefix))] if prefix else []
        where = " and ".join(condition for condition, _ in asked) or "true"
        values = [value for _, said in asked for value in (said if isinstance(said, tuple) else (said,))]
        newest = f"from runs where {where} order by started_at desc limit ?"
        rows = [
            dict(zip(names, row, strict=True))
            for row in self.do(f"select {', '.join(names)} {newest}", [*values, limit])
        ]
        counts: dict[str, dict[str, int]] = {}
        of_runs = f"select run_id, status, count(*) from steps where run_id in (select run_id {newest}) group by run_id, status"
        for run_id, how, number in self.do(of_runs, [*values, limit]) if rows else ():
            counts.setdefault(run_id, {})[how] = int(number)
        for row in rows:
            row["steps"] = counts.get(row["run_id"], {})
            row["request"] = json.loads(row["request"])
            row["error"] = json.loads(row["error"]) if row["error"] else None
        return rows

    # Steps

    def record_step(
        self, run_id: str, asset: str, attempt: int, status: str, record: Mapping[str, Any] | None = None
    ) -> None:
        now = self.now()
        ended = None if status == "running" else now
        self.do(
            "insert into steps (run_id, asset, attempt, status, record, started_at, ended_at)"
            " values (?, ?, ?, ?, ?, ?, ?) on conflict (run_id, asset, attempt) do update set"
            " status = excluded.status, record = excluded.record, ended_at = excluded.ended_at",
            (run_id, asset, attempt, status, json.dumps(record, default=str) if record else None, now, ended),
        )
        if record and status in points.KEPT:
            self.do(points.INSERT, points.row_of(asset, run_id, attempt, now, status, record))

    def steps(self, run_id: str) -> list[dict[str, Any]]:
        return self._steps("run_id = ? order by started_at", (run_id,))

    def last_steps(self, asset: str, limit: int = 20) -> list[dict[str, Any]]:
        """The newest attempts at an asset, newest first."""
        return self._steps("asset = ? order by started_at desc limit ?", (asset, limit))

    def _steps(self, where: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        names = ("run_id", "asset", "attempt", "status", "record", "started_at", "ended_at")
        found = self.do(f"select {', '.join(names)} from steps where {where}", values)
        rows = [dict(zip(names, row, strict=True)) for row in found]
        for row in rows:
            row["record"] = json.loads(row["record"]) if row["record"] else {}
        return rows

    def last_points(self, asset: str, limit: int, before: float | None = None) -> list[dict[str, Any]]:
        """Finished steps of an asset in short, newest first; `before` a time in seconds since 1970."""
        where, values = ("asset = ? and at < ?", [asset, before]) if before else ("asset = ?", [asset])
        return self._points(f"{where} order by at desc limit ?", [*values, limit])

    def points_since(self, moment: float) -> list[dict[str, Any]]:
        """Steps that ended after `moment`, oldest first."""
        return self._points("at > ? order by at", [moment])

    def _points(self, where: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        found = self.do(f"select {', '.join(points.NAMES)} from points where {where}", values)
        rows = [dict(zip(points.NAMES, row, strict=True)) for row in found]
        return [row | {name: json.loads(row[name] or "{}") for name in ("measured", "checks")} for row in rows]

    def note_sample(self, run_id: str, sample: Mapping[str, float]) -> None:
        names = points.SAMPLE_NAMES[2:]
        self.do(
            f"insert into samples ({', '.join(points.SAMPLE_NAMES)}) values (?, ?{', ?' * len(names)})",
            [run_id, self.now(), *(sample.get(name, 0) for name in names)],
        )

    def samples(self, run_id: str) -> list[dict[str, Any]]:
        """What a run used, oldest first: one row for every HEARTBEAT_S seconds."""
        found = self.do(f"select {', '.join(points.SAMPLE_NAMES)} from samples where run_id = ? order by at", (run_id,))
        return [dict(zip(points.SAMPLE_NAMES, row, strict=True)) for row in found]

    # Leases

    def take_lease(self, asset: str, run_id: str) -> int | None:
        """A token for `asset`, or None while a living process holds its lease."""
        now, me = self.now(), self._me

        def take(do: Do) -> int | None:
            known = do(
                "select token, run_id, pid, started_ticks, boot_id, host, heartbeat_at, held from leases where asset = ?",
                (asset,),
            )
            found = known[0] if known else (0, "", 0, "", "", "", 0.0, 0)
            if found[7] and (found[1], Owner(*found[2:6]), found[6]) == (run_id, me, now):
                return int(found[0])  # taken a moment ago, and the answer to that was lost
            if found[7] and Owner(*found[2:6]).is_alive(found[6], now):
                return None
            token = int(found[0]) + 1
            values = (asset, token, run_id, me.pid, me.started_ticks, me.boot_id, me.host, now)
            do("delete from leases where asset = ?", (asset,))
            do("insert into leases values (?, ?, ?, ?, ?, ?, ?, ?, 1)", values)
            return token

        return self._books.alone(take)

    def holds_leases(self, tokens: Mapping[str, int]) -> list[str]:
        """The assets of `tokens` whose lease was lost to somebody else."""
        lost = []
        for asset, token in tokens.items():
            found = self.do("select 1 from leases where asset = ? and token = ? and held = 1", (asset, token))
            if not found:
                lost.append(asset)
        return lost

    def drop_lease(self, asset: str, token: int) -> None:
        self.do("update leases set held = 0 where asset = ? and token = ?", (asset, token))

    def lease_holder(self, asset: str) -> str:
        found = self.do("select run_id, pid, host from leases where asset = ? and held = 1", (asset,))
        return f"run {found[0][0]} (process {found[0][1]} on {found[0][2]})" if found else ""

    # Files whose checksum was found right

    def note_verified(self, paths: Sequence[str]) -> None:
        if not paths:
            return
        now = time.time()

        def note(do: Do) -> None:
            for path in paths:
                do("insert into verified values (?, ?) on conflict (path) do update set at = excluded.at", (path, now))

        self._books.alone(note)

    def not_verified_since(self, moment: float) -> Callable[[str], bool]:
        """Tells for a path whether its last verification is older than `moment`, or there was none."""
        fresh = {row[0] for row in self.do("select path from verified where at >= ?", (moment,))}
        return lambda path: path not in fresh

    # Landing files that could not be read

    def set_aside(self, asset: str, file: str, size: int, modified_ns: int, reason: str, run_id: str) -> None:
        self.do(
            "insert into set_aside values (?, ?, ?, ?, ?, ?, ?) on conflict (asset, file) do update set"
            " bytes = excluded.bytes, modified_ns = excluded.modified_ns, reason = excluded.reason,"
            " run_id = excluded.run_id, at = excluded.at",
            (asset, file, size, modified_ns, reason, run_id, time.time()),
        )

    def accepted(self, asset: str, files: Sequence[str]) -> None:
        for file in files:
            self.do("delete from set_aside where asset = ? and file = ?", (asset, file))

    def files_set_aside(self, asset: str | None = None) -> list[dict[str, Any]]:
        names = ("asset", "file", "bytes", "modified_ns", "reason", "run_id", "at")
        where, values = ("where asset = ?", (asset,)) if asset else ("", ())
        found = self.do(f"select {', '.join(names)} from set_aside {where} order by asset, file", values)
        return [dict(zip(names, row, strict=True)) for row in found]


@contextmanager
def open_journal(place: Path | Server, *, create: bool = True) -> Iterator[Journal]:
    """Open the journal at `place`. Without `create` (readers) one that cannot be opened is an empty one."""
    journal = Journal(_books(place, create))
    try:
        yield journal
    finally:
        journal.close()


def _books(place: Path | Server, create: bool) -> Books:
    if isinstance(place, Server):
        return PostgresBooks(place, _TABLES) if create or place.exists() else SqliteBooks(None, _TABLES)
    try:
        if create:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return SqliteBooks(place if create or place.exists() else None, _TABLES)
    except (sqlite3.Error, OSError) as error:
        if create:
            folder = place.parent if place.parent.is_dir() else None
            known = explain(error, "the journal cannot be opened", folder=folder)
            known.where = str(place)
            known.next = known.next or "move a damaged journal away; it holds no data"
            raise known from error
        return SqliteBooks(None, _TABLES)


@contextmanager
def heartbeat(journal: Journal, run_id: str, sample: Callable[[], Mapping[str, float]] | None = None) -> Iterator[None]:
    """Beat every HEARTBEAT_S seconds while the block runs, and note what `sample` says is used."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_S):
            try:
                journal.beat(run_id)
                if sample is not None:
                    journal.note_sample(run_id, sample())
            except LakeError:
                continue  # a full disk must not kill the run from here; the publish will report it

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
