"""The sales pipeline over its two days: nothing is lost, nothing is counted twice, and the shortcut equals the long way."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ratatouille import workspace
from ratatouille.engine import Request, RunResult, open_workbench, run

ROOT = Path(__file__).resolve().parents[2]
DAY_ONE = 4_501  # lines that the tills sent, the one that broke off included


def _tills() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sales_generator", ROOT / "pipelines" / "sales" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tills = _tills()


class Shop:
    """A copy of the root workspace with the sales pipeline alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.landing = root / "landing" / "sales"
        shutil.copy(ROOT / "workspace.yaml", root)
        shutil.copytree(ROOT / "pipelines" / "sales", root / "pipelines" / "sales")

    def receive(self, day: int) -> None:
        files = tills.first_day() if day == 1 else tills.second_day()
        tills.write(self.landing, files, anew=day == 2)

    def run(self, **wish: Any) -> RunResult:
        with open_workbench(self.root, write=True) as bench:
            return run(bench, Request(selectors=("pipeline:sales",), **wish))

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with open_workbench(self.root) as bench, bench.lake.session("asking") as session:
            return list(session.rows(sql))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def built(result: RunResult) -> list[str]:
    return [step.asset for step in result.steps if step.status == "built"]


def test_two_days(shop: Shop) -> None:
    shop.receive(1)
    first = shop.run()
    assert first.status == "done"
    bronze, silver = first.step("bronze.sales"), first.step("silver.sales")
    assert (bronze.rows_in, bronze.rows_written, bronze.rows_rejected) == (DAY_ONE, DAY_ONE - 1, 1)
    assert (silver.rows_in, silver.rows_written, silver.rows_quarantined) == (4_500, 4_494, 6)
    bad = {check.name: check.bad for check in silver.checks if check.bad}
    assert bad == {
        "quantity_positive": 3,
        "store_id_relationships": 2,
        "sale_id_not_null": 1,
        "unusually_large_sale": 1,
    }

    shop.receive(1)
    assert shop.run().status == "fresh"

    shop.receive(2)
    second = shop.run()
    assert second.status == "done"
    assert built(second) == ["bronze.sales", "silver.sales", "gold.sales_summary"]
    bronze, silver = second.step("bronze.sales"), second.step("silver.sales")
    assert (bronze.mode, len(bronze.files), bronze.rows_in) == ("incremental", 5, 6_012)
    assert (silver.mode, silver.rows_written, silver.rows_quarantined) == ("incremental", 6_011, 1)
    assert silver.rows_total == 8_994
    assert shop.run().status == "fresh"


def test_corrections_and_the_file_sent_anew_arrive(shop: Shop) -> None:
    shop.receive(1)
    shop.run()
    oil = "select distinct unit_price from lake.silver.sales where product = 'olive oil' and store_id = 'S03'"
    assert [float(price) for (price,) in shop.ask(oil)] == [8.90]
    shop.receive(2)
    shop.run()
    corrected = shop.ask(
        "select count(*), min(quantity), max(quantity) from lake.silver.sales where recorded_at > sold_at"
    )
    assert corrected == [(12, 1, 1)]
    on_day_one = f"{oil} and date = date '2026-03-02'"
    assert [float(price) for (price,) in shop.ask(on_day_one)] == [9.40]
    assert shop.ask("select count(*) from lake.silver.sales where sale_id = 'S03-1-00401'") == [(1,)]


def test_incremental_gives_what_a_rebuild_gives(shop: Shop) -> None:
    rows = "select * exclude (_loaded_at) from lake.silver.sales order by sale_id"
    summary = "select * from lake.gold.sales_summary order by all"
    shop.receive(1)
    shop.run()
    shop.receive(2)
    shop.run()
    step_by_step = shop.ask(rows), shop.ask(summary)
    assert built(shop.run(force=True)) == ["bronze.sales", "bronze.stores", "silver.sales", "gold.sales_summary"]
    assert (shop.ask(rows), shop.ask(summary)) == step_by_step
    assert len(step_by_step[0]) == 8_994


def test_a_day_of_rubbish_is_kept_out_and_readers_stay_where_they_were(shop: Shop) -> None:
    shop.receive(1)
    shop.run()
    seen = shop.ask("select count(*), sum(total) from lake.gold.sales_summary")
    rubbish = [tills.with_field(row, quantity="-1") for row in tills.sales_of("S01", 2)]
    tills.write(shop.landing, {"2026-03-03_S01.csv": tills.as_csv(rubbish)}, anew=True)
    result = shop.run()
    assert result.failed
    assert [(step.asset, step.status) for step in result.steps if step.status in ("failed", "blocked")] == [
        ("silver.sales", "failed"),
        ("gold.sales_summary", "blocked"),
    ]
    assert shop.ask("select count(*), sum(total) from lake.gold.sales_summary") == seen


def test_the_columns_that_others_read_are_there(shop: Shop) -> None:
    shop.receive(1)
    shop.run()
    described = {name: kind for name, kind, *_ in shop.ask("describe lake.silver.sales")}
    assert described["date"] == "DATE"
    assert described["product"] == "VARCHAR"
    assert described["total"] == "DECIMAL(12,2)"
    assert shop.ask("select count(*) from lake.silver.sales where date is null or product is null") == [(0,)]


def test_its_own_tests_pass(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    done = workspace(shop.root).test("pipeline:sales")
    assert done["failed"] == 0 and done["passed"] >= 5, done
    assert not (tmp_path / ".rat/catalog.sqlite").exists()


def test_every_column_is_documented(shop: Shop) -> None:
    from ratatouille import project
    from ratatouille.pages.dictionary import dictionary

    shop.receive(1)
    assert shop.run().status == "done"
    known = dictionary(project.load(shop.root))
    assert not known.differences and not known.silent
    assert not [
        (table.name, column.name) for table in known.tables for column in table.columns if not column.description
    ]
