"""Landing files: each read exactly once, every row accounted for, bad files set aside."""

from __future__ import annotations

import gzip
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratatouille.errors import RequestError

ASSET = "bronze.sales"
SQL = {"pipelines/bronze/sales.sql": "select * from {{ source('landing/*.csv') }}"}
TEXT = SQL | {"pipelines/bronze/sales.yaml": "materialize: append\nmax_quarantine: 0.5"}
TYPED = SQL | {
    "pipelines/bronze/sales.yaml": """
materialize: append
max_quarantine: 0.5
sources: {"landing/*.csv": {columns: {id: bigint, amount: "decimal(10,2)"}}}
"""
}


def test_new_files_are_read_once_and_rows_know_where_they_came_from(shop):
    shop.write(TYPED).write({"landing/a.csv": "id,amount\n1,1.5\n2,2.5\n"})
    first = shop.step(ASSET)
    assert (first.rows_in, first.rows_written, first.files) == (2, 2, ("landing/a.csv",))
    assert shop.step(ASSET).status == "skipped"
    shop.write({"landing/b.csv": "id,amount\n3,3.5\n"})
    second = shop.step(ASSET)
    assert (second.mode, second.rows_written, second.rows_total) == ("incremental", 1, 3)
    known = shop.rows(f"select _file, _run_id is not null, _loaded_at is not null, id from {ASSET} order by id")
    assert known == [
        ("landing/a.csv", True, True, 1),
        ("landing/a.csv", True, True, 2),
        ("landing/b.csv", True, True, 3),
    ]


def test_a_touched_file_is_not_read_again(shop):
    shop.write(TYPED).write({"landing/a.csv": "id,amount\n1,1.5\n"})
    shop.run()
    os.utime(shop.root / "landing/a.csv", (1, 1))
    assert shop.step(ASSET).status == "skipped"


def test_a_rewritten_file_replaces_its_rows(shop):
    shop.write(TYPED).write({"landing/a.csv": "id,amount\n1,1\n2,2\n", "landing/b.csv": "id,amount\n9,9\n"})
    shop.run()
    shop.write({"landing/a.csv": "id,amount\n1,100\n"})
    step = shop.step(ASSET)
    assert (step.rows_written, step.rows_total) == (1, 2)
    assert shop.rows(f"select id, amount::int from {ASSET} order by id") == [(1, 100), (9, 9)]


def test_rows_that_cannot_be_read_are_counted_and_kept_with_the_reason(shop):
    shop.write(TYPED).write({"landing/a.csv": "id,amount\n1,1\nx,2\n3\n4,4,4\n5,5\n6,6\n7,7\n"})
    step = shop.step(ASSET)
    assert (step.rows_in, step.rows_written, step.rows_rejected) == (7, 4, 3)
    kept = shop.rows('select file, line, "row", reason from rat.quarantine order by line')
    assert [(f, line, row) for f, line, row, _ in kept] == [
        ("landing/a.csv", 3, "x,2"),
        ("landing/a.csv", 4, "3"),
        ("landing/a.csv", 5, "4,4,4"),
    ]
    assert "BIGINT" in kept[0][3]


def test_rejects_of_a_rewritten_file_are_replaced_too(shop):
    shop.write(TYPED).write({"landing/a.csv": "id,amount\n1,1\nx,2\n"})
    shop.run()
    shop.write({"landing/a.csv": "id,amount\n1,1\n2,2\n"})
    shop.run()
    assert shop.value("select count(*) from rat.quarantine") == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('id,amount\n1,"never closed\n2,2\n', "never closed"),
        ("", "empty"),
        ("id,id\n1,2\n", "twice"),
        ("id,_file\n1,2\n", "_file"),
        ("name,amount\nx,1\n", "no column id"),
        ("id,amount\nx,1\ny,2\nz,3\n4,4\n", "more than 50%"),
    ],
)
def test_a_bad_file_is_set_aside_and_the_others_go_on(shop, content, reason):
    shop.write(TYPED).write({"landing/good.csv": "id,amount\n1,1\n", "landing/bad.csv": content})
    step = shop.step(ASSET)
    assert (step.status, step.files, step.rows_total) == ("built", ("landing/good.csv",), 1)
    assert [(a["file"], reason in a["reason"]) for a in step.set_aside] == [("landing/bad.csv", True)], step.set_aside
    again = shop.run(ASSET)
    assert again.step(ASSET).status == "skipped", "it is not tried again until it changes"
    assert [row["file"] for row in again.set_aside] == ["landing/bad.csv"], "and it is not forgotten either"
    shop.write({"landing/bad.csv": "id,amount\n2,2\n"})
    assert shop.step(ASSET).rows_total == 2


