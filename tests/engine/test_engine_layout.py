"""partition_by and sort_by: how the files of a table lie, and that they stay so."""

from __future__ import annotations

import sys
from pathlib import Path

from ratatouille.engine import context
from ratatouille.engine.holds import bench_on, roll_back
from ratatouille.lake.care import upkeep
from ratatouille.lake.layout import Layout, layout_of
from ratatouille.lake.places import durable
from ratatouille.lake.quoting import METADATA
from ratatouille.project import load

publish = sys.modules["ratatouille.lake.publish"]

ROWS = "select i as id, i % 3 as store, 'd=' || (i % 2) as day from range({n}) t(i) order by hash(i)"
SIDE = "materialize: merge\nunique_key: id\npartition_by: [day]\nsort_by: [store, id]\n"


def layout(shop) -> Layout:
    with bench_on(load(shop.root)) as bench, bench.lake.session() as session:
        return layout_of(session, "bronze.rows")


def files(shop) -> set[str]:
    folder = shop.root / ".rat/data/bronze/rows"
    return {str(path.parent.relative_to(folder).parts[-1]) for path in folder.rglob("*.parquet")}


def test_files_are_cut_and_ordered_and_stay_so_after_a_merge_a_rollback_and_a_rebuild(shop, monkeypatch):
    shop.write({"pipelines/bronze/rows.sql": ROWS.format(n=3000), "pipelines/bronze/rows.yaml": SIDE})
    first = shop.step("bronze.rows").version
    assert layout(shop) == Layout(("day",), ("store", "id"))
    assert files(shop) == {"day=d%3D0", "day=d%3D1"}, "a value with a sign is one value"
    (path, *_) = sorted((shop.root / ".rat/data/bronze/rows").rglob("*.parquet"))
    found = [row[0] for row in shop.rows(f"select store from read_parquet('{path}', hive_partitioning = false)")]
    assert found == sorted(found)
    synced: list[str] = []
    real = durable.fsync_path
    monkeypatch.setattr(
        sys.modules["ratatouille.lake.places"],
        "fsync_path",
        lambda path: (synced.append(Path(path).name), real(path))[1],
    )
    shop.write({"pipelines/bronze/rows.sql": ROWS.format(n=3000).replace("i % 3", "7::bigint") + " limit 10"})
    shop.write({"pipelines/bronze/rows.yaml": SIDE + "on_change: forward"})
    step = shop.step("bronze.rows")
    assert (step.mode, step.rows_written, step.rows_total) == ("incremental", 10, 3000)
    deletes = {path.name for path in (shop.root / ".rat/data/bronze/rows").rglob("ducklake-*")}
    assert deletes
    assert deletes <= set(synced), "what DuckLake wrote itself is durable too"
    with bench_on(load(shop.root)) as bench:
        roll_back(bench, "bronze.rows", first)
    assert layout(shop) == Layout(("day",), ("store", "id"))
    assert shop.value("select count(*) from bronze.rows where store = 7") == 0
    # DuckLake aborts the process when one transaction cuts a table anew and adds files: each way, once.
    for side, wanted in (
        ("sort_by: id\ndescription: Kept.", Layout((), ("id",))),
        (SIDE + "on_change: forward", Layout(("day",), ("store", "id"))),
        ("materialize: merge\nunique_key: id\non_change: forward", Layout()),
        ("partition_by: [store, day]", Layout(("store", "day"))),
    ):
        shop.write({"pipelines/bronze/rows.yaml": side})
        assert shop.step("bronze.rows").status == "built", side
        assert layout(shop) == wanted
        assert shop.value("select count(*) from bronze.rows") == 10
        assert shop.value("select count(*) from bronze.rows", at=first) == 3000
        if "Kept" in side:
            assert shop.value("select comment from duckdb_tables() where table_name = 'rows'") == "Kept."


