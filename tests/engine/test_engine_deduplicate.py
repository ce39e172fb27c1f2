"""Keeping the first row of each key: the quick way gives exactly the rows of the plain window."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratatouille.engine import deduplicate
from ratatouille.lake import Session
from ratatouille.project.records import Asset
from ratatouille.project.sidecar import order_terms

duckdb = pytest.importorskip("duckdb")
KEY = st.one_of(st.none(), st.integers(0, 4))
ROW = st.tuples(KEY, KEY, st.one_of(st.none(), st.integers(0, 3)), st.integers(0, 1000))


def asset(order: str, key: tuple[str, ...]) -> Asset:
    return Asset("silver.x", "silver", "x", "sql", "x.sql", unique_key=key, deduplicate=order, order=order_terms(order))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, max_size=40), two=st.booleans())
def test_the_quick_way_keeps_what_the_window_keeps(rows, two):
    key = ("k", "l") if two else ("k",)
    order = "o desc nulls last, abs(v)"
    with duckdb.connect() as connection:
        connection.execute("create table t (k integer, l integer, o integer, v integer)")
        if rows:
            connection.executemany("insert into t values (?, ?, ?, ?)", rows)
        session = Session(connection, "test")
        quick = deduplicate.first_of_each_key(session, asset(order, key), "select * from t", 10**9)
        slow = deduplicate._by_window(asset(order, key), "select * from t")
        columns = "k, l, o, abs(v)"  # rows that tie in all of these may differ in nothing else
        found = [session.rows(f"select {columns} from ({query}) order by all") for query in (quick, slow)]
        # With a tie on key and order either row may win; what is compared is then the key and the order alone.
        told = [[(*row[: len(key)], row[2], row[3]) for row in rows_] for rows_ in found]
    assert sorted(map(str, told[0])) == sorted(map(str, told[1]))


def test_many_rows_take_the_quick_way(shop):
    shop.write(
        {
            "pipelines/bronze/raw.sql": "select i % 150000 as id, i as at_ms from range(200000) t(i)",
            "pipelines/silver/last.sql": "select * from {{ ref('bronze.raw') }}",
            "pipelines/silver/last.yaml": "materialize: merge\nunique_key: id\ndeduplicate: at_ms desc",
        }
    )
    shop.run()
    assert shop.rows("select count(*), count(distinct id), sum(at_ms) from silver.last") == [
        (150000, 150000, sum(range(50000, 200000)))
    ]


def test_order_terms_are_told_apart():
    terms = order_terms("a desc, coalesce(b, 'x, y', a) nulls last")
    assert [term.sql for term in terms] == ["a", "COALESCE(b, 'x, y', a)"]
    assert [term.columns for term in terms] == [("a",), ("a", "b")]


@pytest.mark.parametrize("order", ["a desc; drop table x", "a desc nulls", "", "a limit 1)", "a limit 1"])
def test_what_is_no_order_is_refused(order):
    with pytest.raises(ValueError):
        order_terms(order)