def test_when_every_file_is_bad_the_step_fails_with_the_reason(shop):
    shop.write(TYPED).write({"landing/bad.csv": "name\nx\n"})
    error = shop.step(ASSET).error
    assert "no column id" in error["where"]


def test_a_half_written_gzip_or_json_is_set_aside(shop):
    whole = gzip.compress(json.dumps([{"id": i} for i in range(1000)]).encode())
    shop.write(
        {
            "pipelines/bronze/laps.sql": "select * from {{ source('landing/*.json.gz') }}",
            "pipelines/bronze/laps.yaml": "materialize: append",
            "landing/good.json.gz": whole,
            "landing/half.json.gz": whole[: len(whole) // 2],
            "landing/cut.json.gz": gzip.compress(b'[{"id": 1}, {"id"'),
        }
    )
    step = shop.step("bronze.laps")
    assert step.rows_total == 1000
    assert sorted(a["file"] for a in step.set_aside) == ["landing/cut.json.gz", "landing/half.json.gz"]


def test_unfinished_and_hidden_files_are_left_alone(shop):
    row = "id,amount\n1,1\n"
    shop.write(TYPED | {"pipelines/bronze/sales.sql": "select * from {{ source('landing/*') }}"})
    shop.write({"pipelines/bronze/sales.yaml": "materialize: append\nsources: {'landing/*': {format: csv}}"})
    shop.write({"landing/a.csv": row, "landing/b.csv.part": row, "landing/.c.csv": row, "landing/d.csv.tmp": row})
    assert shop.step(ASSET).files == ("landing/a.csv",)


def test_columns_are_read_by_name_whatever_their_order(shop):
    shop.write(TEXT).write({"landing/a.csv": "id,amount\n1,10\n", "landing/b.csv": "amount,id,extra\n20,2,new\n"})
    shop.run()
    assert shop.rows(f"select id, amount, extra from {ASSET} order by id") == [("1", "10", None), ("2", "20", "new")]


def test_a_new_column_in_a_later_file_joins_the_table(shop):
    shop.write(TEXT).write({"landing/a.csv": "id\n1\n"})
    shop.run()
    shop.write({"landing/b.csv": "id,extra\n2,new\n"})
    shop.run()
    assert shop.rows(f"select id, extra from {ASSET} order by id") == [("1", None), ("2", "new")]


def test_text_is_kept_to_the_letter(shop):
    content = 'id,note\r\n1,"two\r\nlines, and a ""quote"""\r\n2,007\r\n3, spaced \r\n'
    shop.write(TEXT).write({"landing/a.csv": "\ufeff" + content})
    assert shop.step(ASSET).rows_in == 3
    assert shop.rows(f"select id, note from {ASSET} order by id") == [
        ("1", 'two\r\nlines, and a "quote"'),
        ("2", "007"),
        ("3", " spaced "),
    ]


def test_a_lone_quote_inside_a_value_is_no_reason_to_lose_a_row(shop):
    shop.write(TEXT).write({"landing/a.csv": 'id,size\n1,5" pipe\n2,6\n'})
    assert shop.step(ASSET).rows_total == 2


def test_a_rebuild_refuses_to_lose_files_that_are_gone(shop):
    shop.write(TYPED).write({"landing/a.csv": "id,amount\n1,1\n", "landing/b.csv": "id,amount\n2,2\n"})
    shop.run()
    shop.remove("landing/a.csv")
    assert shop.step(ASSET).status == "skipped", "a file that is gone changes nothing by itself"
    refused = shop.step(ASSET, force=True)
    assert refused.status == "failed"
    assert "landing/a.csv" in refused.error["where"]
    assert shop.value(f"select count(*) from {ASSET}") == 2
    assert shop.step(ASSET, force=True, accept_loss=True).rows_total == 1


def test_a_query_that_filters_is_still_accounted_for(shop):
    shop.write(TYPED | {"pipelines/bronze/sales.sql": "select * from {{ source('landing/*.csv') }} where id > 1"})
    shop.write({"landing/a.csv": "id,amount\n1,1\n2,2\nbad,3\n4,4\n"})
    step = shop.step(ASSET)
    assert (step.rows_in, step.rows_written, step.rows_rejected) == (4, 2, 1)


def test_landing_rows_without_their_file_are_refused(shop):
    shop.write(TYPED | {"pipelines/bronze/sales.sql": "select id from {{ source('landing/*.csv') }}"})
    shop.write({"landing/a.csv": "id,amount\n1,1\n"})
    with pytest.raises(RequestError, match="drops _file"):
        shop.run()


def test_a_link_out_of_the_workspace_is_not_read(shop, tmp_path):
    (tmp_path / "outside.csv").write_text("id,amount\n1,1\n")
    shop.write(TYPED).write({"landing/a.csv": "id,amount\n2,2\n"})
    (shop.root / "landing/b.csv").symlink_to(tmp_path / "outside.csv")
    assert shop.step(ASSET).files == ("landing/a.csv",)


def test_an_array_cut_after_a_comma_is_set_aside_not_half_read(shop):
    cut = b'[{"id": 1}, {"id": 2},\n'
    shop.write(
        {
            "pipelines/bronze/laps.sql": "select * from {{ source('landing/*.json*') }}",
            "pipelines/bronze/laps.yaml": "materialize: append\nsources: {'landing/*.json*': {format: json}}",
            "landing/a.json": b'\n [{"id": 0}]\n\n',
            "landing/b.json": cut,
            "landing/c.json.gz": gzip.compress(cut),
            "landing/d.jsonl": b'{"id": 3}\n{"id": 4}\n',
            "landing/e.json": b"[]",
        }
    )
    step = shop.step("bronze.laps")
    assert {a["file"] for a in step.set_aside} == {"landing/b.json", "landing/c.json.gz"}
    assert all("not closed" in a["reason"] for a in step.set_aside)
    shop.write({"landing/b.json": b'[{"id": 1}, {"id": 2}]'})
    assert shop.step("bronze.laps").rows_written == 2
    assert shop.rows("select id from bronze.laps order by 1") == [(0,), (1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_column_that_joined_may_be_absent_from_later_files(shop, kind):
    def land(name, **row):
        text = json.dumps([row]) if kind == "json" else f"{','.join(row)}\n{','.join(map(str, row.values()))}\n"
        shop.write({f"landing/{name}.{kind}": text})

    shop.write(
        {
            "pipelines/bronze/laps.sql": f"select * from {{{{ source('landing/*.{kind}') }}}}",
            "pipelines/bronze/laps.yaml": f"materialize: append\nsources: {{'landing/*.{kind}': {{columns: {{id: integer}}}}}}",
        }
    )
    land("a", id=1)
    shop.run()
    land("b", id=2, tyre="soft")
    assert "tyre" in shop.step("bronze.laps").warnings[0]
    land("c", id=3)
    step = shop.step("bronze.laps")
    assert (step.error, step.rows_written, step.warnings) == (None, 1, ())
    assert shop.rows("select id, tyre from bronze.laps order by 1") == [(1, None), (2, "soft"), (3, None)]


def test_an_empty_array_brings_no_column(shop):
    shop.write(
        {
            "pipelines/bronze/laps.sql": "select * from {{ source('landing/**/*.json') }}",
            "pipelines/bronze/laps.yaml": "materialize: append",
            "landing/day=1/a.json": b"[]",
        }
    )
    assert shop.step("bronze.laps").rows_written == 0
    shop.write({"landing/day=2/b.json": b'[{"id": 1, "json": {"a": 1}}]', "landing/day=3/c.json": b"[]"})
    assert shop.step("bronze.laps").rows_written == 1
    assert shop.rows("select id, json.a, day from bronze.laps") == [(1, 1, 2)]
    shop.write(
        {"landing/flat.json": b"[]", "pipelines/bronze/flat.sql": "select * from {{ source('landing/flat*.json') }}"}
    )
    assert "no landing file with rows" in shop.step("bronze.flat").error["what"]


def test_a_declared_field_that_no_object_of_a_file_has_sets_it_aside_unless_it_is_optional(shop):
    many = [{"id": i, "note": None} | ({"late": True} if i == 400 else {}) for i in range(500)]
    shop.write(
        {
            "pipelines/bronze/laps.sql": "select id, late, note, day, _file from {{ source('laps') }}",
            "pipelines/bronze/laps.yaml": "materialize: append\nsources: {laps: {files: landing/*.json, optional: [day],"
            " columns: {id: integer, late: boolean, note: varchar, day: date}}}",
            "landing/late.json": json.dumps(many),
            "landing/renamed.json": json.dumps([{"id": 1, "late": False, "notes": "x"}]),
        }
    )
    step = shop.step("bronze.laps")
    assert step.set_aside == (
        {"file": "landing/renamed.json", "reason": "no row of it has the field note (notes may be meant)"},
    )
    assert shop.rows("select count(*), count(late), count(day) from bronze.laps") == [(500, 1, 0)]


def test_an_optional_column_that_a_csv_file_lacks_is_null(shop):
    shop.write(SQL).write(
        {
            "pipelines/bronze/sales.yaml": "materialize: append\n"
            "sources: {landing/*.csv: {columns: {id: integer, note: varchar, day: date}, optional: [day]}}",
            "landing/a.csv": "id,note\n1,x\n",
            "landing/b.csv": "id\n2\n",
        }
    )
    step = shop.step(ASSET)
    assert step.set_aside == ({"file": "landing/b.csv", "reason": "its header has no column note"},)
    shop.write({"landing/c.csv": "day,note,id\n2026-01-02,y,3\n"})
    shop.run()
    assert shop.rows(f"select id, note, day::varchar from {ASSET} order by 1") == [
        (1, "x", None),
        (3, "y", "2026-01-02"),
    ]


def test_json_keeps_nested_values_and_later_files_fit_the_table(shop):
    shop.write(
        {
            "pipelines/bronze/laps.sql": "select * from {{ source('landing/*.json') }}",
            "pipelines/bronze/laps.yaml": "materialize: append",
            "landing/1.json": json.dumps([{"lap": 1, "segments": [1, None, 3], "time": 74.5}]),
        }
    )
    shop.run()
    shop.write({"landing/2.json": json.dumps([{"lap": 2, "segments": None, "time": None}])})
    assert shop.step("bronze.laps").status == "built"
    assert shop.rows("select lap, segments, time from bronze.laps order by 1") == [
        (1, [1, None, 3], 74.5),
        (2, None, None),
    ]


def test_a_field_inside_a_column_that_has_no_place_for_it_is_told_and_can_be_taken_in(shop):
    shop.write(
        {
            "pipelines/bronze/people.sql": "select * from {{ source('landing/*.json') }}",
            "pipelines/bronze/people.yaml": "materialize: append",
            "landing/1.json": json.dumps([{"id": 1, "home": {"city": "Oslo"}}]),
        }
    )
    assert shop.step("bronze.people").warnings == ()
    shop.write({"landing/2.json": json.dumps([{"id": 2, "home": {"city": "Bern", "at": [{"zip": "3011"}]}}])})
    step = shop.step("bronze.people")
    assert step.status == "built" and len(step.warnings) == 1
    assert "home.at.zip (VARCHAR)" in step.warnings[0] and "-f --accept-schema" in step.warnings[0]
    assert shop.rows("select id, home.city from bronze.people order by 1") == [(1, "Oslo"), (2, "Bern")]

    accepted = shop.step("bronze.people", force=True, accept_schema=True)
    assert accepted.status == "built" and accepted.warnings == ()
    assert shop.rows("select id, home.at[1].zip from bronze.people order by 1") == [(1, None), (2, "3011")]


def test_a_declared_type_says_which_fields_inside_it_are_not_read(shop):
    import polars

    shop.write(
        {
            "pipelines/bronze/people.sql": "select * from {{ source('landing/*.parquet') }}",
            "pipelines/bronze/people.yaml": """
                materialize: append
                sources:
                  landing/*.parquet: {columns: {id: bigint, home: struct(city varchar)}}
                """,
        }
    )
    (shop.root / "landing").mkdir()
    polars.DataFrame({"id": [1], "home": [{"city": "Oslo", "zip": "0150"}]}).write_parquet(
        shop.root / "landing/1.parquet"
    )
    step = shop.step("bronze.people")
    assert step.status == "built" and "home.zip (VARCHAR)" in step.warnings[0]


def test_parquet_files_are_read_by_name(shop):
    import polars

    shop.write(
        {
            "pipelines/bronze/points.sql": "select * from {{ source('landing/*.parquet') }}",
            "pipelines/bronze/points.yaml": "materialize: append",
        }
    )
    (shop.root / "landing").mkdir()
    polars.DataFrame({"a": [1], "b": ["x"]}).write_parquet(shop.root / "landing/1.parquet")
    polars.DataFrame({"b": ["y"], "a": [2]}).write_parquet(shop.root / "landing/2.parquet")
    shop.run()
    assert shop.rows("select a, b, _file from bronze.points order by 1") == [
        (1, "x", "landing/1.parquet"),
        (2, "y", "landing/2.parquet"),
    ]


CELL = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=("Cs",)), max_size=8)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6))
def test_any_text_written_by_a_csv_writer_comes_back_or_is_counted(new_shop, rows):
    import csv
    import io
    from uuid import uuid4

    shop = new_shop(f"shop{uuid4().hex}").write(TEXT)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerows([("n", "a", "b"), *((number, a, b) for number, (a, b) in enumerate(rows))])
    shop.write({"landing/a.csv": buffer.getvalue()})
    step = shop.step(ASSET)
    if step.status == "failed":
        assert step.error["where"].startswith("landing/a.csv:"), step.error
        return
    assert step.rows_in == len(rows) == step.rows_written + step.rows_rejected
    read = {n: (a or "", b or "") for n, a, b in shop.rows(f"select n::int, a, b from {ASSET}")}
    assert {n: rows[n] for n in read} == read


