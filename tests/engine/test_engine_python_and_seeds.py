"""Python assets and seed files: what build() may return, and how its mistakes are told."""

from __future__ import annotations

import json

import polars
import pytest

FRAMES = {
    "relation": "return context.query(\"select 1 as a, 'x' as b\")",
    "ref": "return context.ref('bronze.base').filter('a = 1')",
    "polars": "import polars; return polars.DataFrame({'a': [1], 'b': ['x']})",
    "polars lazy": "import polars; return polars.LazyFrame({'a': [1], 'b': ['x']})",
    "arrow": "import pyarrow; return pyarrow.table({'a': [1], 'b': ['x']})",
    "rows": "return [{'a': 1, 'b': 'x'}]",
    "generator": "import polars\n    for n in (1,):\n        yield polars.DataFrame({'a': [n], 'b': ['x']})",
    "relation over a frame": "import polars; frame = polars.DataFrame({'a': [1], 'b': ['x']})\n"
    "    return context.query('select * from frame', frame=frame)",
}


@pytest.mark.parametrize("kind", FRAMES)
def test_build_may_return(shop, kind):
    shop.write(
        {
            "pipelines/bronze/base.sql": "select 1 as a, 'x' as b union all select 2, 'y'",
            "pipelines/silver/made.py": f"def build(context):\n    {FRAMES[kind]}\n",
        }
    )
    result = shop.run()
    assert result.step("silver.made").status == "built", result.step("silver.made").error
    assert shop.rows("select a, b from silver.made") == [(1, "x")]


def test_a_generator_is_streamed_and_takes_the_types_of_its_first_batch(shop):
    shop.write(
        {
            "pipelines/bronze/batches.py": """
import polars

def build(context):
    for n in range(3):
        yield polars.DataFrame({"n": [n], "half": [n / 2 if n else 0.0]})
    yield polars.DataFrame({"half": [9], "n": [3]})
"""
        }
    )
    assert shop.step("bronze.batches").rows_total == 4
    assert shop.rows("select n, half from bronze.batches order by n")[-1] == (3, 9.0)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("{'n': [2.6]}", ('column n holds "2.6"', "does not fit BIGINT")),
        ("{'n': [2], 'note': ['x']}", ("a batch has note, which the first one has not",)),
        ("{'note': ['x']}", ("has note, which the first one has not and lacks n",)),
    ],
)
def test_a_batch_that_is_not_like_the_first_one_changes_no_value_and_loses_no_column(shop, second, said):
    code = "import polars\n\ndef build(context):\n    yield polars.DataFrame({'n': [1]})\n"
    shop.write({"pipelines/bronze/t.py": code + f"    yield polars.DataFrame({second})\n"})
    step = shop.step("bronze.t")
    assert step.status == "failed" and all(one in step.error["what"] for one in said), step.error


def test_batches_get_the_types_that_are_declared(shop):
    code = """import polars

def build(context):
    yield polars.DataFrame({"day": [None], "total": ["1.50"]})
    yield polars.DataFrame({"day": ["2026-01-02"], "total": [2.25]})
"""
    declared = "columns: {day: {type: date}, total: {type: 'decimal(10,2)'}}\n"
    shop.write({"pipelines/bronze/t.py": code, "pipelines/bronze/t.yaml": declared})
    assert shop.step("bronze.t").status == "built"
    assert shop.rows("select typeof(day), day::varchar, total::varchar from bronze.t order by total") == [
        ("DATE", None, "1.50"),
        ("DATE", "2026-01-02", "2.25"),
    ]
    shop.write({"pipelines/bronze/t.py": code.replace("2.25", "2.255")})
    step = shop.step("bronze.t")
    assert step.status == "failed" and "does not fit DECIMAL(10,2)" in step.error["what"]


def test_an_incremental_python_asset(shop):
    shop.write(
        {
            "pipelines/bronze/base.sql": "select i as id from range(3) t(i)",
            "pipelines/silver/seen.py": """
def build(context):
    rows = context.ref("bronze.base")
    if context.is_incremental():
        rows = rows.filter(f"id > {context.watermark('id')}")
    return rows
""",
            "pipelines/silver/seen.yaml": "materialize: append",
        }
    )
    shop.run()
    shop.write({"pipelines/bronze/base.sql": "select i as id from range(5) t(i)"})
    step = shop.step("silver.seen", "+silver.seen")
    assert (step.mode, step.rows_written, step.rows_total) == ("incremental", 2, 5)


