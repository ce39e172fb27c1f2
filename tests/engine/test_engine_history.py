"""The fold of a snapshot against a plain model: any rows, any split and order, with and without deletions.

Straight on the SQL of engine/history.py, in memory: hundreds of histories in seconds. RATATOUILLE_TRIALS for more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ratatouille.engine import history
from ratatouille.lake import Session
from ratatouille.project.records import Asset
from ratatouille.project.sidecar import order_terms

TRIALS = int(os.environ.get("RATATOUILLE_TRIALS", "15"))
EPOCH = datetime(2026, 1, 1)  # noqa: DTZ001  as the table has it
NAME = '"lake"."silver"."c"'
COLUMNS = (("id", "INTEGER"), ("city", "VARCHAR"), ("seen_at", "TIMESTAMP"))

keys, cities, days = st.integers(0, 2), st.sampled_from("abc"), st.integers(0, 6)
observations = st.lists(st.tuples(keys, cities, days), min_size=1, max_size=14)


def day(number: int) -> datetime:
    return EPOCH + timedelta(days=number)


@lru_cache(maxsize=1)
def memory() -> Any:
    connection = duckdb.connect()
    connection.execute("attach ':memory:' as lake; create schema lake.silver; set threads = 1")
    return connection


@dataclass
class Table:
    """A snapshot's table, changed the way a publish changes it."""

    updated_at: str = "seen_at"
    deduplicate: str = ""
    deletions: str = "keep"
    loads: int = 0
    connection: Any = field(default_factory=lambda: memory().cursor())

    def __post_init__(self) -> None:
        self.empty()

    def empty(self) -> None:
        more = "valid_from timestamp, valid_to timestamp, is_current boolean"
        self.connection.execute(f"create or replace table {NAME} (id integer, city varchar, seen_at timestamp, {more})")

    def load(self, rows: list[tuple[int, str, int]]) -> int:
        """Apply one step; how many rows it writes."""
        self.loads += 1
        order = order_terms(self.deduplicate) if self.deduplicate else ()
        asset = Asset(
            "silver.c", "silver", "c", "sql", "c.sql", materialize="snapshot", unique_key=("id",),
            updated_at=self.updated_at, deduplicate=self.deduplicate, order=order, deletions=self.deletions,
        )  # fmt: skip
        existing = {name: kind for name, kind, *_ in self.connection.execute(f"describe {NAME}").fetchall()}
        session = Session(self.connection, "testing")
        work: Any = SimpleNamespace(
            asset=asset, session=session, existing=existing, incremental=True, started_at=day(100 + self.loads)
        )
        values = ", ".join(f"({i}, '{city}', timestamp '{day(n)}')" for i, city, n in rows) or "(null, null, null)"
        select = (
            f"select id::integer as id, city, seen_at::timestamp as seen_at from (values {values}) t(id, city, seen_at)"
        )
        made = history.history(work, f"{select} where id is not null", COLUMNS)
        self.connection.execute(f"create or replace temp table delta as {made}")
        self.connection.execute(f"delete from {NAME} where id in (select id from delta)")
        self.connection.execute(f"insert into {NAME} by name select * from delta")
        return int(session.value("select count(*) from delta"))

    def states(self) -> list[tuple[Any, ...]]:
        shown = "id, city, valid_from, valid_to, is_current"
        return self.connection.execute(f"select {shown} from {NAME} order by id, valid_from, city").fetchall()


def folded(rows: list[tuple[int, str, int]]) -> list[tuple[Any, ...]]:
    found = []
    for key in sorted({row[0] for row in rows}):
        states = sorted({(day(n), city) for i, city, n in rows if i == key})
        ends = [at for at, _ in states[1:]] + [None]
        found += [(key, city, at, end, end is None) for (at, city), end in zip(states, ends, strict=True)]
    return found


@settings(max_examples=TRIALS, deadline=None)
@given(observations, st.lists(st.integers(0, 14), max_size=4), st.booleans())
def test_any_order_and_split_gives_the_same_history(rows, cuts, ordered):
    table = Table(deduplicate="city desc" if ordered else "")
    best: dict[tuple[int, int], str] = {}
    for i, city, n in rows:
        best[i, n] = max(best.get((i, n), ""), city) if ordered else best.get((i, n), city)
    # Without an order two states of one moment are a mistake, which the gate of the key stops: none of them here.
    told = rows if ordered else [(i, best[i, n], n) for i, _, n in rows]
    places = sorted({0, len(told), *(cut for cut in cuts if cut < len(told))})
    for start, end in pairwise(places):
        table.load(told[start:end])
    once = [(i, city, n) for (i, n), city in best.items()]
    assert table.states() == folded(once)
    assert table.load(told[:3]) == 0, "what is known writes nothing"
    table.empty()
    table.load(told)
    assert table.states() == folded(once), "a rebuild"


sources = st.lists(st.dictionaries(keys, st.tuples(cities, st.booleans()), max_size=3), min_size=1, max_size=6)


@settings(max_examples=TRIALS, deadline=None)
@given(sources, st.booleans())
def test_with_deletions_closed_the_current_rows_are_the_source_and_states_never_overlap(loads, timed):
    table = Table(updated_at="seen_at" if timed else "", deletions="close")
    clock, said = 0, dict[int, tuple[str, int]]()
    for number, source in enumerate(loads):
        for key, (city, touched) in source.items():
            if key not in said or said[key][0] != city or (touched and not timed):
                clock += 1
                said[key] = (city, clock if timed else 0)
        now = [(key, *said[key]) for key in source]
        before = table.states()
        table.load(now)
        current = {row[0]: row[1] for row in table.states() if row[4]}
        assert current == {key: said[key][0] for key in source}
        assert table.load(now) == 0, (number, "nothing happened")
        for key in range(3):
            mine = [row for row in table.states() if row[0] == key]
            for one, after in pairwise(mine):
                assert one[3] is not None and one[2] <= one[3] <= after[2], mine
            assert sum(row[4] for row in mine) <= 1
        kept = {row[:3] for row in table.states()}
        assert {row[:3] for row in before} <= kept, "no state is ever lost"