def test_compaction_keeps_a_table_cut_and_its_rows_and_versions_the_same(shop):
    """DuckLake's own merge meets an internal error there: its files lie in one folder for each partition."""
    name, side = "pipelines/bronze/rows.sql", "materialize: append\npartition_by: part\nsort_by: id\non_change: forward"
    shop.write(
        {
            "pipelines/bronze/rows.yaml": side,
            "pipelines/gold/n.sql": "select count(*) as n from {{ ref('bronze.rows') }}",
        }
    )
    for n in range(6):
        shop.write({name: f"select (i * 7) % 20 + {n * 20} as id, i % 2 as part from range(20) t(i)"})
        shop.run("bronze.rows")
    shop.run("gold.n")
    before = shop.rows("select * from bronze.rows order by all")
    first = shop.entries("bronze.rows")[-1].version
    with bench_on(load(shop.root)) as bench:
        with bench.lake.session() as session:
            [one] = upkeep.crowded(session, ["bronze.rows"])
        token = bench.journal.take_lease("bronze.rows", "upkeep")
        upkeep.compact(bench.lake, bench.journal, "upkeep", one, token)
        bench.journal.drop_lease("bronze.rows", token)
        with bench.lake.session() as session:
            assert upkeep.crowded(session, ["bronze.rows"]) == []
            assert upkeep.unsealed(session, ["bronze.rows"]) == {}, "every file has a checksum"
            live = f"select count(*) from {METADATA}.ducklake_data_file where end_snapshot is null and partition_id is not null"
            assert session.value(live) == 2
    assert layout(shop) == Layout(("part",), ("id",))
    assert shop.rows("select * from bronze.rows order by all") == before
    assert shop.value("select count(*) from bronze.rows", at=first) == 20
    assert shop.run().status == "fresh", "nothing below became stale"


BATCHES = """
def build(context):
    for n in range(3):
        yield context.query(f"select i as id, i % 2 as part from range({n * 10}, {n * 10 + 10}) t(i)").to_arrow_table()
"""


def test_batches_and_rows_in_quarantine_leave_files_cut_too(shop):
    side = "partition_by: part\non_fail: quarantine\nmax_quarantine: 0.9\ncolumns: {id: {checks: [positive]}}"
    shop.write({"pipelines/bronze/rows.py": BATCHES, "pipelines/bronze/rows.yaml": side})
    step = shop.step("bronze.rows")
    assert (step.error, step.rows_total, step.rows_quarantined) == (None, 29, 1)
    assert files(shop) == {"part=0", "part=1"}


def test_many_files_join_the_table_by_one_pattern_where_nothing_else_lies_beside_them(shop, monkeypatch):
    real, seen = publish._patterns, []

    def spied(session, staged):
        alone = real(session, staged)
        stray = Path(staged.folder) / "stray.parquet"
        stray.write_bytes(Path(staged.files[0].path).read_bytes())
        seen.append((alone, real(session, staged), [file.path for file in staged.files]))
        stray.unlink()
        return alone

    monkeypatch.setattr(publish, "_patterns", spied)
    many = "select i as id, 'a [' || (i % 20) || '*' as part from range({n}) t(i)"
    shop.write({"pipelines/bronze/rows.sql": many.format(n=100), "pipelines/bronze/rows.yaml": "partition_by: part"})
    assert shop.step("bronze.rows").rows_total == 100
    assert shop.rows("select count(*), count(distinct id), count(distinct part) from bronze.rows") == [(100, 100, 20)]
    ((alone, beside, names),) = seen
    assert len(alone) == 1 and alone[0].endswith("/**/*.parquet")
    assert len(beside) == len(names) == 20 and "stray" not in "".join(beside)


HANDED = """
import polars as pl

def build(context):
    yield context.query("select i as id, 'query' as how from range(3) t(i)")
    yield context.query("from given", given=pl.DataFrame({"id": [3], "how": ["frame"]}))
    asked = context.query("select 4 as id, 'earlier' as how")
    context.query("select 1")
    yield asked
"""


