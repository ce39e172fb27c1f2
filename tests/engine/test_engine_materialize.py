"""table, view, append, merge; what a change of columns does; what survives a rebuild."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

NUMBERS = "select i as id, i * 2 as twice from range(5) t(i)"
SOURCE = "pipelines/bronze/numbers.sql"


def test_a_file_becomes_a_table(shop):
    shop.write({SOURCE: NUMBERS})
    step = shop.step("bronze.numbers")
    assert (step.status, step.rows_written, step.rows_total) == ("built", 5, 5)
    assert shop.rows("select * from bronze.numbers order by id")[-1] == (4, 8)


def test_an_unchanged_asset_is_skipped_and_its_version_stands(shop):
    shop.write({SOURCE: NUMBERS})
    first = shop.step("bronze.numbers")
    shop.write({SOURCE: f"-- a comment\n{NUMBERS.replace(' as ', '   AS ')}"})
    second = shop.step("bronze.numbers")
    assert (second.status, second.version) == ("skipped", first.version)


def test_a_view_reads_what_is_below_it_and_passes_staleness_through(shop):
    shop.write(
        {
            SOURCE: NUMBERS,
            "pipelines/silver/even.sql": "select * from {{ ref('bronze.numbers') }} where id % 2 = 0",
            "pipelines/silver/even.yaml": "materialize: view\ndescription: Even numbers.",
            "pipelines/gold/total.sql": "select sum(twice) as total from {{ ref('silver.even') }}",
        }
    )
    shop.run()
    assert shop.value("select total from gold.total") == 12
    shop.write({SOURCE: NUMBERS.replace("range(5)", "range(7)")})
    result = shop.run()
    assert shop.value("select total from gold.total") == 24
    assert result.step("gold.total").status == "built"


def test_a_table_that_becomes_a_view_and_back(shop):
    shop.write({SOURCE: NUMBERS})
    shop.run()
    shop.write({"pipelines/bronze/numbers.yaml": "materialize: view"})
    shop.run()
    assert shop.value("select count(*) from bronze.numbers") == 5
    shop.write({"pipelines/bronze/numbers.yaml": "materialize: table"})
    shop.run()
    assert shop.value("select count(*) from duckdb_views() where view_name = 'numbers'") == 0
    assert shop.value("select count(*) from bronze.numbers") == 5


MERGE = {
    "pipelines/bronze/events.sql": "select * from {{ source('landing/*.csv') }}",
    "pipelines/bronze/events.yaml": """
materialize: append
sources: {"landing/*.csv": {columns: {id: bigint, amount: "decimal(10,2)"}}}
""",
    "pipelines/silver/events.sql": """
