"""Rows of the quarantine: replayed through the gates, or discarded with a reason; both can be taken back."""

from __future__ import annotations

import pytest

from ratatouille.engine import look
from ratatouille.engine.holds import bench_on, roll_back
from ratatouille.errors import GateFailed, RequestError
from ratatouille.handle import Workspace
from ratatouille.project import load

STORES = "pipelines/bronze/stores.csv"
RAW = "pipelines/bronze/orders.sql"
ORDERS = "pipelines/silver/orders.sql"
SIDE = "pipelines/silver/orders.yaml"
FILES = {
    "workspace.yaml": "name: shop\nresources: {memory: 1GB, threads: 2}\n",
    STORES: "store\na\n",
    RAW: "select * from (values (1, 'a', 5, [1]), (2, 'b', 6, [2, 3]), (3, 'b', -7, null), (4, 'c', 8, []))"
    " t(id, store, amount, parts)",
    ORDERS: "select *, {'n': parts, 't': timestamp '2026-01-01 10:00'} as more from {{ ref('bronze.orders') }}",
    SIDE: """
materialize: merge
unique_key: id
on_fail: quarantine
max_quarantine: 0.9
columns:
  store: {checks: [{relationships: {to: bronze.stores, column: store}}]}
  amount: {checks: [positive]}
""",
}
KEPT = "select (row ->> 'id')::int as id, checks from rat.quarantine order by 1"
TABLE = "select id, store, parts from silver.orders order by id"


def test_what_passes_now_joins_and_the_rest_stays_with_the_reason_of_now(shop):
    shop.write(FILES).run()
    assert shop.rows(KEPT) == [
        (2, "store_relationships"),
        (3, "store_relationships, amount_positive"),
        (4, "store_relationships"),
    ]
    first = shop.rows("select run_id, quarantined_at from rat.quarantine where row ->> 'id' = '3'")
    shop.write({STORES: "store\na\nb\n"}).run("bronze.stores")
    done = Workspace(shop.root).replay("silver.orders")
    assert (done["joined"], done["stayed"]) == (1, {"amount_positive": 1, "store_relationships": 1})
    assert shop.rows(TABLE) == [(1, "a", [1]), (2, "b", [2, 3])], "lists and structs come back whole"
    assert shop.value("select more.t from silver.orders where id = 2").hour == 10
    assert shop.rows(KEPT) == [(3, "amount_positive"), (4, "store_relationships")]
    assert shop.rows("select run_id, quarantined_at from rat.quarantine where row ->> 'id' = '3'") == first
    head = shop.entries("silver.orders")[0]
    assert (head.action, head.rows_in, head.rows_written, head.rows_total, head.rows_quarantined) == (
        "replay",
        3,
        1,
        2,
        2,
    )
    again = Workspace(shop.root).replay("silver.orders")
    assert (again["joined"], again["version"]) == (0, None), "nothing passes, so nothing is published"
    before = head.base_version
    with bench_on(load(shop.root)) as bench:
        roll_back(bench, "silver.orders", before)
    assert shop.rows(TABLE) == [(1, "a", [1])]
    assert [id for id, _ in shop.rows(KEPT)] == [2, 3, 4], "a rollback brings the quarantine back too"
    with pytest.raises(RequestError, match="was rolled back"):
        Workspace(shop.root).replay("silver.orders")


def test_discarded_rows_are_gone_with_a_reason_and_can_be_brought_back(shop):
    shop.write(FILES).run()
    workspace = Workspace(shop.root)
    with pytest.raises(RequestError, match="needs a reason"):
        workspace.discard("silver.orders", " ")
    with pytest.raises(RequestError, match="by nothing"):
        workspace.discard("silver.orders", "x", check="nothing")
    gone = workspace.discard("silver.orders", "test orders", check="amount_positive")
    assert gone["rows"] == 1
    assert [id for id, _ in shop.rows(KEPT)] == [2, 4]
    head, before = shop.entries("silver.orders")
    assert (head.action, head.note) == ("discard", "1 row discarded: test orders")
    assert (head.data_version, head.rows_total) == (before.version, before.rows_total), "what reads it stays fresh"
    assert not look.plan_of(load(shop.root), look.Request()).to_build
    with bench_on(load(shop.root)) as bench:
        roll_back(bench, "silver.orders", before.version)
    assert [id for id, _ in shop.rows(KEPT)] == [2, 3, 4]
    with pytest.raises(RequestError, match="no asset called"):
        workspace.replay("silver.order")


def test_a_row_whose_key_is_there_stays_and_a_gate_of_the_whole_stops_all(shop):
    shop.write(FILES).run()
    shop.write({RAW: "select * from (values (2, 'a', 60, [9])) t(id, store, amount, parts)"}).run()
    assert shop.rows(TABLE) == [(1, "a", [1]), (2, "a", [9])]
    side = FILES[SIDE] + "on_change: forward\nchecks: {few: {check: row_count, max: 2}}\n"
    shop.write({SIDE: side, STORES: "store\na\nb\nc\n"}).run()
    with pytest.raises(GateFailed, match="few failed for 3 rows"):
        Workspace(shop.root).replay("silver.orders")
    assert len(shop.rows(KEPT)) == 3
    shop.write({SIDE: side.replace("max: 2", "max: 3")}).run()
    done = Workspace(shop.root).replay("silver.orders")
    assert (done["joined"], done["stayed"]) == (1, {"amount_positive": 1, "unique_key": 1})
    assert shop.rows(TABLE) == [(1, "a", [1]), (2, "a", [9]), (4, "c", [])], "the newer row is not undone"


def test_a_replayed_row_has_every_digit_and_any_name(shop):
    wide = "1234567890123456789012345678.9012345678::decimal(38, 10)"
    row = (
        f'{wide} as d, {{\'DECIMAL(38,1)\': {wide}, \'x\': 1.5::decimal(4, 2)}} as s, [{wide}] as l, 7 as "it\'s ""n"""'
    )
    gold = {"pipelines/gold/wide.sql": f"select 1 as id, {row} union all select -1 as id, {row}"}
    side = "materialize: append\non_fail: quarantine\nmax_quarantine: 0.9\ncolumns: {id: {checks: [CHECK]}}\n"
    shop.write(gold | {"pipelines/gold/wide.yaml": side.replace("CHECK", "positive")}).run()
    kept = shop.value("select row from rat.quarantine")
    assert '"x":1.5' in kept, "what a double holds stays a number"
    shop.write({"pipelines/gold/wide.yaml": side.replace("CHECK", "not_null")})
    assert Workspace(shop.root).replay("gold.wide")["joined"] == 1
    assert shop.rows("select count(*), count(distinct t) from (select columns(* exclude id) from gold.wide) t") == [
        (2, 1)
    ]
