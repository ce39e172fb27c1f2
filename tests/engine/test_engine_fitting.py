"""A declared type never changes a value without a word: it fits exactly, or its row is a reject with the reason."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import pytest

from ratatouille.project import load
from ratatouille.testing import run_cases

PAGE = Path(__file__).parents[2] / "docs/sources.md"
CASES = [
    (kind, written, became.strip("`"))
    for kind, written, became in re.findall(r"^\| `(.+?)` \| `(.+?)` \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
]
KINDS = list(dict.fromkeys(kind for kind, _, _ in CASES))
ASSET = "bronze.values"


def yaml(glob, columns, **more):
    said = {"materialize": "append", "max_quarantine": 1, "sources": {glob: {"columns": columns, **more}}}
    return json.dumps(said)


def asset(shop, glob, columns, **more):
    shop.write(
        {
            "pipelines/bronze/values.sql": f"select * from {{{{ source('{glob}') }}}}",
            "pipelines/bronze/values.yaml": yaml(glob, columns, **more),
        }
    )


def test_every_line_of_the_page_is_so_in_csv(shop):
    assert len(CASES) > 40
    columns = {"number": "integer"} | {f"c{n}": kind for n, kind in enumerate(KINDS)}
    asset(shop, "landing/*.csv", columns)
    lines = [",".join(columns)]
    for number, (kind, written, _) in enumerate(CASES):
        cells = [f'"{written}"' if kind == other else "" for other in KINDS]
        lines.append(",".join([str(number), *cells]))
    shop.write({"landing/a.csv": "\n".join(lines)})
    step = shop.step(ASSET)
    texts = ", ".join(f"c{n}::varchar" for n in range(len(KINDS)))
    became = dict(shop.rows(f"select number, coalesce({texts}) from {ASSET}"))
    kept = dict(shop.rows("select line, reason from rat.quarantine"))
    for number, (kind, written, wanted) in enumerate(CASES):
        assert became.get(number, "rejected") == wanted, (kind, written)
        assert (number + 2 in kept) == (wanted == "rejected"), "the line of each reject is known"
        assert wanted != "rejected" or written.strip() in kept[number + 2]
    assert step.rows_in == len(CASES) == step.rows_written + step.rows_rejected


def test_the_lines_of_rejects_of_all_kinds_are_right_and_none_is_counted_twice(shop):
    asset(shop, "landing/*.csv", {"n": "integer", "id": "bigint", "reason": "varchar"})
    rows = ["1,1,x", "", "2,2.5,x", "z,2.5,x", "only", '2.5,2.5,"a, ""b""\nc"', "", "3,3,x", "4.5,4,", "5,5,x"]
    shop.write({"landing/a.csv": "n,id,reason\n" + "\n".join(rows) + "\n"})
    step = shop.step(ASSET)
    assert (step.rows_in, step.rows_written, step.rows_rejected) == (8, 3, 5)
    kept = shop.rows('select line, "row", reason from rat.quarantine order by line')
    assert [(line, row) for line, row, _ in kept] == [
        (4, "2,2.5,x"),
        (5, "z,2.5,x"),
        (6, "only"),
        (7, '2.5,2.5,"a, ""b""\nc"'),
        (10, "4.5,4,"),
    ]
    assert kept[0][2] == 'column id holds "2.5", which does not fit BIGINT: it would become "3"'
    assert "'INTEGER'" in kept[1][2], "the type that was declared, not the one that was read"


def test_a_query_that_drops_the_row_first_does_not_hide_it(shop):
    asset(shop, "landing/*.csv", {"n": "integer"})
    shop.write({"pipelines/bronze/values.sql": "select * from {{ source('landing/*.csv') }} where n < 3"})
    shop.write({"landing/a.csv": "n\n1\n2.6\n3\n"})
    step = shop.step(ASSET)
    assert (step.rows_in, step.rows_written, step.rows_rejected, step.set_aside) == (3, 1, 1, ())


def test_a_file_with_too_many_of_them_is_set_aside_and_says_why(shop):
    asset(shop, "landing/*.csv", {"n": "integer", "day": "date"}, date_format="%d.%m.%Y %H:%M")
    sidecar = shop.root / "pipelines/bronze/values.yaml"
    sidecar.write_text(sidecar.read_text().replace('"max_quarantine": 1', '"max_quarantine": 0.4'))
    shop.write(
        {"landing/a.csv": "n,day\n1,02.01.2026 00:00\n", "landing/b.csv": "n,day\n1,02.01.2026 10:00\n2.5,\n3,\n"}
    )
    step = shop.step(ASSET)
    assert shop.rows(f"select n, day::varchar from {ASSET}") == [(1, "2026-01-02")]
    assert [(one["file"], "2 of 3 rows cannot be read" in one["reason"]) for one in step.set_aside] == [
        ("landing/b.csv", True)
    ], step.set_aside


GOOD = {"n": 1, "amount": 1.5, "day": "2026-01-01", "ok": True, "r": 1, "l": [1], "s": {"a": 1}}
JSON_CASES = [
    ({"n": 9.7}, False),
    ({"n": True}, False),
    ({"n": "5"}, True),
    ({"n": 3_000_000_000}, False),
    ({"n": 2.0}, True),
    ({"n": None}, True),
    ({"amount": 1.239}, False),
    ({"amount": "1.10"}, True),
    ({"day": "2026-01-01T10:00:00"}, False),
    ({"day": "2026-01-01 00:00:00"}, True),
    ({"ok": 2}, False),
    ({"ok": 1}, True),
    ({"r": True}, False),
    ({"r": "2.5"}, True),
    ({"r": "x"}, False),
    ({"l": [1.5]}, False),
    ({"s": {"a": 1.5}}, False),
    ({"s": {"a": None}}, True),
]


def test_json_values_fit_or_their_object_is_a_reject_with_the_types_declared_or_standing(shop):
    kinds = ["int", "decimal(10,2)", "date", "boolean", "double", "int[]", "struct(a int)"]
    asset(shop, "landing/*.json", {"id": "int"} | dict(zip(GOOD, kinds, strict=True)))
    objects = [{"id": number, **GOOD, **change} for number, (change, _) in enumerate(JSON_CASES)]
    shop.write({"landing/a.json": json.dumps(objects)})
    shop.write({"pipelines/bronze/laps.sql": "select * from {{ source('laps/*.json') }}"})
    shop.write(
        {"pipelines/bronze/laps.yaml": "materialize: append\nmax_quarantine: 0.9", "laps/1.json": '[{"lap": 1}]'}
    )
    shop.run()
    there = {number for (number,) in shop.rows(f"select id from {ASSET}")}
    assert there == {number for number, (_, fits) in enumerate(JSON_CASES) if fits}
    kept = shop.rows("select row->>'id', reason from rat.quarantine where asset = 'bronze.values'")
    assert {int(number) for number, _ in kept} == {number for number, (_, fits) in enumerate(JSON_CASES) if not fits}
    assert ("0", 'column n holds "9.7", which does not fit INTEGER: it would become "10"') in kept
    shop.write({"laps/2.json": '[{"lap": 9.7}, {"lap": "8"}]'})
    step = shop.step("bronze.laps")
    assert (step.rows_in, step.rows_written, step.rows_rejected) == (2, 1, 1)
    assert shop.rows("select lap from bronze.laps order by 1") == [(1,), (8,)]


def test_parquet_columns_get_their_declared_type_exactly(shop):
    import polars

    asset(shop, "landing/*.parquet", {"n": "int", "amount": "decimal(10,2)", "day": "date", "note": "varchar"}, optional=["note"])  # fmt: skip
    noon = datetime.datetime(2026, 1, 1, 12)  # noqa: DTZ001 the files hold times without a zone
    day = noon.replace(hour=0)
    rows = [(1.0, 1.5, day), (2.5, 1.5, day), (3.0, 1.239, day), (4.0, 0.1 + 0.2, day), (5.0, 1.0, noon)]
    (shop.root / "landing").mkdir()
    frame = polars.DataFrame(rows, schema=["n", "amount", "day"], orient="row")
    frame.write_parquet(shop.root / "landing/a.parquet")
    frame.drop("day").write_parquet(shop.root / "landing/b.parquet")
    step = shop.step(ASSET)
    assert shop.rows(f"select n, amount::varchar, day::varchar, note from {ASSET} order by 1") == [
        (1, "1.50", "2026-01-01", None),
        (4, "0.30", "2026-01-01", None),
    ]
    assert [line for (line,) in shop.rows("select line from rat.quarantine order by 1")] == [2, 3, 5]
    assert step.set_aside == ({"file": "landing/b.parquet", "reason": "it has no column day"},)


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("t.sql", "select 1.239::double as x", "decimal(10,2)", 'holds "1.239", which does not fit DECIMAL(10,2)'),
        ("t.sql", "select timestamp '2026-01-01 12:00:00' as x", "date", 'it would become "2026-01-01"'),
        ("t.sql", "select true as x", "int", "does not fit INTEGER"),
        ("t.csv", "x\n1.0\n2.6\n", "int", 'holds "2.6"'),
        ("t.py", "def build(context):\n    return [{'x': 2.6}]\n", "int", 'holds "2.6"'),
    ],
)
def test_a_declared_type_of_an_asset_changes_no_value(shop, name, content, kind, said):
    shop.write({f"pipelines/silver/{name}": content, "pipelines/silver/t.yaml": f"columns: {{x: '{kind}'}}"})
    error = shop.step("silver.t").error
    assert said in error["what"], error
    assert error["where"] == "pipelines/silver/t.yaml"
    shop.write({"pipelines/silver/t.yaml": f"columns: {{x: {{type: '{kind}', sensitive: true}}}}"})
    assert "holds a value" in shop.step("silver.t").error["what"]


def test_a_declared_type_that_every_value_fits_is_given(shop):
    sql = "select 0.1::double + 0.2::double as x, '5' as n, null as nothing, 2.00::decimal(10,2) as whole, 1 as flag"
    kinds = "{x: 'decimal(10,2)', n: int, nothing: date, whole: bigint, flag: boolean}"
    shop.write({"pipelines/silver/t.sql": sql, "pipelines/silver/t.yaml": f"columns: {kinds}"})
    assert shop.step("silver.t").error is None
    assert shop.rows("select x::varchar, n, nothing, whole, flag from silver.t") == [("0.30", 5, None, 2, True)]


def test_rows_that_a_test_gives_fit_the_declared_types_too(shop):
    shop.write(
        {
            "pipelines/bronze/a.csv": "id\n1\n",
            "pipelines/bronze/a.yaml": "columns: {id: int}",
            "pipelines/silver/b.sql": "select id from {{ ref('bronze.a') }}",
            "pipelines/tests/silver.b.yaml": "tests:\n  t: {given: {bronze.a: [{id: 2.6}]}, expect: {count: 1}}\n"
            '  u: {given: {bronze.a: {csv: "id\\n2.6\\n"}}, expect: {count: 1}}\n  v: {expect: {rows: [{id: 1}]}}\n',
        }
    )
    cases = run_cases(load(shop.root)).cases
    assert [one.status for one in cases] == ["failed", "failed", "passed"]
    assert all('holds "2.6", which does not fit INTEGER' in one.error["what"] for one in cases[:2]), cases