def test_landing_files_in_python(shop):
    shop.write(
        {
            "pipelines/bronze/rows.py": "def build(context):\n    return context.source('landing/*.csv')\n",
            "pipelines/bronze/rows.yaml": "materialize: append",
            "landing/a.csv": "id\n1\n",
        }
    )
    assert shop.step("bronze.rows").rows_total == 1
    shop.write({"landing/b.csv": "id\n2\n"})
    assert shop.step("bronze.rows").rows_written == 1


def test_an_asset_that_reads_what_the_lake_cannot_see_is_built_each_time(shop):
    shop.write({"pipelines/bronze/clock.py": "def build(context):\n    return [{'a': 1}]\n"})
    assert [shop.step("bronze.clock").status for _ in range(2)] == ["built", "built"]
    shop.write({"pipelines/bronze/clock.yaml": "refresh_every: 1h"})
    assert shop.step("bronze.clock").status == "skipped"
    shop.write({"pipelines/bronze/clock.yaml": "refresh_every: 1ms"})
    assert shop.plan("bronze.clock").steps[0].rule == "refresh due"


def test_a_declared_version_decides(shop):
    shop.write(
        {
            "config/limits.txt": "1",
            "pipelines/bronze/limits.py": "from pathlib import Path\n\ndef build(context):\n"
            "    return [{'a': (Path(__file__).parents[2] / 'config/limits.txt').read_text()}]\n",
            "pipelines/bronze/limits.yaml": "version: {files: config/limits.txt}",
        }
    )
    assert [shop.step("bronze.limits").status for _ in range(2)] == ["built", "skipped"]
    shop.write({"config/limits.txt": "2"})
    assert shop.step("bronze.limits").status == "built"
    assert shop.value("select a from bronze.limits") == "2"


@pytest.mark.parametrize(
    ("code", "said", "where"),
    [
        ("def build(context):\n    return 1 / 0\n", "ZeroDivisionError", "rows.py:2"),
        ("def build(context):\n    return None\n", "no table", ""),
        ("import not_there\ndef build(context):\n    return None\n", "No module named 'not_there'", "rows.py:1"),
        ("def build(context):\n    yield from ()\n", "no batch", ""),
        ("def build(context):\n    return context.query('select * from nowhere')\n", "nowhere", "rows.py:2"),
    ],
)
def test_a_mistake_in_python_is_told_in_four_lines(shop, code, said, where):
    shop.write({"pipelines/bronze/rows.py": code})
    error = shop.step("bronze.rows").error
    assert said in error["what"]
    assert where in error["where"]
    assert "Traceback" not in str(error)


def test_seeds_of_every_format(shop):
    shop.write(
        {
            "pipelines/bronze/zones.csv": 'code,label,size\n007,"a, b",1.5\n008,c,\n',
            "pipelines/bronze/zones.yaml": "columns: {code: varchar}",
            "pipelines/bronze/laps.json": json.dumps([{"lap": 1, "seg": [1, 2]}]),
        }
    )
    folder = shop.root / "pipelines/bronze"
    polars.DataFrame({"a": [1, 2]}).write_parquet(folder / "points.parquet")
    with __import__("duckdb").connect() as connection:
        from ratatouille.lake import Session, load_extension

        load_extension(Session(connection, "test"), "excel")
        connection.execute(f"copy (select 1 as a, 'x' as b) to '{folder}/sheet.xlsx' (format xlsx, header true)")
    result = shop.run()
    assert {s.asset: s.rows_total for s in result.steps} == {
        "bronze.zones": 2, "bronze.laps": 1, "bronze.points": 2, "bronze.sheet": 1,
    }, [s.error for s in result.steps]  # fmt: skip
    assert shop.rows("select code, label, size from bronze.zones order by 1") == [
        ("007", "a, b", 1.5),
        ("008", "c", None),
    ]
    assert shop.run().status == "fresh"


def test_a_seed_with_a_broken_row_is_an_error_not_a_shorter_table(shop):
    shop.write({"pipelines/bronze/zones.csv": "code,label\n1,a\n2\n3,c,d\n"})
    step = shop.step("bronze.zones")
    assert step.status == "failed", shop.rows("select * from bronze.zones")


