"""The graph in a Neo4j 5 server: rows in batches by UNWIND, MERGE on the key alone, each batch one transaction.

A batch that fails for a reason that passes (a deadlock, a server that restarts) is done again. One that fails for
another reason is rolled back, tried in halves, and in halves of these, until the rows that the server refuses stand
alone: they are dead letters, the others are in the graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import neo4j
import pyarrow as pa
import stamina
from neo4j.exceptions import AuthError, ConfigurationError, DriverError, Neo4jError, ServiceUnavailable

from pipelines.sbir.graph.interface import (
    MISSING_END,
    DeadLetter,
    GraphError,
    GraphUnreachable,
    Written,
    columns_of,
    keys_of,
    nodes_of,
    quoted,
    refused,
)
from pipelines.sbir.graph.model import Kind, Node, Relation
from pipelines.sbir.graph.settings import Loading, Server

CONNECT_WITHIN_S = 5
ROWS_A_FETCH = 10_000
Answer = TypeVar("Answer")
_UNTOUCHED = "Nothing was read or written."
_BY_BATCH = "Batches that were written stay; the next load sends only what is missing."


class InNeo4j:
    """A server; open it with `with`."""

    by_memory = False  # rows become Python values on their way, ten times as large

    def __init__(self, server: Server, loading: Loading | None = None) -> None:
        self.loading = loading or Loading()
        self.address = _without_secrets(server.uri)
        self._server = server

    def __enter__(self) -> InNeo4j:
        try:
            self._driver = neo4j.GraphDatabase.driver(
                self._server.uri,
                auth=(self._server.user, self._server.password),
                connection_timeout=CONNECT_WITHIN_S,
                telemetry_disabled=True,
                notifications_min_severity="OFF",
                user_agent="ratatouille",
            )
        except (ConfigurationError, ValueError) as error:
            raise GraphError(
                f"{self.address} is no address of a graph: {str(error).replace(self._server.uri, self.address)}",
                where="NEO4J_URI",
                state=_UNTOUCHED,
                next="say it like bolt://127.0.0.1:7687 or neo4j+s://host",
            ) from error
        try:
            with self._telling(_UNTOUCHED):
                self._driver.verify_connectivity()
        except BaseException:
            self._driver.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.close()

    def prepare(self, kinds: Iterable[Kind]) -> None:
        wanted = dict(_schema(nodes_of(kinds)))
        there = {row["name"] for row in self._rows("SHOW INDEXES YIELD name")}
        missing = [statement for name, statement in wanted.items() if name not in there]
        for statement in missing:
            try:
                self._commit(lambda tx, said=statement: tx.run(said).consume())
            except GraphError as error:
                # Loads begin together, and IF NOT EXISTS looks before it has the lock.
                if not error.where.endswith("EquivalentSchemaRuleAlreadyExists"):
                    raise
        if missing:
            self._commit(lambda tx: tx.run("CALL db.awaitIndexes(300)").consume())

    def mark(self, load: str) -> str:
        rows = self._rows("MATCH (m:GraphLoad {load: $load}) RETURN m.token AS token", {"load": load})
        return str(rows[0]["token"]) if rows else ""

    def set_mark(self, load: str, token: str) -> None:
        said = "MERGE (m:GraphLoad {load: $load}) SET m.token = $token"
        self._commit(lambda tx: tx.run(said, load=load, token=token).consume())

    def standing(self, load: str, kinds: Iterable[Kind]) -> str:
        mark = self.mark(load)
        return " ".join([mark, *(str(self.count(kind)) for kind in kinds)]) if mark else ""

    def count(self, kind: Kind) -> int:
        # Neo4j keeps both counts, so that nothing is scanned. A type and its start say which relation it is.
        what = (
            f"(x:{quoted(kind.label)})"
            if isinstance(kind, Node)
            else f"(:{quoted(kind.start.label)})-[x:{quoted(kind.type)}]->()"
        )
        return int(self._rows(f"MATCH {what} RETURN count(x) AS n")[0]["n"])

    def state(self, kind: Kind) -> pa.Table:
        names = [*keys_of(kind), "content_hash"]
        found: dict[str, list[Any]] = {name: [] for name in names}
        with self._telling(), self._session(neo4j.READ_ACCESS) as session:
            for record in session.run(_state(kind)):
                for name, value in zip(names, record.values(), strict=True):
                    found[name].append(value)
        return pa.table({name: pa.array(values, pa.string()) for name, values in found.items()})

    def write(self, kind: Kind, rows: pa.Table) -> Written:
        said = _write_node(kind) if isinstance(kind, Node) else _write_relation(kind)
        columns = rows.select(list(columns_of(kind)))
        size = self.loading.batch_size
        starts = range(0, rows.num_rows, size)
        done = Written()

        def one(start: int) -> Written:
            return self._batch(kind, said, _as_lists(columns.slice(start, size)))

        # Relations meet in the nodes that they share, and would wait for each other's locks.
        threads = self.loading.parallel_threads if isinstance(kind, Node) else 1
        with ThreadPoolExecutor(threads) as pool:
            for start, written in zip(starts, pool.map(one, starts), strict=True):
                done.add(written, start)
                self._refuse_many(kind, columns, done)
        return done

    def delete(self, kind: Kind, keys: pa.Table) -> int:
        rows = _as_lists(keys.select(list(keys_of(kind))))
        gone, said = 0, _delete(kind)
        for start in range(0, len(rows), self.loading.batch_size):
            part = rows[start : start + self.loading.batch_size]
            answer, _ = self._commit(lambda tx, part=part: tx.run(said, rows=part).single(strict=True)["n"])
            gone += int(answer)
        return gone

    def ask(self, cypher: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        with self._telling(), self._session(neo4j.READ_ACCESS) as session:
            said = neo4j.Query(cypher, timeout=self.loading.transaction_timeout_seconds)  # type: ignore[arg-type]
            return [
                {name: _native(value) for name, value in record.items()} for record in session.run(said, parameters)
            ]

    def _session(self, access: str = neo4j.WRITE_ACCESS) -> neo4j.Session:
        return self._driver.session(default_access_mode=access, fetch_size=ROWS_A_FETCH)

    def _rows(self, cypher: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        answer, _ = self._commit(lambda tx: tx.run(cypher, parameters).data())
        return list(answer)

    def _batch(self, kind: Kind, said: str, rows: list[list[Any]]) -> Written:
        """One transaction; if the server refuses it for good, halves of it."""
        try:
            written, retried = self._commit(lambda tx: _counted(kind, tx, said, rows))
        except GraphError as error:
            if error.transient or not isinstance(error.__cause__, _OF_A_ROW) or _of_every_row(error.__cause__):
                raise
            if len(rows) == 1:
                return Written(dead=[DeadLetter(0, _short(error.__cause__))])
            half = len(rows) // 2
            done = self._batch(kind, said, rows[:half])
            if len(done.dead) <= self.loading.max_constraint_violations:
                done.add(self._batch(kind, said, rows[half:]), half)
            return done
        written.retried += retried
        return written

    def _refuse_many(self, kind: Kind, rows: pa.Table, done: Written) -> None:
        most = self.loading.max_constraint_violations
        if sum(not one.reason.startswith(MISSING_END) for one in done.dead) > most:
            raise refused(kind, rows, done.dead, self.address, most)

    def _commit(self, work: Callable[[neo4j.Transaction], Answer]) -> tuple[Answer, int]:
        """What `work` answers in a transaction of its own, and how often it had to be done again."""
        patience = _Patience(self.loading)
        with self._telling():
            for attempt in stamina.retry_context(
                patience.has_some_for, attempts=None, timeout=None, wait_initial=0.1, wait_max=2.0, wait_jitter=0.2
            ):
                with attempt, self._session() as session:
                    with session.begin_transaction(timeout=self.loading.transaction_timeout_seconds) as transaction:
                        answer = work(transaction)
                        transaction.commit()
                    return answer, patience.n_used
        raise AssertionError("unreachable: the loop returns or raises")

    @contextmanager
    def _telling(self, state: str = _BY_BATCH) -> Iterator[None]:
        """Errors of the driver, as errors for people."""
        try:
            yield
        except Neo4jError as error:
            if not str(error.code).startswith("Neo.ClientError.Security"):
                self._tell_of(error, state)
            raise GraphError(
                f"{self.address} refuses the user '{self._server.user}' with this password",
                where="NEO4J_USER, NEO4J_PASSWORD",
                state=_UNTOUCHED,
                next="set both as the server knows them",
            ) from error
        except DriverError as error:
            raise GraphUnreachable(
                f"{self.address} does not answer: {_short(error)}",
                where=f"NEO4J_URI is {self.address}",
                state=state,
                next="start the server (docker compose up --detach --wait)",
            ) from error
        except _NOT_SENDABLE as error:
            raise GraphError(
                f"a value cannot be sent to {self.address}: {_short(error)}",
                where=self.address,
                state=state,
                next="mend the row, and load again",
            ) from error

    def _tell_of(self, error: Neo4jError, state: str) -> NoReturn:
        if error.code == "Neo.ClientError.Statement.AccessMode":
            raise _only_reads(self.address) from error
        if _is_passing(error):
            raise GraphUnreachable(
                f"{self.address} could not do it, {self.loading.deadlock_retries + 1} times: {_short(error)}",
                where=self.address,
                state=state,
                next="run it again when the server is less busy",
            ) from error
        raise GraphError(
            f"{self.address} refuses it: {_short(error)}",
            where=str(error.code),
            state=state,
            next="read the message of the server, mend it, and load again",
        ) from error


_NOT_SENDABLE = (TypeError, ValueError, OverflowError)
_OF_A_ROW = (Neo4jError, *_NOT_SENDABLE)


class _Patience:
    """How often a transaction is done again: a few times after a deadlock, for a while when the server is away."""

    def __init__(self, loading: Loading) -> None:
        self.loading = loading
        self.n_used = self._n_deadlocks = 0
        self._until: float | None = None

    def has_some_for(self, error: Exception) -> bool:
        if not _is_passing(error):
            return False
        if isinstance(error, Neo4jError) and "Database" not in str(error.code):
            self._n_deadlocks += 1
            more = self._n_deadlocks <= self.loading.deadlock_retries
        else:
            self._until = self._until or time.monotonic() + self.loading.reconnect_seconds
            more = time.monotonic() < self._until
        self.n_used += more
        return more


def _is_passing(error: BaseException) -> bool:
    # A commit without an answer may be done again: what it wrote is merged, not doubled.
    return isinstance(error, ServiceUnavailable) or (
        isinstance(error, (Neo4jError, DriverError)) and error.is_retryable() and not isinstance(error, AuthError)
    )


def _of_every_row(error: BaseException) -> bool:
    """Whether halves of a batch would fail alike: no rights, a statement that is wrong."""
    code = str(getattr(error, "code", ""))
    return code.startswith("Neo.ClientError.Security") or code.endswith("SyntaxError")


def _schema(nodes: Iterable[Node]) -> Iterator[tuple[str, str]]:
    """(name, statement) of each constraint and index."""
    yield "graph_load", "CREATE CONSTRAINT graph_load IF NOT EXISTS FOR (n:GraphLoad) REQUIRE n.load IS UNIQUE"
    for node in nodes:
        label, low = quoted(node.label), node.label.lower()
        for name in (node.key, *node.unique):
            yield (
                f"{low}_{name}",
                f"CREATE CONSTRAINT {quoted(f'{low}_{name}')} IF NOT EXISTS FOR (n:{label}) REQUIRE n.{quoted(name)} IS UNIQUE",
            )
        for name in node.indexed:
            yield (
                f"{low}_{name}",
                f"CREATE INDEX {quoted(f'{low}_{name}')} IF NOT EXISTS FOR (n:{label}) ON (n.{quoted(name)})",
            )
        if node.full_text:
            listed = ", ".join(f"n.{quoted(name)}" for name in node.full_text)
            yield (
                f"{low}_words",
                f"CREATE FULLTEXT INDEX {quoted(f'{low}_words')} IF NOT EXISTS FOR (n:{label}) ON EACH [{listed}]",
            )


def _write_node(node: Node) -> str:
    return (
        f"UNWIND $rows AS row MERGE (x:{quoted(node.label)} {{{quoted(node.key)}: row[0]}})"
        f" WITH x, row, x.content_hash AS before {_set_changed(node, 1)}"
    )


def _write_relation(kind: Relation) -> str:
    return (
        f"UNWIND $rows AS row MATCH {_end('a', kind.start, 'row[0]')} MATCH {_end('b', kind.end, 'row[1]')}"
        f" MERGE (a)-[x:{quoted(kind.type)}]->(b) WITH x, row, x.content_hash AS before {_set_changed(kind, 2)}"
    )


def _set_changed(kind: Kind, at: int) -> str:
    """SET what differs, and count. `at` is where in a row the hash stands; the properties follow."""
    sets = [f"x.content_hash = row[{at}]"]
    sets += [f"x.{quoted(one.name)} = row[{number}]" for number, one in enumerate(kind.properties, at + 1)]
    return (
        f"FOREACH (_ IN CASE WHEN before = row[{at}] THEN [] ELSE [1] END | SET {', '.join(sets)})"
        f" RETURN count(*) AS there, sum(CASE WHEN before IS NULL THEN 1 ELSE 0 END) AS created,"
        f" sum(CASE WHEN before = row[{at}] THEN 1 ELSE 0 END) AS unchanged"
    )


def _counted(kind: Kind, transaction: neo4j.Transaction, said: str, rows: list[list[Any]]) -> Written:
    answer = transaction.run(said, rows=rows).single(strict=True)
    there, created, unchanged = answer["there"], answer["created"], answer["unchanged"]
    written = Written(created, there - created - unchanged, unchanged)
    if there < len(rows) and isinstance(kind, Relation):
        written.dead = _without_ends(kind, transaction, rows)
    return written


def _without_ends(kind: Relation, transaction: neo4j.Transaction, rows: list[list[Any]]) -> list[DeadLetter]:
    said = (
        f"UNWIND $rows AS row OPTIONAL MATCH {_end('a', kind.start, 'row[1]')}"
        f" OPTIONAL MATCH {_end('b', kind.end, 'row[2]')} WITH row, a, b WHERE a IS NULL OR b IS NULL"
        " RETURN row[0] AS number, a IS NULL AS start ORDER BY number"
    )
    found = transaction.run(said, rows=[[number, *row[:2]] for number, row in enumerate(rows)])
    return [
        DeadLetter(one["number"], f"{MISSING_END}: {(kind.start if one['start'] else kind.end).label}") for one in found
    ]


def _end(variable: str, node: Node, value: str) -> str:
    return f"({variable}:{quoted(node.label)} {{{quoted(node.key)}: {value}}})"


def _state(kind: Kind) -> str:
    if isinstance(kind, Node):
        return f"MATCH (x:{quoted(kind.label)}) RETURN x.{quoted(kind.key)}, x.content_hash"
    return (
        f"MATCH (a:{quoted(kind.start.label)})-[x:{quoted(kind.type)}]->(b:{quoted(kind.end.label)})"
        f" RETURN a.{quoted(kind.start.key)}, b.{quoted(kind.end.key)}, x.content_hash"
    )


def _delete(kind: Kind) -> str:
    if isinstance(kind, Node):
        return f"UNWIND $rows AS row MATCH {_end('x', kind, 'row[0]')} DETACH DELETE x RETURN count(*) AS n"
    return (
        f"UNWIND $rows AS row MATCH {_end('a', kind.start, 'row[0]')}-[x:{quoted(kind.type)}]->"
        f"{_end('b', kind.end, 'row[1]')} DELETE x RETURN count(*) AS n"
    )


def _as_lists(rows: pa.Table) -> list[list[Any]]:
    """Values by place: names in every row would be most of what is sent."""
    return list(map(list, zip(*(column.to_pylist() for column in rows.columns), strict=True)))


def _native(value: Any) -> Any:
    if isinstance(value, (neo4j.graph.Node, neo4j.graph.Relationship)):
        return {name: _native(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_native(one) for one in value]
    return value.to_native() if hasattr(value, "to_native") else value


def _only_reads(address: str) -> GraphError:
    return GraphError(
        "this statement writes, and questions only read",
        where=address,
        state="Nothing was changed.",
        next="ask with MATCH ... RETURN ...; what is in the graph comes from the lake: rat run layer:loaded",
    )


def _without_secrets(uri: str) -> str:
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if host else uri


def _short(error: BaseException) -> str:
    said = getattr(error, "message", None) or str(error)
    return " ".join(str(said).split())[:300]
