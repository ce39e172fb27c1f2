"""Two versions compared: columns, and rows by key, as multisets, or of a sample."""

from __future__ import annotations

import json

import pytest

from ratatouille import project as files
from ratatouille.cli.entry import run_command
from ratatouille.errors import RequestError
from ratatouille.upkeep.diff import ColumnChange, Example, diff


def diffed(shop, asset="silver.s", *versions, **options):
    return diff(files.load(shop.root), asset, *versions, **options)


def build(shop, sql, yaml="", accept=False):
    shop.write({"pipelines/silver/s.sql": sql, "pipelines/silver/s.yaml": yaml or "description: rows"})
    assert not shop.run(accept_schema=accept).failed
    return shop.entries("silver.s")[0].version


def values(*rows):
    return f"select * from (values {', '.join(rows)}) t(id, city, email)"


def test_rows_are_compared_by_key_and_the_columns_that_changed_are_counted(shop, capsys):
    yaml = "unique_key: id\ncolumns: {email: {sensitive: true}}\n"
    first = build(shop, values("(1, 'Rome', 'a@x')", "(2, 'Oslo', null)", "(3, 'Bern', 'c@x')"), yaml)
    second = build(shop, values("(1, 'Rome', 'a@x')", "(2, 'Lima', 'b@x')", "(4, null, 'd@x')"), yaml)
    found = diffed(shop)
    assert (found.before, found.after, found.key) == (first, second, ("id",))
    assert (found.rows_before, found.rows_after) == (3, 3)
    assert (found.added, found.removed, found.changed) == (1, 1, 1) and not found.same
    assert found.changed_columns == {"city": 1, "email": 1}
    assert found.examples == (
        Example("added", {"id": 4}, {}, {"id": 4, "city": None, "email": "[hidden]"}),
        Example("changed", {"id": 2}, {"city": "Oslo", "email": None}, {"city": "Lima", "email": "[hidden]"}),
        Example("removed", {"id": 3}, {"id": 3, "city": "Bern", "email": "[hidden]"}, {}),
    )
    assert diffed(shop, "silver.s", second, second).same and diffed(shop, "silver/s", second, first).added == 1
    assert run_command(["-w", str(shop.root), "diff", "silver.s", str(first), str(second)]) == 0
    said = capsys.readouterr().out
    assert "1 added, 1 removed, 1 changed" in said and "Oslo" in said and "@x" not in said
    assert run_command(["-w", str(shop.root), "diff", "silver.s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed_columns"] == {"city": 1, "email": 1}


def test_without_a_key_rows_are_multisets(shop):
    build(shop, "select unnest([1, 1, 1, 2, null]) as n")
    build(shop, "select unnest([1, 1, 3, null, null]) as n")
    found = diffed(shop)
    assert (found.key, found.added, found.removed, found.changed) == ((), 2, 2, 0)
    assert sorted(str(e.after.get("n")) for e in found.examples if e.kind == "added") == ["3", "None"]
    by_key = diffed(shop, key=["n"])
    assert by_key.key == () and "not unique" in by_key.note, "a key that is not one is said, and not used"
    with pytest.raises(RequestError, match="no column m"):
        diffed(shop, key=["m"])


def test_columns_that_came_went_or_changed_type_are_told_and_the_others_compared(shop):
    build(shop, "select 1 as id, 'a' as gone, 5 as n, {'x': [1]} as deep")
    build(shop, "select 1 as id, 'b' as come, 5::varchar as n, {'x': [2]} as deep", accept=True)
    found = diffed(shop, key=["id"])
    assert found.columns == (
        ColumnChange("gone", "VARCHAR", ""), ColumnChange("n", "INTEGER", "VARCHAR"), ColumnChange("come", "", "VARCHAR"),
    )  # fmt: skip
    assert found.changed_columns == {"deep": 1}, "5 and '5' say the same"


def test_of_large_tables_the_same_keys_are_compared_on_both_sides(shop):
    build(shop, "select i as id, i as n from range(20000) t(i)", "unique_key: id\n")
    build(shop, "select i as id, i + (i % 2) as n from range(20000) t(i)", "unique_key: id\n")
    found = diffed(shop, sample_rows=4000)
    assert found.share == 0.1 and (found.rows_before, found.rows_after) == (20000, 20000)
    assert (found.added, found.removed) == (0, 0) and 800 < found.changed < 1200
    assert diffed(shop).changed == 10000


def test_what_cannot_be_compared_says_why(shop):
    shop.write({"pipelines/gold/v.sql": "select 1 as n", "pipelines/gold/v.yaml": "materialize: view\n"})
    version = build(shop, "select 1 as n")
    for words, said in (
        (("silver.s",), "nothing to compare"),
        (("silver.s", 999), "never published"),
        (("silver.s", version, 999), "never published"),
        (("silver.t",), "There is no asset"),
        (("gold.v",), "view"),
    ):
        with pytest.raises(RequestError, match=said):
            diffed(shop, *words)