ALIASED = """
materialize: append
sources:
  landing/*:
    format: {format}
    columns: {{company_name: varchar, amount: "decimal(18,2)", uei: varchar}}
    optional: [uei]
    aliases: {{company_name: [Company, firm]}}
"""


def test_files_may_call_a_column_otherwise_and_all_of_them_make_one_table(shop):
    shop.write(
        {
            "pipelines/bronze/t.sql": "select * exclude (_loaded_at, _run_id) from {{ source('landing/*') }}",
            "pipelines/bronze/t.yaml": ALIASED.format(format="csv"),
            "landing/1.csv": "Company,Amount,UEI\na,1.50,U1\n",
            "landing/2.csv": "amount,FIRM\n2,b\n",
            "landing/3.csv": "company name,amount\nc,3\n",
            "landing/4.csv": "Enterprise,amount\nd,4\n",
        }
    )
    step = shop.step("bronze.t")
    assert step.set_aside == ({"file": "landing/4.csv", "reason": "its header has no column company_name"},), step
    assert shop.rows("select company_name, amount::varchar, uei from bronze.t order by 1") == [
        ("a", "1.50", "U1"),
        ("b", "2.00", None),
        ("c", "3.00", None),
    ]


def test_objects_may_call_a_field_otherwise_too(shop):
    """Also where names differ in case only, which DuckDB's reader takes for fields of their own."""
    shop.write(
        {
            "pipelines/bronze/t.sql": "select company_name, amount::varchar as amount, _file from {{ source('landing/*') }}",
            "pipelines/bronze/t.yaml": ALIASED.format(format="json"),
            "landing/1.json": json.dumps([{"Company": "a", "amount": 1.5}]),
            "landing/2.json": json.dumps([{"firm": "b", "Amount": 2}, {"company_name": "c", "Amount": 3}]),
            "landing/3.json": json.dumps([{"firm": "d", "amount": 4}, {"firm": "e", "AMOUNT": 5}]),
        }
    )
    step = shop.step("bronze.t")
    [aside] = step.set_aside
    assert aside["file"] == "landing/3.json" and "differ in case only: amount" in aside["reason"], step
    assert shop.rows("select company_name, amount from bronze.t order by 1") == [
        ("a", "1.50"),
        ("b", "2.00"),
        ("c", "3.00"),
    ]


