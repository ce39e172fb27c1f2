"""`deletions: remove`: a merge becomes what its query gives, by as few changes as it takes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratatouille.errors import RequestError
from ratatouille.project import load

GIVEN = "pipelines/bronze/given.sql"
FILES = {
    GIVEN: "select * from (values (1, 'a', 5), (2, 'b', null), (3, null, 7)) t(id, name, size)",
    "pipelines/silver/firms.sql": "select id, name, size from {{ ref('bronze.given') }}",
    "pipelines/silver/firms.yaml": "materialize: merge\nunique_key: id\ndeletions: remove\n",
    "pipelines/gold/seen.sql": "select id, name, _change as change from {{ changes('silver.firms') }}",
    "pipelines/gold/seen.yaml": "materialize: append\n",
}
TABLE = "select id, name, size from silver.firms order by id"


def gives(*rows: str) -> dict[str, str]:
    return {GIVEN: f"select id, name::varchar as name, size from (values {', '.join(rows)}) t(id, name, size)"}


def test_what_is_new_comes_what_differs_is_replaced_what_is_gone_goes_and_nothing_else_is_touched(shop):
    shop.write(FILES).run()
    step = shop.write(gives("(1, 'a', 5)", "(2, 'b', 8)", "(4, 'd', 1)")).run().step("silver.firms")
    assert (step.status, step.mode, step.rows_in, step.rows_written) == ("built", "incremental", 3, 2)
    assert shop.rows(TABLE) == [(1, "a", 5), (2, "b", 8), (4, "d", 1)]
    told = shop.rows("select id, change from gold.seen order by all")
    assert {id for id, change in told if "insert" not in change} == {2, 3}, "who reads changes() sees no more than that"
    assert 1 not in {id for id, change in told if change != "insert"}

    same = shop.write(gives("(4, 'd', 1)", "(2, 'b', 8)", "(1, 'a', 5)")).run().step("silver.firms")
    assert same.rows_written == 0 and shop.rows(TABLE) == [(1, "a", 5), (2, "b", 8), (4, "d", 1)]
    shop.write({GIVEN: "select 1 as id, 'a' as name, 5 as size where false"}).run()
    assert shop.rows(TABLE) == []


def test_a_gate_sees_the_table_as_it_would_be_and_keeps_it_out(shop):
    shop.write(FILES).run()
    shop.write(
        {
            "pipelines/silver/firms.yaml": FILES["pipelines/silver/firms.yaml"]
            + "checks:\n  enough: {check: row_count, min: 3}\n"
        }
    )
    shop.run()
    step = shop.write(gives("(1, 'x', 5)", "(2, 'b', null)")).run().step("silver.firms")
    assert step.status == "failed" and len(shop.rows(TABLE)) == 3 and shop.rows(TABLE)[0] == (1, "a", 5)


def test_a_key_that_comes_twice_or_is_null_is_refused(shop):
    shop.write(FILES).run()
    for rows in (("(1, 'a', 5)", "(1, 'b', 5)"), ("(1, 'a', 5)", "(null, 'b', 5)")):
        assert shop.write(gives(*rows)).run().step("silver.firms").status == "failed", rows
        assert len(shop.rows(TABLE)) == 3


@pytest.mark.parametrize(
    ("query", "side"),
    [
        ("select id, name, size from {{ ref('bronze.given') }} {% if is_incremental() %} where id > 1 {% endif %}", ""),
        (FILES["pipelines/silver/firms.sql"], "deduplicate: size desc\n"),
        (FILES["pipelines/silver/firms.sql"], "on_fail: quarantine\n"),
        ("select * from {{ source('landing/*.csv') }}", "sources: {landing/*.csv: {columns: {id: integer}}}\n"),
    ],
)
def test_what_would_contradict_it_is_refused(shop, query, side):
    shop.write(FILES | {"pipelines/silver/firms.sql": query})
    shop.write({"pipelines/silver/firms.yaml": FILES["pipelines/silver/firms.yaml"] + side})
    assert "deletions: remove" in " ".join(str(error) for error in load(shop.root).errors)
    with pytest.raises(RequestError):
        shop.run("silver.firms")


ROWS = st.dictionaries(st.integers(0, 5), st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 2)), max_size=6)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, min_size=2, max_size=4))
def test_any_sequence_of_states_ends_as_the_last_one(shop, states):
    shop.write(FILES)
    for state in states:
        rows = [f"({id}, {'null' if n is None else repr(n)}, {size})" for id, (n, size) in state.items()]
        empty = {GIVEN: "select 1 as id, 'a' as name, 1 as size where false"}
        shop.write(gives(*rows) if rows else empty).run()
        assert shop.rows(TABLE) == sorted((id, n, size) for id, (n, size) in state.items())


@pytest.mark.parametrize(
    ("key", "few"),
    [
        ("id", 20_000),  # by their values
        ("id", 1),  # too many for that
        ("id::varchar || '''' as id", 20_000),
        ("id::double as id", 20_000),
    ],
)
def test_whatever_its_keys_are_the_same_rows_are_written(shop, monkeypatch, key, few):
    monkeypatch.setattr("ratatouille.engine.reconcile._FEW", few)
    query = {"pipelines/silver/firms.sql": f"select {key}, name, size from {{{{ ref('bronze.given') }}}}"}
    shop.write(FILES | query).run()
    step = shop.write(gives("(1, 'a', 5)", "(2, 'x', 8)", "(4, 'd', 1)", "(5, 'e', 1)")).run().step("silver.firms")
    assert (step.status, step.rows_written) == ("built", 3), step.error
    assert [row[1:] for row in shop.rows(TABLE)] == [("a", 5), ("x", 8), ("d", 1), ("e", 1)]
