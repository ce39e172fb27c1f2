"""materialize: snapshot. Every state of a row with its times: any order, any split, deletions, rebuilds."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import pytest

ORDERS = """
select id, city, updated_at, _loaded_at from {{ ref('bronze.customers') }}
{% if is_incremental() %} where _loaded_at > {{ watermark('_loaded_at') }} {% endif %}
"""
LANDED = {
    "pipelines/bronze/customers.sql": "select * from {{ source('landing/*.csv') }}",
    "pipelines/bronze/customers.yaml": """
materialize: append
sources: {"landing/*.csv": {columns: {id: bigint, city: varchar, updated_at: timestamp}}}
""",
    "pipelines/silver/customers.sql": ORDERS,
    "pipelines/silver/customers.yaml": "materialize: snapshot\nunique_key: id\nupdated_at: updated_at",
}
STATES = "select id, city, valid_from, valid_to, is_current from silver.customers order by id, valid_from"
CURRENT_TWICE = "select id from silver.customers where is_current group by id having count(*) > 1"
DAY = datetime(2026, 1, 1)  # noqa: DTZ001  as the table has it


def day(number: int) -> datetime:
    return DAY + timedelta(days=number)


def landed(rows) -> str:
    return "id,city,updated_at\n" + "".join(f"{i},{city},{at}\n" for i, city, at in rows)


def folded(rows):
    """The history of observations, as a person would write it down: the reference."""
    found = []
    for key in sorted({row[0] for row in rows}):
        states = sorted({(at, city) for i, city, at in rows if i == key})
        ends = [at for at, _ in states[1:]] + [None]
        found += [(key, city, at, end, end is None) for (at, city), end in zip(states, ends, strict=True)]
    return found


def test_late_and_out_of_order_rows_find_their_place_and_a_rebuild_gives_the_same(shop):
    chance = random.Random(7)
    rows = [(i, chance.choice("abc"), day(n)) for i in range(4) for n in chance.sample(range(30), 6)]
    shuffled = chance.sample(rows, len(rows))
    shop.write(LANDED)
    seen = []
    for number, start in enumerate(range(0, len(shuffled), 6)):
        batch = shuffled[start : start + 6] + shuffled[:1]  # a row that comes again is the same observation
        seen += batch
        shop.write({f"landing/{number}.csv": landed(batch)})
        step = shop.step("silver.customers", "+silver.customers")
        assert step.status == "built", step.error
        assert shop.rows(STATES) == folded(seen)
    assert step.mode == "incremental"
    assert step.rows_total == len(rows)
    assert shop.rows(CURRENT_TWICE) == []
    shop.run("silver.customers", force=True)
    assert shop.rows(STATES) == folded(rows), "built at once as step by step"
    shop.write({"pipelines/bronze/other.sql": "select 1 as a"})
    assert shop.step("silver.customers", again=True).rows_written == 0, "nothing new writes nothing"


def test_two_states_of_one_moment_block_unless_an_order_says_which_is_right(shop):
    shop.write(LANDED | {"landing/1.csv": landed([(1, "a", day(1)), (2, "b", day(1))])})
    shop.run()
    shop.write({"landing/2.csv": landed([(1, "z", day(1))])})
    refused = shop.step("silver.customers", "+silver.customers")
    assert refused.status == "failed"
    assert "unique_key failed for 2 of 2 rows" in refused.error["what"]
    side = LANDED["pipelines/silver/customers.yaml"] + "\non_change: forward\ndeduplicate: city desc"
    shop.write({"pipelines/silver/customers.yaml": side})
    assert shop.step("silver.customers").status == "built"
    by_step = shop.rows(STATES)
    assert by_step == [(1, "z", day(1), None, True), (2, "b", day(1), None, True)]
    shop.run("silver.customers", force=True)
    assert shop.rows(STATES) == by_step


SOURCE = "pipelines/bronze/customers.sql"
NOW = {
    "pipelines/silver/customers.sql": "select * from {{ ref('bronze.customers') }}",
    "pipelines/silver/customers.yaml": "materialize: snapshot\nunique_key: id\nupdated_at: updated_at\ndeletions: close",
}


def now(*rows) -> dict[str, str]:
    listed = ", ".join(f"({i}, '{city}', timestamp '{at}')" for i, city, at in rows)
    return {SOURCE: f"select * from (values {listed}) t(id, city, updated_at)"}


def test_what_is_gone_is_closed_and_what_comes_back_is_open_again(shop):
    shop.write(NOW | now((1, "a", day(1)), (2, "b", day(1)))).run()
    first = shop.rows(STATES)
    shop.write(now((2, "b", day(1)))).run()
    (one, two) = shop.rows(STATES)
    gone_at = one[3]
    assert (one[:3], one[4], two) == (first[0][:3], False, first[1])
    assert gone_at > day(1)
    assert shop.step("silver.customers", again=True).rows_written == 0, "it is gone only once"
    shop.write(now((1, "a", day(1)), (2, "b", day(1)))).run()
    closed, again, two = shop.rows(STATES)
    assert closed == one
    assert (again[1], again[3], again[4]) == ("a", None, True)
    assert again[2] > gone_at, "from the run that saw it again"
    assert shop.step("silver.customers", again=True).rows_written == 0
    shop.write(now((1, "c", day(2)), (2, "b", day(1)))).run()  # a time before it was gone: it is so from now on
    cities = [(row[1], row[4]) for row in shop.rows(STATES)]
    assert cities == [("a", False), ("a", False), ("c", True), ("b", True)]
    assert shop.rows("select id from silver.customers where valid_to = TIMESTAMP '" + str(gone_at) + "'") == [(1,)]
    assert shop.rows(CURRENT_TWICE) == []


def test_without_a_time_a_change_counts_from_the_run_that_saw_it_and_a_rebuild_would_lose_it(shop):
    side = {"pipelines/silver/customers.yaml": "materialize: snapshot\nunique_key: id"}
    shop.write(NOW | side | now((1, "a", day(1)), (2, "b", day(1)))).run()
    shop.write(now((1, "c", day(1)), (2, "b", day(1))))
    step = shop.step("silver.customers", "+silver.customers")
    assert (step.rows_written, step.rows_total) == (2, 3)
    first, second, other = shop.rows(STATES)
    assert (first[1], first[3], second[1], second[2], other[4]) == ("a", second[2], "c", first[3], True)
    before = shop.rows(STATES)
    refused = shop.step("silver.customers", force=True)
    assert "would lose 3 states of its history" in refused.error["what"]
    assert "on_change: forward" in refused.error["next"]
    assert shop.rows(STATES) == before
    assert shop.step("silver.customers", force=True, accept_loss=True).rows_total == 2
    shop.run()
    assert shop.rows(CURRENT_TWICE) == []


def test_an_edited_snapshot_goes_forward_and_what_is_so_still_gets_the_value_of_a_new_column(shop):
    side = {"pipelines/silver/customers.yaml": "materialize: snapshot\nunique_key: id\non_change: forward"}
    shop.write(NOW | side | now((1, "a", day(1)), (2, "b", day(1)))).run()
    shop.write({"pipelines/silver/customers.sql": "select *, upper(city) as name from {{ ref('bronze.customers') }}"})
    (planned,) = shop.plan("silver.customers").to_build
    assert (planned.rule, planned.mode) == ("code changed", "incremental")
    assert "its rows stay" in planned.reason
    before = shop.rows(STATES)
    assert shop.step("silver.customers").status == "built"
    assert shop.rows(STATES) == before
    shop.write(now((1, "x", day(1)), (2, "b", day(1)))).run()
    assert shop.rows("select id, city, name, is_current from silver.customers order by 1, 4") == [
        (1, "a", "A", False),
        (1, "x", "X", True),
        (2, "b", "B", True),
    ]


def test_a_key_of_texts_and_a_time_with_a_zone(shop):
    rows = (
        "select * from (values ('x', 'f', {a}::timestamptz), ('y', null, '2026-01-01 00:00:00+02')) t(code, kind, at_)"
    )
    side = "materialize: snapshot\nunique_key: [code, kind]\nupdated_at: at_\ndeletions: close"
    good = rows.replace("null", "'g'")
    shop.write({"pipelines/silver/x.sql": good.format(a="'2026-01-01 00:00:00+01'"), "pipelines/silver/x.yaml": side})
    assert shop.step("silver.x").error is None
    shop.write({"pipelines/silver/x.yaml": side + "\non_change: forward"})
    shop.write({"pipelines/silver/x.sql": good.format(a="'2026-01-02 00:00:00+01'") + " where code = 'x'"})
    assert shop.step("silver.x").rows_written == 3
    found = shop.rows("select code, valid_from::varchar, is_current from silver.x order by code, valid_from")
    assert found == [
        ("x", "2025-12-31 23:00:00+00", False),
        ("x", "2026-01-01 23:00:00+00", True),
        ("y", "2025-12-31 22:00:00+00", False),
    ]


@pytest.mark.parametrize(
    ("sql", "side", "said"),
    [
        ("select 1 as id, 2 as valid_to", "unique_key: id", "snapshot adds one of that name"),
        ("select 1 as id, 'x' as t", "unique_key: id\nupdated_at: t", "neither a day nor a time"),
        ("select null::int as id", "unique_key: id", "id_not_null"),
    ],
)
def test_what_cannot_be_a_history_is_said(shop, sql, side, said):
    shop.write({"pipelines/silver/x.sql": sql, "pipelines/silver/x.yaml": f"materialize: snapshot\n{side}"})
    assert said in shop.step("silver.x").error["what"]
