"""The graph in a file, with ladybug inside this process: no server.

One process writes, or several read; a lock file beside the graph keeps the others waiting. What is new goes in by
COPY, what is changed by one set-based MATCH and SET; a statement is a transaction.

ladybug keeps in memory what it has written until the file is closed, and dies when its buffer is full. So the file is
closed and opened again (40 ms) before that, and rows that are too wide for the buffer are refused.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import ladybug
import pyarrow as pa
import pyarrow.compute as pc

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
from pipelines.sbir.graph.marks import marks_noted, note_marks
from pipelines.sbir.graph.model import Kind, Node, Property, Relation
from pipelines.sbir.graph.settings import Loading

TYPES = {
    "text": "STRING",
    "number": "DOUBLE",
    "whole": "INT64",
    "flag": "BOOL",
    "day": "DATE",
    "moment": "TIMESTAMP",
    "texts": "STRING[]",
}
LARGEST_FILE_BYTES = 1 << 38  # of address space, which containers may limit; no memory
SHARE_BETWEEN_OPENINGS = 1 / 16  # of the buffer; docs/experiments.md has the measurements
# ladybug writes a table in groups of 131,072 rows, and adds to the last one by holding all of it, several times over.
GROUP_ROWS, GROUP_COPIES = 131_072, 3.5
BASE_BYTES = 32 << 20
_COMMITTED = "Transaction committed successfully"
_FULL = "Buffer manager exception"
_STATE = "What was committed is in the file; the next load sends only what is missing."


class InLadybug:
    """A file; open it with `with`. `reading`: for questions, beside other readers."""

    by_memory = True  # each COPY into a table that has rows costs some of what is there

    def __init__(
        self, path: Path, loading: Loading | None = None, *, buffer_mb: int = 1024, reading: bool = False
    ) -> None:
        self.path = path
        self.address = str(path)
        self.loading = loading or Loading()
        self._buffer_bytes = buffer_mb << 20
        self._reading = reading
        self._written_bytes = 0
        self._empty_before: dict[str, bool] = {}  # kinds that this opening has written

    def __enter__(self) -> InLadybug:
        if self._reading and not self.path.exists():
            raise GraphError(
                "there is no graph yet", where=self.address, state="Nothing was read.", next="rat run layer:loaded"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The loads of a run take turns; a person who asks is told soon.
        loading = self.loading
        patience_s = loading.reconnect_seconds if self._reading else loading.transaction_timeout_seconds
        self._lock = _take_lock(self.path, self._reading, patience_s)
        # What nobody vouches for is not noted again: the next plan makes each load look for itself.
        self._vouched = marks_noted(self.path) or {}
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._close()
            if not self._reading:
                note_marks(self.path, self._vouched)
        finally:
            self._lock.close()

    def prepare(self, kinds: Iterable[Kind]) -> None:
        kinds = list(kinds)
        there = {row[1] for row in self._execute("CALL show_tables() RETURN *").get_all()}
        if "GraphLoad" not in there:
            self._execute("CREATE NODE TABLE GraphLoad(load STRING PRIMARY KEY, token STRING)")
        for node in nodes_of(kinds):
            columns = [f"{quoted(node.key)} STRING PRIMARY KEY", *_columns(node)]
            self._make(f"NODE TABLE {quoted(node.label)}({', '.join(columns)})", node.label, node, there)
        for kind in kinds:
            if isinstance(kind, Relation):
                ends = ", ".join(
                    f"FROM {quoted(one.start.label)} TO {quoted(one.end.label)}"
                    for one in kinds
                    if isinstance(one, Relation) and one.type == kind.type
                )
                self._make(
                    f"REL TABLE {quoted(kind.type)}({', '.join([ends, *_columns(kind)])})", kind.type, kind, there
                )

    def _make(self, table: str, name: str, kind: Kind, there: set[str]) -> None:
        """The table, or the columns that it lacks."""
        if name not in there:
            self._execute(f"CREATE {table}")
            there.add(name)
            return
        [told] = [self._execute(f"CALL table_info('{name}') RETURN *").get_all()]
        known = {row[1] for row in told}
        for one in kind.properties:
            if one.name not in known:
                self._execute(f"ALTER TABLE {quoted(name)} ADD {quoted(one.name)} {TYPES[one.kind]}")

    def mark(self, load: str) -> str:
        there = {row[1] for row in self._execute("CALL show_tables() RETURN *").get_all()}
        if "GraphLoad" not in there:
            return ""
        found = self._execute("MATCH (m:GraphLoad {load: $load}) RETURN m.token", {"load": load}).get_all()
        return str(found[0][0]) if found else ""

    def set_mark(self, load: str, token: str) -> None:
        self._vouched.pop(load, None)
        self._execute("MERGE (m:GraphLoad {load: $load}) SET m.token = $token", {"load": load, "token": token})

    def standing(self, load: str, kinds: Iterable[Kind]) -> str:
        # Who else touches the file is seen by its size and time: marks.py.
        self._vouched[load] = self.mark(load)
        return self._vouched[load]

    def count(self, kind: Kind) -> int:
        return int(self._execute(f"MATCH {_pattern(kind)} RETURN count(*)").get_next()[0])

    def state(self, kind: Kind) -> pa.Table:
        if isinstance(kind, Node):
            said = f"MATCH {_pattern(kind)} RETURN x.{quoted(kind.key)} AS k, x.content_hash AS content_hash"
        else:
            said = (
                f"MATCH {_pattern(kind)} RETURN a.{quoted(kind.start.key)} AS k, b.{quoted(kind.end.key)} AS l,"
                " x.content_hash AS content_hash"
            )
        found = self._execute(said).get_as_arrow(100_000)
        names = [*keys_of(kind), "content_hash"]
        return found.rename_columns(names).cast(pa.schema([(name, pa.string()) for name in names]))

    def write(self, kind: Kind, rows: pa.Table) -> Written:
        done, table = Written(), _numbered(rows.select(list(columns_of(kind))))
        same = pc.fill_null(pc.equal(rows["before"], rows["content_hash"]), False)
        new = pc.is_null(rows["before"])
        done.unchanged = rows.num_rows - _n_false(same)
        most = max(1 << 20, int(self._buffer_bytes * SHARE_BETWEEN_OPENINGS))
        n_there = self.count(kind)
        self._empty_before.setdefault(kind.name, n_there == 0)
        self._refuse_wide(kind, table, n_there)
        for part in _by_bytes(table.filter(new), most):
            done.add(self._insert(kind, part))
            self._refuse_many(kind, rows, done)
        for part in _by_bytes(table.filter(pc.and_(pc.invert(new), pc.invert(same))), most):
            done.add(self._update(kind, part))
            self._refuse_many(kind, rows, done)
        done.dead.sort(key=lambda one: one.number)
        return done

    def delete(self, kind: Kind, keys: pa.Table) -> int:
        goes = "DETACH DELETE x" if isinstance(kind, Node) else "DELETE x"
        table = keys.select(list(keys_of(kind)))
        named = table.rename_columns([f"c{n}" for n in range(table.num_columns)])
        if not named.num_rows:
            return 0
        said = f"LOAD FROM $rows MATCH {_pattern(kind)} WHERE {_by_key(kind)} {goes} RETURN count(*)"
        return int(self._execute(said, {"rows": named}).get_next()[0])

    def ask(self, cypher: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        self._execute("BEGIN TRANSACTION READ ONLY")
        try:
            return [_without_internals(row) for row in self._execute(cypher, parameters).rows_as_dict().get_all()]
        finally:
            with suppress(RuntimeError):  # an error has ended it
                self._connection.execute("COMMIT")

    def _insert(self, kind: Kind, rows: pa.Table) -> Written:
        """COPY; where that is refused, what is there is changed, what has no ends is dead, and the rest in halves."""
        reason = ""
        # COPY would make a relation twice, and says nothing.
        if isinstance(kind, Node) or self._empty_before[kind.name]:
            try:
                self._copy(kind, rows)
                return Written(created=rows.num_rows)
            except GraphError as error:
                reason = str(error.__cause__)
        done = Written()
        if isinstance(kind, Relation):
            rows = self._with_ends(kind, rows, done)
        there = self._there(kind, rows)
        if there.num_rows:
            known = pc.is_in(rows["number"], value_set=there["number"])
            done.add(self._update(kind, rows.filter(known)))
            rows = rows.filter(pc.invert(known))
        done.add(self._in_halves(kind, rows, reason))
        return done

    def _in_halves(self, kind: Kind, rows: pa.Table, reason: str) -> Written:
        if not rows.num_rows:
            return Written()
        try:
            self._copy(kind, rows)
            return Written(created=rows.num_rows)
        except GraphError as error:
            reason = str(error.__cause__)
        if rows.num_rows == 1:
            return Written(dead=[DeadLetter(rows["number"][0].as_py(), " ".join(reason.split())[:300])])
        half = rows.num_rows // 2
        done = self._in_halves(kind, rows.slice(0, half), reason)
        if len(done.dead) <= self.loading.max_constraint_violations:
            done.add(self._in_halves(kind, rows.slice(half), reason))
        return done

    def _copy(self, kind: Kind, rows: pa.Table) -> None:
        name, ends = (kind.label, "") if isinstance(kind, Node) else (kind.type, _ends(kind))
        self._spend(rows)
        self._execute(f"COPY {quoted(name)} FROM $rows{ends}", {"rows": rows.drop_columns(["number"])})

    def _update(self, kind: Kind, rows: pa.Table) -> Written:
        """SET by key; rows whose key is not there after all are inserted."""
        if not rows.num_rows:
            return Written()
        first = len(keys_of(kind))
        names = ["content_hash", *(one.name for one in kind.properties)]
        sets = ", ".join(f"x.{quoted(name)} = c{number}" for number, name in enumerate(names, first))
        said = f"LOAD FROM $rows MATCH {_pattern(kind)} WHERE {_by_key(kind)} SET {sets} RETURN count(*)"
        self._spend(rows)
        n_set = int(self._execute(said, {"rows": rows.drop_columns(["number"])}).get_next()[0])
        if n_set == rows.num_rows:
            return Written(updated=n_set)
        there = self._there(kind, rows)
        done = Written(updated=there.num_rows)
        missing = rows.filter(pc.invert(pc.is_in(rows["number"], value_set=there["number"])))
        if isinstance(kind, Relation):
            missing = self._with_ends(kind, missing, done)
        done.add(self._in_halves(kind, missing, ""))
        return done

    def _there(self, kind: Kind, rows: pa.Table) -> pa.Table:
        said = f"LOAD FROM $rows MATCH {_pattern(kind)} WHERE {_by_key(kind)} RETURN DISTINCT number"
        return self._execute(said, {"rows": rows}).get_as_arrow(100_000)

    def _with_ends(self, kind: Relation, rows: pa.Table, done: Written) -> pa.Table:
        """The rows whose ends are in the graph; the others are dead letters."""
        for node, column in ((kind.start, "c0"), (kind.end, "c1")):
            said = f"LOAD FROM $rows MATCH (n:{quoted(node.label)}) WHERE n.{quoted(node.key)} = {column} RETURN number"
            there = self._execute(said, {"rows": rows}).get_as_arrow(100_000)
            known = pc.is_in(rows["number"], value_set=there["number"])
            lost = rows.filter(pc.invert(known))["number"].to_pylist()
            done.dead += [DeadLetter(number, f"{MISSING_END}: {node.label}") for number in lost]
            rows = rows.filter(known)
        return rows

    def _refuse_many(self, kind: Kind, rows: pa.Table, done: Written) -> None:
        most = self.loading.max_constraint_violations
        if sum(not one.reason.startswith(MISSING_END) for one in done.dead) > most:
            raise refused(kind, rows, done.dead, self.address, most)

    def _refuse_wide(self, kind: Kind, rows: pa.Table, n_there: int) -> None:
        """A full buffer ends the process; what was committed would be there, and nobody would know."""
        width = rows.nbytes / max(1, rows.num_rows)
        needed = BASE_BYTES + GROUP_COPIES * width * min(GROUP_ROWS, n_there + rows.num_rows)
        if needed > self._buffer_bytes:
            raise GraphError(
                f"{kind.name}: rows of {width:,.0f} bytes need a buffer of {needed / (1 << 20):,.0f} MB, and it is"
                f" {self._buffer_bytes >> 20:,} MB",
                where=self.address,
                state=_STATE,
                next=f"set graph.buffer_mb to {int(needed * 1.25) >> 20} or more, and load again",
            )

    def _spend(self, rows: pa.Table) -> None:
        """Open the file anew before its buffer is full."""
        if self._written_bytes + rows.nbytes > self._buffer_bytes * SHARE_BETWEEN_OPENINGS:
            self._reopen()
        self._written_bytes += rows.nbytes

    def _open(self) -> None:
        try:
            self._database = ladybug.Database(
                self.path,
                buffer_pool_size=self._buffer_bytes,
                max_db_size=LARGEST_FILE_BYTES,
                read_only=self._reading,
            )
            self._connection = ladybug.Connection(self._database)
        except RuntimeError as error:
            raise GraphError(
                f"the graph cannot be opened: {_short(error)}",
                where=self.address,
                state="Nothing was read or written.",
                next=f"move {self.path} away and load again: everything in it comes from the lake",
            ) from error
        self._written_bytes = 0

    def _close(self) -> None:
        self._connection.close()
        self._database.close()

    def _reopen(self) -> None:
        self._close()
        self._open()

    def _execute(self, said: str, parameters: dict[str, Any] | None = None, again: bool = True) -> Any:
        try:
            return self._connection.execute(said, parameters or {})
        except RuntimeError as error:
            if _COMMITTED in str(error) and again:
                # The statement is done. What it would have answered, it has counted from its rows.
                self._reopen()
                return _Done(parameters["rows"].num_rows if parameters and "rows" in parameters else 0)
            if _FULL in str(error) and again and not self._reading:
                self._reopen()
                return self._execute(said, parameters, again=False)
            if "read-only" in str(error) or "read only" in str(error):
                raise GraphError(
                    "this statement writes, and questions only read",
                    where=self.address,
                    state="Nothing was changed.",
                    next="ask with MATCH ... RETURN ...; what is in the graph comes from the lake: rat run layer:loaded",
                ) from error
            raise GraphError(
                f"the graph refuses it: {_short(error)}",
                where=self.address,
                state=_STATE,
                next="read the message, mend it, and load again",
            ) from error


class _Done:
    """The answer of a statement that was committed, though what came after it failed."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def get_next(self) -> list[int]:
        return [self._rows]

    def get_all(self) -> list[list[int]]:
        return [[self._rows]]