def test_what_a_query_gives_is_written_where_it_ran_and_frames_come_as_a_stream(shop, monkeypatch):
    streamed = []
    real = context.tabular
    monkeypatch.setattr(context, "tabular", lambda value: (streamed.append(str(value)), real(value))[1])
    shop.write({"pipelines/bronze/rows.py": HANDED})
    assert shop.step("bronze.rows").error is None
    assert shop.rows("select id, how from bronze.rows order by id") == [
        (0, "query"), (1, "query"), (2, "query"), (3, "frame"), (4, "earlier"),
    ]  # fmt: skip
    assert len(streamed) == 2 and not any("query" in one for one in streamed)


ORDERS = "pipelines/bronze/orders.sql"
CHANGED = {
    ORDERS: "select * from (values (1, 'a'), (2, 'b'), (3, 'c')) t(id, state)",
    "pipelines/bronze/orders.yaml": "unique_key: id",
    "pipelines/silver/log.sql": "select id, state, _change from {{ changes('bronze.orders') }}",
    "pipelines/silver/log.yaml": "materialize: append",
    "pipelines/silver/python.py": "def build(context):\n    return context.changes('bronze.orders').order('id')\n",
    "pipelines/silver/python.yaml": "materialize: append",
}


def test_changes_are_what_happened_since_the_asset_read_last(shop):
    shop.write(CHANGED).run()
    log = "select id, state, _change from silver.log"
    first = [(1, "a", "insert"), (2, "b", "insert"), (3, "c", "insert")]
    assert sorted(shop.rows(log)) == first
    shop.write({ORDERS: "select * from (values (1, 'a'), (2, 'x'), (4, 'd')) t(id, state)"}).run("bronze.orders")
    shop.write({ORDERS: "select * from (values (1, 'a'), (2, 'y'), (4, 'd')) t(id, state)"}).run()
    news = [(2, "y", "update"), (3, "c", "delete"), (4, "d", "insert")]
    assert sorted(shop.rows(log)) == sorted(first + news), "two versions are one change, and 1 did not change"
    assert sorted(shop.rows(log.replace("log", "python"))) == sorted(first + news)
    assert shop.step("silver.log", again=True).rows_written == 0
    shop.rows("select 1")
    with bench_on(load(shop.root)) as bench, bench.lake.session() as session:
        session.execute("call ducklake_expire_snapshots('lake', older_than => now())")
    shop.write({ORDERS: "select * from (values (5, 'e')) t(id, state)"}).run("bronze.orders")
    with bench_on(load(shop.root)) as bench, bench.lake.session() as session:
        session.execute("call ducklake_expire_snapshots('lake', older_than => now())")
    refused = shop.step("silver.log")
    assert "what changed in bronze.orders since version" in refused.error["what"]
    assert refused.error["next"] == "read all of it: rat run silver.log -f"
    assert shop.step("silver.log", force=True, accept_loss=True).rows_total == 1


def test_a_rebuild_does_not_lose_a_log_of_changes_without_a_word(shop):
    shop.write(
        {
            "pipelines/bronze/orders.sql": "select 1 as id, 'new' as state",
            "pipelines/silver/log.sql": "select id, state, _change from {{ changes('bronze.orders') }}",
            "pipelines/silver/log.yaml": "materialize: append",
        }
    )
    shop.run()
    shop.write({"pipelines/bronze/orders.sql": "select 1 as id, 'paid' as state"})
    shop.run()
    logged = shop.rows("select * from silver.log order by all")
    assert len(logged) > 1
    shop.write({"pipelines/silver/log.yaml": "materialize: append\ncolumns: {id: {checks: [not_null]}}"})
    error = shop.step("silver.log").error
    assert "would lose" in error["what"] and "on_change: forward" in error["next"] and "--accept-loss" in error["next"]
    assert shop.rows("select * from silver.log order by all") == logged
    side = "materialize: append\non_change: forward\ncolumns: {id: {checks: [not_null]}}"
    shop.write({"pipelines/silver/log.yaml": side})
    assert shop.step("silver.log").error is None
    assert shop.rows("select * from silver.log order by all") == logged
    assert shop.step("silver.log", force=True, accept_loss=True).status == "built"
    assert len(shop.rows("select * from silver.log")) == 1
