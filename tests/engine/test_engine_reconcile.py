"""`deletions: remove`: a merge whose query gives all rows. It ends as a rebuild would, by as few changes as it takes."""

from __future__ import annotations

import pytest

FILES = {
    "pipelines/bronze/people.sql": "select * from {{ source('landing/people/*.csv') }}",
    "pipelines/bronze/people.yaml": "materialize: append\nsources:\n  landing/people/*.csv: {columns: {id: integer, city: varchar, tags: 'integer[]'}}",
    "pipelines/silver/people.sql": "select id, city, tags from {{ ref('bronze.people') }}",
    "pipelines/silver/people.yaml": "materialize: merge\nunique_key: id\ndeletions: remove\ncolumns: {city: {checks: [not_null]}}",
    "pipelines/gold/log.sql": "select id, city, _change from {{ changes('silver.people') }}",
    "pipelines/gold/log.yaml": "materialize: append",
}
FIRST = "id,city,tags\n1,Rome,[1]\n2,Oslo,\n3,,[]\n".replace("3,,[]", "3,Nice,[]")


def test_new_changed_and_withdrawn_rows_are_written_and_no_other(shop) -> None:
    shop.write({**FILES, "landing/people/a.csv": FIRST})
    assert shop.run().status == "done"
    second = "id,city,tags\n1,Rome,[1]\n2,Bergen,\n4,Lyon,[2]\n"
    step = shop.write({"landing/people/a.csv": second}).run().step("silver.people")
    assert (step.status, step.mode, step.rows_in, step.rows_written, step.rows_total) == (
        "built",
        "incremental",
        3,
        2,
        3,
    )
    assert shop.rows("from silver.people order by id") == [(1, "Rome", [1]), (2, "Bergen", None), (4, "Lyon", [2])]
    assert shop.rows("select id, city, _change from gold.log where id <> 1 and not (_change = 'insert' and id in (2, 3)) order by id") == [
        (2, "Bergen", "update"), (3, "Nice", "delete"), (4, "Lyon", "insert"),
    ]  # fmt: skip
    # The same rows in another file and order: nothing is written, and what is below stays fresh.
    again = shop.write({"landing/people/a.csv": "id,city,tags\n4,Lyon,[2]\n2,Bergen,\n1,Rome,[1]\n"}).run()
    assert again.step("silver.people").rows_written == 0
    assert [step.asset for step in again.steps if step.status == "built"] == ["bronze.people", "silver.people"]
    # All rows go, and come again.
    gone = shop.write({"landing/people/a.csv": "id,city,tags\n"}).run().step("silver.people")
    assert (gone.rows_written, gone.rows_total) == (0, 0)
    assert shop.write({"landing/people/a.csv": FIRST}).run().step("silver.people").rows_total == 3
    assert not list(shop.root.glob(".rat/data/silver/people/*gone*"))


def test_a_failing_gate_keeps_the_withdrawn_rows_in_sight(shop) -> None:
    shop.write({**FILES, "landing/people/a.csv": FIRST}).run()
    step = shop.write({"landing/people/a.csv": "id,city,tags\n2,,\n"}).run().step("silver.people")
    assert step.status == "failed" and shop.value("select count(*) from silver.people") == 3
    assert not list(shop.root.glob(".rat/data/silver/people/*gone*"))


@pytest.mark.parametrize(("rows", "check"), [("1,Rome,\n1,Oslo,\n", "id_unique"), (",Rome,\n1,Oslo,\n", "id_not_null")])
def test_a_key_that_comes_twice_or_not_at_all_is_refused(shop, rows: str, check: str) -> None:
    shop.write({**FILES, "landing/people/a.csv": FIRST}).run()
    step = shop.write({"landing/people/a.csv": "id,city,tags\n" + rows}).run().step("silver.people")
    assert step.status == "failed" and check in [one.name for one in step.checks if not one.passed], step


def test_a_column_that_is_new_is_written_where_it_says_something(shop) -> None:
    shop.write(
        {
            **FILES,
            "landing/people/a.csv": FIRST,
            "pipelines/silver/people.yaml": FILES["pipelines/silver/people.yaml"] + "\non_change: forward",
        }
    )
    shop.run()
    more = "select id, city, tags, case when id = 2 then 'north' end as zone from {{ ref('bronze.people') }}"
    step = shop.write({"pipelines/silver/people.sql": more}).step("silver.people")
    assert (step.mode, step.rows_written) == ("incremental", 1), step
    assert shop.rows("select id, zone from silver.people order by id") == [(1, None), (2, "north"), (3, None)]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select id from {{ ref('bronze.people') }} {% if is_incremental() %} where id > 1 {% endif %}", "the query gives all rows, or what is only old"),
        ("select id from {{ source('landing/people/*.csv') }}", "a landing file is read once"),
    ],
)  # fmt: skip
def test_a_query_that_does_not_give_all_rows_is_refused(shop, query: str, said: str) -> None:
    files = {
        **FILES,
        "pipelines/silver/people.sql": query,
        "pipelines/silver/people.yaml": "materialize: merge\nunique_key: id\ndeletions: remove",
    }
    shop.write({**files, "landing/people/a.csv": FIRST})
    with pytest.raises(Exception, match=said):
        shop.run("silver.people")
