"""Where the journal is written: a SQLite file beside the lake, or a schema beside a catalog on PostgreSQL.

Both take the same SQL: `?` for values, `on conflict` instead of words of one dialect, types that both know.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ratatouille.errors import TransientError
from ratatouille.lake.catalogs.server import Server
from ratatouille.lake.faults import explain
from ratatouille.lake.quoting import ident

if TYPE_CHECKING:
    import psycopg

Rows = list[tuple[Any, ...]]
Do = Callable[[str, Sequence[Any]], Rows]
T = TypeVar("T")
_RETRY_FOR_S = 20.0  # a server that restarts is back by then


class Books(Protocol):
    """What the journal asks for. Errors are RatErrors. Safe from several threads."""

    def do(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """One statement, committed. It may run twice, when the answer to the first was lost."""

    def alone(self, work: Callable[[Do], T]) -> T:
        """Run `work` in a transaction beside which no other such transaction runs. It may run twice as well."""

    def now(self) -> float:
        """Seconds since 1970, by one clock for everybody who writes here."""

    def close(self) -> None: ...


class SqliteBooks:
    """A file; `None` is one that nobody else sees and that is gone at the end."""

    def __init__(self, path: Path | None, tables: Sequence[str]) -> None:
        self._guard = threading.Lock()
        self._connection = sqlite3.connect(
            path or ":memory:", timeout=30, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = normal")
        for table in tables:
            self._connection.execute(table)

    def now(self) -> float:
        return time.time()

    def close(self) -> None:
        self._connection.close()

    def do(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        with self._guard, self._explained():
            return self._connection.execute(sql, values).fetchall()

    def alone(self, work: Callable[[Do], T]) -> T:
        with self._guard, self._explained():
            self._connection.execute("begin immediate")
            try:
                made = work(self._execute)
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        self._connection.execute("rollback")
                raise
        return made

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise explain(error, "writing the journal") from error


class PostgresBooks:
    """A schema. A connection that is lost is made anew, and what it was asked is asked again."""

    def __init__(self, server: Server, tables: Sequence[str]) -> None:
        self._server = server
        self._guard = threading.Lock()
        self._connection = server.connect("opening the journal")
        self._ahead_s = 0.0
        import psycopg

        try:
            self._create(tables)
            self._enter()
        except BaseException as error:
            self.close()
            if isinstance(error, psycopg.Error):
                raise server.explained(error, "opening the journal") from None
            raise

    def _create(self, tables: Sequence[str]) -> None:
        schema = self._server.journal_schema
        count = "select count(*) from pg_tables where schemaname = %s"
        known = self._connection.execute(count, (schema,)).fetchone()
        if known and known[0] >= sum(table.startswith("create table") for table in tables):
            return
        with self._server.exclusive("making the journal", 60.0, "journal"):
            self._connection.execute(f"create schema if not exists {ident(schema)}")
            self._connection.execute(f"set search_path = {ident(schema)}")
            for table in tables:
                self._connection.execute(table)

    def _enter(self) -> None:
        self._connection.execute(f"set search_path = {ident(self._server.journal_schema)}")
        found = self._connection.execute("select extract(epoch from clock_timestamp())::float8").fetchone()
        self._ahead_s = found[0] - time.time() if found else 0.0

    def now(self) -> float:
        """By the server's clock: heartbeats of several machines are compared."""
        return time.time() + self._ahead_s

    def close(self) -> None:
        with suppress(Exception):
            self._connection.close()

    def do(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        return self._again(lambda: _execute(self._connection, sql, values))

    def alone(self, work: Callable[[Do], T]) -> T:
        def once() -> T:
            with self._connection.transaction():
                lock = self._server.lock_key("journal rows")
                self._connection.execute("select pg_advisory_xact_lock(%s)", (lock,))
                return work(partial(_execute, self._connection))

        return self._again(once)

    def _again(self, ask: Callable[[], T]) -> T:
        """The answer; asked once more, on a new connection, for as long as the server may take to restart."""
        import psycopg

        deadline = time.monotonic() + _RETRY_FOR_S
        with self._guard:
            while True:
                try:
                    if self._connection.closed:
                        self._connection = self._server.connect("writing the journal")
                        self._enter()
                    return ask()
                except psycopg.Error as error:
                    lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
                    known = self._server.explained(error, "writing the journal")
                    if not lost or time.monotonic() > deadline:
                        raise known from None
                    self.close()
                except TransientError:
                    if time.monotonic() > deadline:
                        raise
                time.sleep(0.1)


def _execute(connection: psycopg.Connection[Any], sql: str, values: Sequence[Any]) -> Rows:
    found = connection.execute(sql.replace("%", "%%").replace("?", "%s"), tuple(values))
    return found.fetchall() if found.description else []