select id, amount, _loaded_at from {{ ref('bronze.events') }}
{% if is_incremental() %} where _loaded_at > {{ watermark('_loaded_at') }} {% endif %}
""",
    "pipelines/silver/events.yaml": "materialize: merge\nunique_key: id\ndeduplicate: _loaded_at desc, amount desc",
}


def test_merge_updates_and_inserts_and_reads_only_what_is_new(shop):
    shop.write(MERGE).write({"landing/1.csv": "id,amount\n1,10\n2,20\n"})
    shop.run()
    shop.write({"landing/2.csv": "id,amount\n2,25\n3,30\n3,31\n"})
    step = shop.step("silver.events", "+silver.events")
    assert (step.mode, step.rows_written, step.rows_total) == ("incremental", 2, 3)
    assert [(i, float(a)) for i, a in shop.rows("select id, amount from silver.events order by 1")] == [
        (1, 10.0),
        (2, 25.0),
        (3, 31.0),
    ]


def test_incremental_equals_full(shop, new_shop):
    days = [f"id,amount\n{d},{d}\n{d + 1},{d * 10}\n" for d in range(4)]
    shop.write(MERGE)
    for number, day in enumerate(days):
        shop.write({f"landing/{number}.csv": day})
        shop.run()
    query = "select id, amount from silver.events order by all"
    step_by_step = shop.rows(query)
    shop.run("silver.events", force=True)
    assert shop.rows(query) == step_by_step


def test_a_rebuild_of_a_merge_keeps_the_row_that_was_loaded_last(shop):
    shop.write(
        {
            "pipelines/bronze/orders.sql": "select * from {{ source('landing/*.csv') }}",
            "pipelines/bronze/orders.yaml": "materialize: append\nsources: {'landing/*.csv': {columns: {id: integer, n: integer}}}",
            "pipelines/silver/orders.sql": "select id, n, _loaded_at from {{ ref('bronze.orders') }}"
            " {% if is_incremental() %} where _loaded_at > {{ watermark('_loaded_at') }} {% endif %}",
            "pipelines/silver/orders.yaml": "materialize: merge\nunique_key: id\non_fail: quarantine\nmax_quarantine: 0.9",
            "landing/1.csv": "id,n\n1,10\n2,20\n",
        }
    )
    shop.run()
    shop.write({"landing/2.csv": "id,n\n1,11\n3,30\n"})
    shop.run()
    step = shop.step("silver.orders", force=True)
    assert (step.mode, step.rows_quarantined) == ("full", 0)
    assert shop.rows("select id, n from silver.orders order by 1") == [(1, 11), (2, 20), (3, 30)]


def test_a_row_that_arrives_late_does_not_undo_a_newer_one(shop):
    late_order = MERGE["pipelines/silver/events.yaml"].replace("_loaded_at desc, amount desc", "amount desc")
    shop.write(MERGE | {"pipelines/silver/events.yaml": late_order})
    shop.write({"landing/new.csv": "id,amount\n1,99\n2,5\n"})
    shop.run()
    shop.write({"landing/late.csv": "id,amount\n1,10\n2,7\n3,1\n"})
    step = shop.step("silver.events", "+silver.events")
    assert (step.rows_written, step.rows_total) == (2, 3)
    query = "select id, amount::int from silver.events order by 1"
    assert shop.rows(query) == [(1, 99), (2, 7), (3, 1)]
    shop.run("silver.events", force=True)
    assert shop.rows(query) == [(1, 99), (2, 7), (3, 1)], "as if all had come at once"


def test_a_merge_key_that_is_null_or_there_twice_blocks(shop):
    shop.write(
        {
            SOURCE: "select * from (values (1, 'a'), (1, 'b'), (2, 'c')) t(id, name)",
            "pipelines/bronze/numbers.yaml": "materialize: merge\nunique_key: id",
        }
    )
    step = shop.step("bronze.numbers")
    assert step.status == "failed"
    assert "2 of 3 rows" in step.error["what"]
    shop.write({SOURCE: "select * from (values (1, 'a'), (null, 'b')) t(id, name)"})
    assert "id_not_null" in shop.step("bronze.numbers").error["what"]


def test_append_adds_rows(shop):
    shop.write({SOURCE: NUMBERS, "pipelines/bronze/numbers.yaml": "materialize: append\nrefresh_every: 0s"})
    shop.run()
    shop.write({"pipelines/bronze/other.sql": "select 1 as a"})
    assert shop.run("bronze.numbers").step("bronze.numbers").status == "skipped"


def test_an_added_column_joins_and_a_removed_one_stops_until_accepted(shop):
    shop.write({SOURCE: NUMBERS})
    shop.run()
    table_id = shop.value("select table_id from __ducklake_metadata_lake.ducklake_table where table_name = 'numbers'")
    shop.write({SOURCE: NUMBERS.replace("i * 2 as twice", "i * 2 as twice, 'x' as letter")})
    assert shop.step("bronze.numbers").status == "built"
    assert shop.value("select letter from bronze.numbers limit 1") == "x"
    shop.write({SOURCE: "select i as id from range(5) t(i)"})
    refused = shop.step("bronze.numbers")
    assert refused.status == "failed"
    assert "twice is gone" in refused.error["what"]
    assert "--accept-schema" in refused.error["next"]
    assert shop.value("select count(twice) from bronze.numbers") == 5
    accepted = shop.step("bronze.numbers", force=True, accept_schema=True)
    assert accepted.status == "built"
    assert [row[0] for row in shop.rows("describe bronze.numbers")] == ["id"]
    now = shop.rows(
        "select table_id from __ducklake_metadata_lake.ducklake_table where table_name = 'numbers' and end_snapshot is null"
    )
    assert now == [(table_id,)], "the table kept its identity through all of it"


def test_a_retyped_column_stops_until_accepted(shop):
    shop.write({SOURCE: NUMBERS})
    shop.run()
    shop.write({SOURCE: NUMBERS.replace("i * 2 as twice", "(i * 2)::varchar as twice")})
    assert "was BIGINT and is VARCHAR" in shop.step("bronze.numbers").error["what"]
    assert shop.step("bronze.numbers", force=True, accept_schema=True).status == "built"
    assert shop.value("select typeof(twice) from bronze.numbers limit 1") == "VARCHAR"


def test_comments_come_from_the_sidecar_and_survive_a_rebuild(shop):
    sidecar = "description: Some numbers.\ncolumns:\n  id: {description: The number itself.}\n"
    shop.write({SOURCE: NUMBERS, "pipelines/bronze/numbers.yaml": sidecar})
    shop.run()
    shop.write({SOURCE: NUMBERS.replace("5", "6")})
    shop.run()
    assert shop.value("select comment from duckdb_tables() where table_name = 'numbers'") == "Some numbers."
    column = "select comment from duckdb_columns() where table_name = 'numbers' and column_name = 'id'"
    assert shop.value(column) == "The number itself."


@pytest.mark.parametrize(
    ("expression", "stored"),
    [
        ("sum(i)", "DECIMAL(38,0)"),
        ("'a'::enum('a', 'b')", "VARCHAR"),
        ("[1, 2]::integer[2]", "INTEGER[]"),
        ("{'k': [170141183460469231731687303715884105727::hugeint // 10]}", "STRUCT(k DECIMAL(38,0)[])"),
        ("null", "INTEGER"),
        ("timestamptz '2024-01-01 00:00:00+02'", "TIMESTAMP WITH TIME ZONE"),
    ],
)
def test_types_that_parquet_cannot_hold_become_ones_that_lose_nothing(shop, expression, stored):
    shop.write({SOURCE: f"select {expression} as v, count(*) as n from range(4) t(i)"})
    assert shop.step("bronze.numbers").status == "built"
    assert shop.value("select typeof(v) from bronze.numbers") == stored


def test_a_type_that_cannot_be_stored_says_which_column(shop):
    shop.write({SOURCE: "select '101'::bit as flags"})
    error = shop.step("bronze.numbers").error
    assert "column flags" in error["what"]
    assert "cast" in error["next"]


def test_declared_types_are_what_is_stored(shop):
    shop.write({SOURCE: NUMBERS, "pipelines/bronze/numbers.yaml": "columns: {twice: 'decimal(12,2)'}"})
    shop.run()
    assert shop.value("select typeof(twice) from bronze.numbers limit 1") == "DECIMAL(12,2)"


def test_a_watermark_with_a_time_zone(shop):
    moment = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    shop.write(
        {
            SOURCE: f"select timestamptz '{moment}' + interval (i) hour as made_at, i as id from range(3) t(i)",
            "pipelines/silver/late.sql": "select made_at, id from {{ ref('bronze.numbers') }}"
            "{% if is_incremental() %} where made_at > {{ watermark('made_at') }} {% endif %}",
            "pipelines/silver/late.yaml": "materialize: merge\nunique_key: id",
        }
    )
    shop.run()
    shop.write({SOURCE: f"select timestamptz '{moment}' + interval (i) hour as made_at, i as id from range(5) t(i)"})
    step = shop.step("silver.late", "+silver.late")
    assert (step.mode, step.rows_written, step.rows_total) == ("incremental", 2, 5)


def test_an_empty_result_is_a_table_too(shop):
    shop.write({SOURCE: f"{NUMBERS} where i > 100"})
    assert shop.step("bronze.numbers").rows_total == 0
    assert shop.value("select count(*) from bronze.numbers") == 0
    shop.write({SOURCE: NUMBERS})
    assert shop.step("bronze.numbers").rows_total == 5