def test_a_field_of_another_case_is_the_column_that_stands(shop):
    shop.write(
        {
            "pipelines/bronze/t.sql": "select id, total, _file from {{ source('landing/*.json') }}",
            "pipelines/bronze/t.yaml": "materialize: append\n",
            "landing/1.json": json.dumps([{"id": 1, "total": 1.5}]),
        }
    )
    shop.run()
    shop.write({"landing/2.json": json.dumps([{"ID": 2, "Total": 2.5}])})
    assert shop.step("bronze.t").status == "built"
    assert shop.rows("select id, total from bronze.t order by 1") == [(1, 1.5), (2, 2.5)]


@pytest.mark.parametrize(
    ("aliases", "said"),
    [
        ("{nobody: [x]}", "`aliases` names nobody, which is not under `columns:`"),
        ("{company_name: [x], amount: [X]}", "`aliases` says twice what x means"),
    ],
)
def test_aliases_that_cannot_be_meant_are_refused(shop, aliases, said):
    shop.write(
        {
            "pipelines/bronze/t.sql": "select * from {{ source('landing/*.csv') }}",
            "pipelines/bronze/t.yaml": "sources:\n  landing/*.csv:\n    columns: {company_name: varchar, amount: double}\n"
            f"    aliases: {aliases}\n",
        }
    )
    with pytest.raises(RequestError) as refused:
        shop.run()
    assert said in str(refused.value)