def _take_lock(path: Path, reading: bool, patience_s: float) -> TextIO:
    """The lock file, held: by one writer or by readers. GraphUnreachable if somebody has it for too long."""
    lock = _beside(path, ".lock").open("a+", encoding="utf-8")
    until = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if reading else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            break
        except OSError as error:
            if time.monotonic() > until:
                lock.seek(0)
                who = lock.read().strip()
                lock.close()
                raise GraphUnreachable(
                    f"the graph is in use{f' by process {who}' if who else ''}, for more than {patience_s:.0f} s",
                    where=str(path),
                    state="Nothing was read or written.",
                    next="let it finish, and try again",
                ) from error
            time.sleep(0.05)
    if not reading:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _columns(kind: Kind) -> list[str]:
    typed = [Property("content_hash"), *kind.properties]
    return [f"{quoted(one.name)} {TYPES[one.kind]}" for one in typed]


def _pattern(kind: Kind) -> str:
    if isinstance(kind, Node):
        return f"(x:{quoted(kind.label)})"
    return f"(a:{quoted(kind.start.label)})-[x:{quoted(kind.type)}]->(b:{quoted(kind.end.label)})"


def _by_key(kind: Kind) -> str:
    if isinstance(kind, Node):
        return f"x.{quoted(kind.key)} = c0"
    return f"a.{quoted(kind.start.key)} = c0 AND b.{quoted(kind.end.key)} = c1"


def _ends(kind: Relation) -> str:
    return f" (from='{kind.start.label}', to='{kind.end.label}')"


def _numbered(rows: pa.Table) -> pa.Table:
    """Columns c0, c1, ... which are no names of Cypher's variables, and `number`, the row's place."""
    named = rows.rename_columns([f"c{number}" for number in range(rows.num_columns)])
    return named.append_column("number", pa.array(range(rows.num_rows), pa.int64()))


def _by_bytes(rows: pa.Table, most: int) -> Iterable[pa.Table]:
    if not rows.num_rows:
        return
    step = max(1, int(rows.num_rows * most / max(most, rows.nbytes)))
    for start in range(0, rows.num_rows, step):
        yield rows.slice(start, step)


def _n_false(mask: pa.ChunkedArray) -> int:
    return len(mask) - int(pc.sum(mask).as_py() or 0)


def _without_internals(row: dict[str, Any]) -> dict[str, Any]:
    """Nodes and relations as their properties."""
    return {
        name: {k: v for k, v in value.items() if not k.startswith("_")} if isinstance(value, dict) else value
        for name, value in row.items()
    }


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
