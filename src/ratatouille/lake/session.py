"""A session: one cursor on an open lake, used by one thread at a time. What leaves it as an error is a RatError.

No statement has bound parameters: for the first one DuckDB imports pandas where it is installed, and 0.4 s are gone.
Values become SQL text in quoting.py alone.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratatouille.lake.faults import explain
from ratatouille.lake.quoting import LAKE

if TYPE_CHECKING:
    import duckdb


class Session:
    """One cursor. Every exception that leaves it is a RatError."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, doing: str, folder: Path | None = None) -> None:
        self.cursor = cursor
        self.doing = doing
        self.folder = folder  # of the catalog: whether its disk is full explains many errors
        self._interrupted = False

    def execute(self, sql: str) -> duckdb.DuckDBPyConnection:
        try:
            return self.cursor.execute(sql)
        except Exception as error:
            raise self._plainly(error) from error

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.fetched(self.execute(sql))

    def fetched(self, result: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
        try:
            return result.fetchall()
        except Exception as error:
            raise self._plainly(error) from error

    def _plainly(self, error: Exception) -> BaseException:
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":
            self._interrupted = True
            return KeyboardInterrupt()  # what DuckDB makes of Ctrl-C in the middle of a query
        return explain(error, self.doing, folder=self.folder)

    def row(self, sql: str) -> tuple[Any, ...] | None:
        found = self.rows(sql)
        return found[0] if found else None

    def one(self, sql: str) -> tuple[Any, ...]:
        """The row of a query that always has one: an aggregate."""
        return self.rows(sql)[0]

    def value(self, sql: str) -> Any:
        found = self.row(sql)
        return found[0] if found else None

    def is_select(self, sql: str) -> bool:
        """Whether `sql` is exactly one statement that only reads, as DuckDB's parser sees it; no comes easily."""
        try:
            kinds = [statement.type.name for statement in self.cursor.extract_statements(sql)]
        except Exception:
            return False
        return kinds == ["SELECT"] and ";" not in sql

    def describe(self, select: str) -> tuple[tuple[str, str], ...]:
        """(name, type) of every column that `select` returns; the query is bound, not run."""
        return tuple((row[0], row[1]) for row in self.rows(f"describe (\n{select}\n)"))

    @property
    def snapshot(self) -> int:
        """The version that this session sees."""
        return int(self.value(f"select id from {LAKE}.current_snapshot()"))

    def interrupt(self) -> None:
        """Stop the query that is running, from another thread. The session is good for nothing afterwards."""
        self._interrupted = True
        self.cursor.interrupt()

    def rollback(self) -> None:
        if self._interrupted:
            # DuckDB leaves the query before its threads have. They have to be told, and no statement may come between,
            # not even this one: it takes the interrupt back, and then waits for them for ever. Closing ends them.
            self.cursor.interrupt()
            return
        with suppress(Exception):  # no transaction was open, or it is gone with its connection
            self.cursor.execute("rollback")
