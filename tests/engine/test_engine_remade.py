"""A large table whose rows are all replaced is made anew: quickly, and nothing that was known of it is lost."""

from __future__ import annotations

import sys

import pytest

from ratatouille import project
from ratatouille.engine import holds

FILES = {
    "pipelines/bronze/base.sql": "select i as id, 'v1' as v from range(10) t(i)",
    "pipelines/bronze/base.yaml": "description: Rows.\nunique_key: id\nsort_by: id\ncolumns: {id: {description: Number.}}",
    "pipelines/silver/log.sql": "select id, v, _change from {{ changes('bronze.base') }}",
    "pipelines/silver/log.yaml": "materialize: append",
}
TABLES = "select count(*) from __ducklake_metadata_lake.ducklake_table where table_name = 'base'"


@pytest.fixture
def remade(shop, monkeypatch):
    """A workspace in which ten rows are many."""
    monkeypatch.setattr(sys.modules["ratatouille.lake.publish"], "REMADE_FROM_ROWS", 10)
    shop.write(FILES)
    first = shop.run().step("bronze.base").version
    shop.write({"pipelines/bronze/base.sql": "select i as id, if(i = 3, 'v2', 'v1') as v from range(1, 12) t(i)"})
    return shop, first, shop.step("bronze.base")


def test_a_rebuild_of_a_large_table_keeps_history_comments_layout_changes_and_rollback(remade):
    shop, first, step = remade
    assert (step.rows_written, step.rows_total, step.entry.rows_deleted) == (11, 11, 10)
    assert shop.value(TABLES) == 2, "it was not made anew"
    assert shop.value("select count(*) from bronze.base", at=first) == 10
    comments = "select comment from duckdb_columns() where table_name = 'base' and column_name = 'id' union all"
    assert shop.rows(f"{comments} select comment from duckdb_tables() where table_name = 'base'") == [
        ("Number.",),
        ("Rows.",),
    ]
    assert (
        shop.value("select count(*) from __ducklake_metadata_lake.ducklake_sort_info where end_snapshot is null") == 1
    )
    assert shop.step("silver.log").rows_written == 4
    assert shop.rows("select id, v, _change from silver.log where _change <> 'insert' or v = 'v2' or id > 9 order by 1") == [
        (0, "v1", "delete"), (3, "v2", "update"), (10, "v1", "insert"), (11, "v1", "insert"),
    ]  # fmt: skip
    with holds.bench_on(project.load(shop.root)) as bench:
        holds.roll_back(bench, "bronze.base", first)
    assert shop.value("select count(*) from bronze.base") == 10


def test_what_changed_is_not_told_from_a_damaged_version(remade):
    shop, first, _ = remade
    with_rows = shop.entries("bronze.base")[-1].manifest[0]["path"]
    path = shop.root / ".rat/data" / with_rows
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    error = shop.step("silver.log").error
    assert f"since version {first} cannot be told any more" in error["what"]


def test_a_small_table_stays_the_same_one(shop):
    shop.write(FILES)
    shop.run()
    shop.step("bronze.base", force=True)
    assert shop.value(TABLES) == 1