def test_a_frame_with_the_name_of_nothing_else_survives_parallel_steps(shop):
    for number in range(6):
        code = f"import polars\ndef build(context):\n    return polars.DataFrame({{'n': [{number}] * 1000}})\n"
        shop.write({f"pipelines/bronze/p{number}.py": code})
    result = shop.run()
    assert {s.status for s in result.steps} == {"built"}
    assert [shop.value(f"select sum(n) from bronze.p{n}") for n in range(6)] == [n * 1000 for n in range(6)]


def test_a_python_asset_takes_over_what_its_own_code_made_before_and_nothing_else(shop):
    code = """
import polars

def build(context):
    now = context.ref("bronze.base").pl().with_columns(how=polars.lit(f"made with {context.var('shop.size', 5)}"))
    if context.previous is None:
        return now
    before = context.previous.pl()
    return polars.concat([before, now.join(before, on="a", how="anti")])
"""
    shop.write({"pipelines/bronze/base.sql": "select 1 as a, 'x' as b", "pipelines/silver/made.py": code})
    shop.run()
    shop.write({"pipelines/bronze/base.sql": "select 1 as a, 'y' as b union all select 2, 'z'"})
    shop.run()
    assert shop.rows("select * from silver.made order by a") == [(1, "x", "made with 5"), (2, "z", "made with 5")]
    shop.run("silver.made", force=True)
    assert shop.rows("select * from silver.made where a = 1") == [(1, "y", "made with 5")]
    shop.write(
        {"pipelines/bronze/base.sql": "select 1 as a, 'w' as b", "pipelines/silver/made.py": code + "\nSIZE = 1\n"}
    )
    shop.run()
    assert shop.rows("select * from silver.made") == [(1, "w", "made with 5")]
    shop.write({"workspace.yaml": "name: shop\nvars: {shop: {size: 7}}\n"})
    shop.run()
    assert shop.rows("select * from silver.made") == [(1, "w", "made with 7")]


def test_an_asset_that_writes_outside_the_lake_is_fresh_as_long_as_the_outside_says_so(shop):
    shop.write(
        {
            "pipelines/bronze/base.sql": "select 1 as a",
            "pipelines/silver/sent.py": """
from pathlib import Path

OUTSIDE = Path(__file__).parents[2] / "outside.txt"


def version():
    return OUTSIDE.read_text() if OUTSIDE.exists() else ""


def build(context):
    before = context.this
    said = "nothing" if before is None else before.fetchall()[0][0]
    OUTSIDE.write_text(f"written after {said}")
    context.stands_for(OUTSIDE.read_text())
    return context.query(f"select '{OUTSIDE.read_text()}' as said from base", base=context.ref("bronze.base"))
""",
            "pipelines/silver/sent.yaml": "version: {python: version}\n",
        }
    )
    assert shop.run().step("silver.sent").status == "built"
    assert shop.rows("from silver.sent") == [("written after nothing",)]
    assert shop.run().step("silver.sent").status == "skipped"
    (shop.root / "outside.txt").write_text("somebody else")
    assert shop.step("silver.sent").status == "built"
    assert shop.rows("from silver.sent") == [("written after written after nothing",)]


def test_assets_that_return_relations_side_by_side_do_not_meet(shop):
    """They begin together, and each holds its relation while the other makes its own."""
    code = """
import time
from pathlib import Path

HERE = Path(__file__)


def build(context):
    HERE.with_suffix(".here").touch()
    until = time.monotonic() + 5
    while len(list(HERE.parent.glob("*.here"))) < 2 and time.monotonic() < until:
        time.sleep(0.005)
    for rows in context.chunks(context.ref("bronze.base"), size=1):
        pass
    return context.query("select * from base", base=context.ref("bronze.base"))
"""
    shop.write(
        {
            "pipelines/bronze/base.sql": "select i as a from range(3) t(i)",
            "pipelines/silver/one.py": code,
            "pipelines/silver/two.py": code,
        }
    )
    result = shop.run()
    assert [result.step(f"silver.{name}").error for name in ("one", "two")] == [None, None]
    assert shop.rows("select count(*) from silver.one") == shop.rows("select count(*) from silver.two") == [(3,)]
