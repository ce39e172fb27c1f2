"""What a graph can do, whoever keeps it; what it answers; and how it says that it cannot.

Rows of a node come as an Arrow table with the columns `key`, `content_hash` and its properties; rows of a relation
with `start_key`, `end_key`, `content_hash` and its properties. `before` is the content hash that the graph is
believed to hold (null: nothing). Nothing that is written twice is in the graph twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from pipelines.sbir.graph.model import Kind, Node, Relation

MISSING_END = "missing end"  # how the reason of a relation begins whose start or end is not in the graph


class GraphError(Exception):
    """What failed, where, in which state the graph is, what to do: four lines."""

    transient = False

    def __init__(self, what: str, *, where: str, state: str, next: str) -> None:
        self.what, self.where, self.state, self.next = what, where, state, next
        super().__init__(what)

    def __str__(self) -> str:
        return "\n".join((self.what, self.where, self.state, self.next))


class GraphUnreachable(GraphError):
    """No answer, or a graph that somebody else is writing. The same request may succeed in a moment."""

    transient = True


class TooManyDeadLetters(GraphError):
    """More rows are refused than the settings let pass: the graph keeps what it took, the load stops."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row that the graph does not take. `number` is its place in the table that was written."""

    number: int
    reason: str


@dataclass(slots=True)
class Written:
    """What became of rows. rows = created + updated + unchanged + dead."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    retried: int = 0  # transactions that were done again
    dead: list[DeadLetter] = field(default_factory=list)

    def add(self, other: Written, offset: int = 0) -> None:
        """Count `other` too, whose first row is the one at `offset`."""
        self.created += other.created
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.retried += other.retried
        self.dead += [DeadLetter(one.number + offset, one.reason) for one in other.dead]


class Graph(Protocol):
    """A graph that is open. Use it in a `with`; every method may raise GraphError."""

    address: str  # for people: no secret in it
    by_memory: bool  # whether it is written best in chunks as large as the memory profile allows

    def __enter__(self) -> Graph: ...

    def __exit__(self, *_: object) -> None: ...

    def prepare(self, kinds: Iterable[Kind]) -> None:
        """Constraints, indexes, tables: those that are not there yet."""

    def mark(self, load: str) -> str:
        """The token that the last load of this name has left; '' for none."""

    def set_mark(self, load: str, token: str) -> None: ...

    def standing(self, load: str, kinds: Iterable[Kind]) -> str:
        """The mark, with whatever else tells at no cost that somebody changed these kinds; '' for no mark.

        To be asked by a load that has compared what is there.
        """

    def count(self, kind: Kind) -> int: ...

    def state(self, kind: Kind) -> pa.Table:
        """What is in the graph: `key` (or `start_key`, `end_key`) and `content_hash`."""

    def write(self, kind: Kind, rows: pa.Table) -> Written:
        """Create or change. A row that is refused is a dead letter; the others are in the graph afterwards.

        Between opening and closing a key comes once.
        """

    def delete(self, kind: Kind, keys: pa.Table) -> int:
        """Remove nodes with their relations, or relations. How many were there."""

    def ask(self, cypher: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows of a question. It only reads: GraphError for a statement that writes."""


def keys_of(kind: Kind) -> tuple[str, ...]:
    """The columns that name a row."""
    return ("key",) if isinstance(kind, Node) else ("start_key", "end_key")


def columns_of(kind: Kind) -> tuple[str, ...]:
    """The columns that are written, keys first."""
    return (*keys_of(kind), "content_hash", *(one.name for one in kind.properties))


def nodes_of(kinds: Iterable[Kind]) -> list[Node]:
    """The labels of these kinds, ends of relations included."""
    found: dict[str, Node] = {}
    for kind in kinds:
        for node in (kind.start, kind.end) if isinstance(kind, Relation) else (kind,):
            found[node.label] = node
    return list(found.values())


def as_text(rows: pa.Table, number: int) -> str:
    """One row as JSON, long texts cut: what a dead letter shows."""
    [row] = rows.slice(number, 1).to_pylist()
    short = {k: v[:200] + " ..." if isinstance(v, str) and len(v) > 200 else v for k, v in row.items() if v is not None}
    return json.dumps(short, default=str, sort_keys=True)


def refused(kind: Kind, rows: pa.Table, dead: Sequence[DeadLetter], address: str, most: int) -> TooManyDeadLetters:
    shown = "; ".join(f"{as_text(rows.select(list(keys_of(kind))), d.number)} {d.reason}" for d in dead[:3])
    return TooManyDeadLetters(
        f"{kind.name}: {len(dead)} rows are refused, {most} may be (max_constraint_violations): {shown}",
        where=address,
        state="What was taken is in the graph; the lake's record of it is as before.",
        next="mend these rows, then load again: what is there already is not sent twice",
    )


def quoted(name: str) -> str:
    """A label, type or property in Cypher."""
    return "`" + name.replace("`", "``") + "`"
