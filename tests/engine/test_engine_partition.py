"""materialize: partition. What is asked for is replaced and nothing else; a backfill goes on where it was."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

import pytest

from ratatouille.errors import RequestError

SALES = "pipelines/bronze/sales.sql"
DAILY = "pipelines/gold/daily.sql"
SIDE = "pipelines/gold/daily.yaml"
QUERY = "select day, sum(amount)::bigint as total from {{ ref('bronze.sales') }} group by day"
KILLED = """
import os, sys
from pathlib import Path
from ratatouille.engine import Request, open_workbench, run

def kill_after_three(event):
    if event.stage == "publish" and event.text.startswith("3 of 5"):
        os.kill(os.getpid(), 9)

with open_workbench(Path(sys.argv[1]), write=True) as bench:
    run(bench, Request(("gold.daily",), partitions=("2026-03-01..",)), kill_after_three)
"""
PARTITION = "materialize: partition\npartition_by: day\n"


def sales(amount: int, days: int = 5) -> dict[str, str]:
    made = f"select date '2026-03-01' + i::int as day, {amount}::bigint as amount from range({days}) t(i)"
    return {SALES: made}


def totals(shop):
    return dict(shop.rows("select day(day), total from gold.daily order by day"))


def test_only_the_partitions_that_are_asked_for_are_replaced_and_once(shop):
    shop.write(sales(1) | {DAILY: QUERY, SIDE: PARTITION}).run()
    assert totals(shop) == dict.fromkeys(range(1, 6), 1)
    shop.write(sales(7, days=4))
    shop.run("bronze.sales")
    step = shop.step("gold.daily", partitions=("2026-03-02..2026-03-03", "2026-03-05"))
    assert step.partitions == ("2026-03-02", "2026-03-03", "2026-03-05")
    assert (step.mode, step.rows_written, step.rows_total) == ("partition", 2, 4)
    assert totals(shop) == {1: 1, 2: 7, 3: 7, 4: 1}, "the fifth is gone: the query gives none of it any more"
    entries = shop.entries("gold.daily")
    assert [list(e.partitions) for e in entries] == [["2026-03-05"], ["2026-03-03"], ["2026-03-02"], []]
    again = shop.step("gold.daily", partitions=("..2026-03-03",))
    assert again.partitions == ("2026-03-01",), "the others stand as they would be built"
    assert shop.step("gold.daily", partitions=("2026-03-02",)).status == "skipped"
    assert shop.step("gold.daily", partitions=("2026-03-02",), force=True).partitions == ("2026-03-02",)
    (planned,) = shop.plan("gold.daily").to_build
    assert (planned.rule, planned.mode) == ("inputs changed", "full"), "some are built, so the whole stays stale"
    assert shop.step("gold.daily").mode == "full"
    assert totals(shop) == dict.fromkeys(range(1, 5), 7)
    assert shop.step("gold.daily").status == "skipped"
    assert shop.step("gold.daily", partitions=("2026-03-01..",)).status == "skipped", "a whole build covers them"


def test_a_gate_stops_the_partition_that_fails_and_those_before_it_stand(shop):
    side = PARTITION + "columns: {total: {checks: [{range: {max: 10}}]}}\nchecks: {few: {check: row_count, max: 5}}"
    shop.write(sales(1) | {DAILY: QUERY, SIDE: side}).run()
    shop.write({SALES: "select date '2026-03-01' + i::int as day, i * 6 as amount from range(5) t(i)"})
    shop.run("bronze.sales")
    failed = shop.step("gold.daily", partitions=("2026-03-01..",))
    assert "total_range failed for 1 of 1 rows" in failed.error["what"]
    assert totals(shop) == {1: 0, 2: 6, 3: 1, 4: 1, 5: 1}
    again = shop.step("gold.daily", partitions=("2026-03-02",), force=True)
    assert {c.name: c.rows for c in again.checks}["few"] == 5, "gates of the table see all of it"


def test_a_killed_backfill_goes_on_where_it_was(shop):
    shop.write(sales(1) | {DAILY: QUERY, SIDE: PARTITION}).run()
    shop.write(sales(2)).run("bronze.sales")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(shop.root)], check=False)
    assert killed.returncode == -9
    assert totals(shop) == {1: 2, 2: 2, 3: 2, 4: 1, 5: 1}
    step = shop.step("gold.daily", partitions=("2026-03-01..",))
    assert step.partitions == ("2026-03-04", "2026-03-05")
    assert "3 built before" in step.reason
    assert totals(shop) == dict.fromkeys(range(1, 6), 2)


def test_a_later_run_replaces_the_partitions_that_its_query_gives(shop):
    query = QUERY.replace(
        "group by", "{% if is_incremental() %} where day >= {{ watermark('day') }} {% endif %} group by"
    )
    quarantine = "on_fail: quarantine\nmax_quarantine: 0.9\ncolumns: {amount: {checks: [positive]}}"
    rows = query.replace("day, sum(amount)::bigint as total", "day, amount").replace("group by day", "")
    shop.write(sales(1, days=2) | {DAILY: query, SIDE: PARTITION})
    shop.write({"pipelines/gold/rows.sql": rows, "pipelines/gold/rows.yaml": PARTITION + quarantine})
    shop.run()
    shop.write({SALES: "select date '2026-03-02' + i::int as day, i * 5 as amount from range(2) t(i)"})
    result = shop.run()
    assert (result.step("gold.daily").mode, totals(shop)) == ("incremental", {1: 1, 2: 0, 3: 5})
    assert result.step("gold.rows").error is None, result.step("gold.rows")
    kept = "select row ->> 'day' from rat.quarantine"
    assert (result.step("gold.rows").rows_quarantined, shop.rows(kept)) == (1, [("2026-03-02",)])
    shop.write({SALES: "select date '2026-03-02' + i::int as day, 3::bigint as amount from range(2) t(i)"})
    shop.run("bronze.sales")
    shop.run("gold.rows", partitions=("2026-03-02",))
    assert shop.rows(kept) == [], "what is replaced takes its quarantine with it"


def test_a_table_that_was_only_built_in_part_says_so_and_python_is_told_the_partition(shop):
    python = "def build(context):\n    day = context.partition or '2026-03-01'\n"
    python += "    return context.query(f\"select date '{day}' as day, 'fr' as country, 1 as n\")\n"
    side = (
        "materialize: partition\npartition_by: [day, country]\ncolumns: {day: {type: date}}\nversion: {files: '*.yaml'}"
    )
    shop.write({"pipelines/gold/calls.py": python, "pipelines/gold/calls.yaml": side})
    step = shop.step("gold.calls", partitions=("2026-03-05..2026-03-07",))
    assert step.partitions == ("2026-03-05", "2026-03-06", "2026-03-07")
    assert shop.rows("select day from gold.calls order by 1") == [(date(2026, 3, n),) for n in (5, 6, 7)]
    (planned,) = shop.plan("gold.calls").to_build
    assert (planned.rule, planned.mode) == ("incomplete", "full")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("2027-01-01", "has no partition in 2027-01-01"),
        ("soon", "'soon' is no value of day"),
        ("..", "names no partition"),
    ],
)
def test_what_is_no_partition_is_said(shop, asked, said):
    shop.write(sales(1) | {DAILY: QUERY, SIDE: PARTITION})
    shop.run("bronze.sales")
    assert said in shop.step("gold.daily", partitions=(asked,)).error["what"]
    with pytest.raises(RequestError, match="none was named"):
        shop.run("bronze.sales", partitions=(asked,))


def test_partitions_that_read_alike_are_two_and_rows_without_one_are_said(shop):
    rows = "select * from (values ('a/b', 'c', {0}), ('a', 'b/c', {0})) t(area, city, n)"
    side = {SIDE: "materialize: partition\npartition_by: [area, city]\n"}
    shop.write({DAILY: rows.format(1)} | side).run()
    step = shop.write({DAILY: rows.format(2)}).step("gold.daily", partitions=("a..z",))
    assert step.partitions == ("a/b%2Fc", "a%2Fb/c")
    assert shop.rows("select n from gold.daily") == [(2,), (2,)]
    shop.write({DAILY: rows.format(3).replace("'b/c'", "null")})
    failed = shop.step("gold.daily", partitions=("a",))
    assert failed.error["what"] == "gold.daily: there are rows without a city, so in no partition"
    assert shop.rows("select n from gold.daily") == [(2,), (2,)]


def test_a_partition_that_is_built_again_takes_its_rows_in_the_quarantine_along_whatever_its_type(shop):
    rows = 'select * from (values (1.50, 1), (1.50, -1)) t(price, "it\'s ""n""")'
    side = "materialize: partition\npartition_by: price\non_fail: quarantine\nmax_quarantine: 0.9\n"
    side += "columns: {'it''s \"n\"': {checks: [positive]}}\n"
    shop.write({DAILY: rows + " where not {{ is_incremental() }} or true", SIDE: side}).run()
    assert shop.step("gold.daily", partitions=("1.5",), force=True).rows_quarantined == 1
    assert shop.value("select count(*) from rat.quarantine") == 1


