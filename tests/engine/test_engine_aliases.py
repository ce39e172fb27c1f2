"""`aliases:` of a source: files call one column by several names, in CSV, JSON and Parquet."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ratatouille.errors import RatError

COLUMNS = "columns: {name: varchar, amount: 'decimal(10,2)', zone: varchar}, optional: [zone], aliases: {amount: [Award Amount, sum], name: []}"


def files(kind: str) -> dict[str, str | bytes]:
    return {
        "pipelines/bronze/x.sql": "select name, amount, zone, _file from {{ source('x') }}",
        "pipelines/bronze/x.yaml": f"materialize: append\nsources: {{x: {{files: 'landing/x/*', format: {kind}, {COLUMNS}}}}}",
    }


def test_csv_columns_are_found_by_their_other_names_without_case_blanks_and_punctuation(shop) -> None:
    shop.write({**files("csv"), "landing/x/1": "NAME,Award-Amount\na,1\n", "landing/x/2": "sum,Name,Zone\n2,b,z\n", "landing/x/3": "name,amount,sum\nc,1,2\n",
                "landing/x/4": "name,Award Amt\nd,3\n", "landing/x/5": "name,price\ne,3\n"})  # fmt: skip
    step = shop.step("bronze.x")
    assert [
        (row[0], str(row[1]), row[2]) for row in shop.rows("select name, amount, zone from bronze.x order by 1")
    ] == [("a", "1.00", None), ("b", "2.00", "z")]
    assert {one["file"][-1]: one["reason"] for one in step.set_aside} == {
        "3": "amount and sum are both amount",
        "4": "its header has no column amount (Award Amt may be meant)",
        "5": "its header has no column amount",
    }
    # A value that does not fit its type is told by the column's own name, and the line is kept.
    shop.write({"landing/x/6": "Name,Sum\nf,1\n" + "g,1\n" * 40 + "h,1.234\n"})
    step = shop.step("bronze.x")
    assert (step.rows_rejected, step.rows_written) == (1, 41)
    assert shop.run().status == "fresh"  # the declared names come back from the cache


def test_json_fields_too_also_where_the_objects_of_a_file_differ(shop) -> None:
    rows = [{"Name": "a", "Award Amount": 1.5}, {"name": "b", "sum": 2}, {"name": "c", "amount": "3", "zone": "z"}]
    shop.write({**files("json"), "landing/x/1": json.dumps(rows), "landing/x/2": json.dumps([{"name": "d", "amt": 1}])})
    step = shop.step("bronze.x")
    assert [(row[0], str(row[1]), row[2]) for row in shop.rows("select name, amount, zone from bronze.x order by 1")] == [
        ("a", "1.50", None), ("b", "2.00", None), ("c", "3.00", "z"),
    ]  # fmt: skip
    assert [one["reason"] for one in step.set_aside] == ["no row of it has the field amount (amt may be meant)"]


def test_parquet_columns_too(shop, tmp_path) -> None:
    shop.write({**files("parquet"), "landing/x/.keep": ""})
    pq.write_table(pa.table({"Name": ["a"], "SUM": ["1.5"]}), shop.root / "landing/x/1.parquet")
    shop.step("bronze.x")
    assert [(row[0], str(row[1])) for row in shop.rows("select name, amount from bronze.x")] == [("a", "1.50")]


@pytest.mark.parametrize(
    ("aliases", "said"),
    [("{amonut: [sum]}", "Did you mean 'amount'"), ("{amount: [sum], name: [Sum]}", "`aliases` says twice what sum means"), ("{amount: [Name]}", "says twice")],
)  # fmt: skip
def test_aliases_that_cannot_be_are_refused(shop, aliases: str, said: str) -> None:
    yaml = f"materialize: append\nsources: {{x: {{files: 'landing/x/*.csv', columns: {{name: varchar, amount: integer}}, aliases: {aliases}}}}}"
    shop.write({**files("csv"), "pipelines/bronze/x.yaml": yaml})
    with pytest.raises(RatError) as refused:
        shop.run()
    assert said in f"{refused.value.what} {refused.value.next}"