PARTS = """
def build(context):
    rows = context.ref("bronze.sales")
    rows.create_view("rows_here", replace=True)
    days = "select distinct day from rows_here"
    if context.is_incremental():
        days = context.changes("bronze.sales").aggregate("day").fetchall()
        there = {day for (day,) in rows.aggregate("day").fetchall()}
        context.empty(*(str(day) for (day,) in days if day not in there))
        days = ", ".join(f"date '{day}'" for (day,) in days) or "null"
    yield context.query(f"from rows_here where day in ({days}) and day < date '2026-03-03'")
    yield context.query(f"from rows_here where day in ({days}) and day >= date '2026-03-03'")
"""


def test_batches_lie_in_their_partitions_at_once_and_code_may_say_which_are_empty_now(shop, monkeypatch):
    python = {"pipelines/gold/parts.py": PARTS, "pipelines/gold/parts.yaml": PARTITION + "sort_by: amount\n"}
    shop.write(sales(1) | python).run()
    shop.write(sales(1, days=4)).run("bronze.sales")
    with monkeypatch.context() as patch:
        patch.setattr("ratatouille.engine.build.modes.shaped", None)  # a second staging would call it
        step = shop.step("gold.parts")
    assert step.rows_total == 4 and step.rows_written == 0
    assert shop.rows("select distinct day(day) from gold.parts order by 1") == [(1,), (2,), (3,), (4,)]
    assert list(shop.entries("gold.parts")[0].partitions) == ["2026-03-05"]
    shop.write(sales(7, days=4)).run("bronze.sales")
    assert shop.step("gold.parts").rows_written == 4
    assert shop.rows("select distinct amount from gold.parts") == [(7,)]
    files = shop.rows("select count(*) from ducklake_table_info('lake') where table_name = 'parts' and file_count >= 4")
    assert files == [(1,)]


def test_only_partitions_can_be_emptied(shop):
    shop.write({"pipelines/gold/a.py": "def build(context):\n    context.empty('x')\n"})
    assert "only an asset with materialize: partition" in shop.step("gold.a").reason
