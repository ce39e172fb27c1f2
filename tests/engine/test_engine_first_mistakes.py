"""What somebody new gets wrong: each mistake is named where it was made, in words that help."""

from __future__ import annotations

import os
import sqlite3

import pytest

from ratatouille.cli.check import _once
from ratatouille.engine import ask
from ratatouille.errors import RequestError, TransientError
from ratatouille.lake import Session
from ratatouille.project import load
from ratatouille.testing import run_cases

DAILY = {
    "pipelines/bronze/sales.sql": "select date '2026-01-01' + i::int as day, i as id from range(3) r(i)",
    "pipelines/silver/daily.sql": "select * from {{ ref('bronze.sales') }}",
    "pipelines/silver/daily.yaml": "materialize: partition\npartition_by: day",
}


def said(project) -> str:
    return "\n".join(f"{p.severity} {p.path}:{p.line} {p.message} {p.hint}" for p in project.problems)


def test_check_sees_what_a_run_would_stumble_over(shop):
    shop.write(
        {
            "pipelines/bronze/broken.py": "def build(context:\n    return 1\n",
            "pipelines/silver/typo.py": "def biuld(context):\n    return None\n",
            "pipelines/silver/other.py": "def guild(member):\n    return None\n",
            "pipelines/library.py": b"x = '\xff'\n",
            "pipelines/silver/flow.sql": "select 1 as name",
            "pipelines/silver/flow.yaml": "columns: {name: {type: decimal(10,2)}}",
            "pipelines/silver/gates.sql": "select 1 as id, 2 as v",
            "pipelines/silver/gates.yaml": "columns:\n  id: {checks: [{range: {min: 5, max: 1}}]}\n"
            "  v: {checks: [{not_null: {warn_if: '> 10', error_if: '> 5'}}]}",
            "pipelines/silver/text.sql": "select 'x' as name, '2026' as day",
            "pipelines/silver/text.yaml": "columns:\n  name: {type: varchar, checks: [{range: {min: 1}}]}\n"
            "  day: {type: text, checks: [{range: {min: '2026'}}]}",
            "pipelines/silver/parts.sql": 'select 1 as id, 2 as "Größe neu"',
            "pipelines/silver/parts.yaml": "materialize: partition\npartition_by: Größe neu",
            "pipelines/bronze/landed.sql": "select id from {{ source('f') }}",
            "pipelines/bronze/landed.yaml": "materialize: append\nsources: {f: {files: 'l/*.csv', columns: {id: int}}}",
        }
    )
    found = said(load(shop.root))
    for one in (
        "error pipelines/bronze/broken.py:1 Python syntax",
        "warn pipelines/silver/typo.py:1 pipelines/silver/typo.py has no build(context), so it builds nothing 'biuld'",
        "error pipelines/library.py:0 pipelines/library.py is not UTF-8",
        "error pipelines/silver/flow.yaml:1 decimal(10,2) needs quotes",
        "error pipelines/silver/gates.yaml:2 min 5 is above max 1",
        "error pipelines/silver/gates.yaml:3 it would be an error (> 5) before it is a warning (> 10)",
        "error pipelines/silver/text.yaml:2 range compares numbers, and name is a varchar",
        "error pipelines/silver/parts.yaml:2 'Größe neu' cannot name the folders",
        "error pipelines/bronze/landed.sql:0 this query reads landing files but drops _file",
    ):
        assert one in found, found
    assert "day is a" not in found, "texts compare with texts"
    assert "other.py" not in found, "an ordinary function is nobody's mistake"


def test_a_mistake_of_a_macro_is_told_once_with_those_who_meet_it(shop):
    shop.write(
        {
            "macros/m.sql": "{% macro cents(x) %}({{ x }}){% endmacr %}",
            "pipelines/silver/a.sql": "select {{ cents('1') }} as x",
            "pipelines/silver/b.sql": "select {{ cents('2') }} as x",
        }
    )
    problems = load(shop.root).problems
    assert len(problems) == 2, problems
    ((_, assets),) = _once(problems)
    assert assets == ["silver.a", "silver.b"]


@pytest.mark.parametrize("gate", ["{range: {min: 1}}", "{expression: 'name > 1'}", "{distribution: {mean: [0, 1]}}"])
def test_a_gate_that_cannot_be_asked_is_named(shop, gate):
    shop.write(
        {
            "pipelines/silver/t.sql": "select 'x' as name",
            "pipelines/silver/t.yaml": f"columns: {{name: {{checks: [not_null, {gate}]}}}}",
        }
    )
    error = shop.step("silver.t").error
    assert "silver.t: the gate name_" in error["what"] and "cannot be asked" in error["what"]
    assert error["where"].startswith("pipelines/silver/t.yaml, check name_")


def test_partitions_without_a_name_are_those_of_assets_that_have_some(shop):
    shop.write(DAILY).run()
    steps = shop.run(partitions=("2026-01-02",), force=True).steps
    assert [step.asset for step in steps] == ["silver.daily"]
    error = shop.step("silver.daily", partitions=("2026-01-03..2026-01-01",)).error
    assert "ends before it begins" in error["what"]
    assert error["next"].endswith("--partition 2026-01-01..2026-01-03")


def test_the_plan_of_one_asset_does_not_wait_for_what_was_not_asked_for(shop):
    shop.write(DAILY | {"workspace.yaml": "name: shop\nenvironments: {dev: {}}\n"}).run()
    shop.write({"pipelines/bronze/sales.sql": DAILY["pipelines/bronze/sales.sql"] + " where true"})
    (step,) = shop.plan("silver.daily").steps
    assert (step.action, step.rule) == ("skip", "fresh"), "as rat run silver.daily finds it"
    workspace = load(shop.root, environment=os.environ | {"RATATOUILLE_ENV": "dev"}).workspace
    assert workspace.environment in ("dev", "")


def test_a_query_in_an_environment_reads_what_only_the_default_lake_has(shop, monkeypatch):
    shop.write(DAILY | {"workspace.yaml": "name: shop\nenvironments: {dev: {}}\n"}).run()
    monkeypatch.setenv("RATATOUILLE_ENV", "dev")
    shop.write({"pipelines/silver/daily.sql": "select * from {{ ref('bronze.sales') }} where id > 0"})
    shop.run("silver.daily")
    with ask.reading(load(shop.root).workspace) as session:
        assert session.rows("select (select count(*) from bronze.sales), (select count(*) from silver.daily)") == [
            (3, 2)
        ]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("import sys\n    sys.exit('no data')", "SystemExit: no data"),
        ("return [{'a': 1}, {'a': 'x'}]", "what build() returned is no table: Arrow"),
        ("raise KeyboardInterrupt", "it was interrupted"),
    ],
)
def test_what_a_build_does_wrong_is_not_called_our_defect(shop, body, what):
    shop.write({"pipelines/silver/t.py": f"def build(context):\n    {body}\n"})
    error = shop.step("silver.t").error
    assert what in error["what"], error
    assert error["next"].endswith("rat run silver.t")


def test_a_locked_database_is_named_and_not_the_lake(shop, monkeypatch):
    shop.write(
        {
            "workspace.yaml": "name: shop\ndatabases: {till: {type: sqlite, path: shop.sqlite}}\n",
            "pipelines/bronze/t.sql": "select * from {{ source('till.t') }}",
            "pipelines/bronze/t.yaml": "retries: {max: 0}",
        }
    )
    with sqlite3.connect(shop.root / "shop.sqlite") as database:
        database.execute("create table t as select 1 as id")

    def locked(self, select):  # what DuckDB says after five seconds while another process holds the lock
        raise TransientError("building bronze.t: Failed to prepare query: database is locked", where="the lake")

    monkeypatch.setattr(Session, "describe", locked)
    error = shop.step("bronze.t").error
    assert "another program has locked the database till" in error["what"], error
    assert error["where"] == "workspace.yaml: databases.till"


def test_columns_and_values_that_look_like_our_own_change_nothing(shop):
    shop.write(
        {
            "pipelines/silver/history.sql": "select * from {{ ref('silver.now') }}",
            "pipelines/silver/history.yaml": "materialize: snapshot\nunique_key: id\ndeletions: close",
            "pipelines/silver/now.sql": "select 1 as id, 'a' as _gone, true as _again, 3 as _so, 4 as _since",
            "pipelines/silver/parts.sql": "select 1 as id, '__HIVE_DEFAULT_PARTITION__' as part",
            "pipelines/silver/parts.yaml": "materialize: partition\npartition_by: part",
        }
    )
    first = shop.run()
    assert 'part holds "__HIVE_DEFAULT_PARTITION__"' in first.step("silver.parts").error["what"], (
        "it would be read as null"
    )
    shop.write({"pipelines/silver/now.sql": "select 1 as id, 'b' as _gone, true as _again, 3 as _so, 4 as _since"})
    shop.run("silver.now", "silver.history")
    assert shop.rows("select _gone, is_current from silver.history order by 1") == [("a", False), ("b", True)]


def test_a_merge_from_landing_files_keeps_the_row_of_the_later_file_however_it_is_built(shop):
    shop.write(
        {
            "pipelines/silver/t.sql": "select * from {{ source('landing/*.csv') }}",
            "pipelines/silver/t.yaml": "materialize: merge\nunique_key: id\non_fail: quarantine\nmax_quarantine: 1\n"
            "sources: {landing/*.csv: {columns: {id: int, v: varchar}}}",
            "landing/b.csv": "id,v\n1,first\n2,only\n",
        }
    )
    shop.run()
    shop.write({"landing/a.csv": "id,v\n1,second\n"})
    shop.run()
    expected = [(1, "second"), (2, "only")]
    assert shop.rows("select id, v from silver.t order by 1") == expected
    for _ in range(2):
        assert shop.step("silver.t", force=True).rows_quarantined == 0
        assert shop.rows("select id, v from silver.t order by 1") == expected, "a.csv came later, whatever its name"
    shop.write({"landing/c.csv": "id,v\n1,third\n", "landing/d.csv": "id,v\n1,fourth\n"})
    step = shop.step("silver.t")
    assert (step.rows_in, step.rows_quarantined) == (2, 0)
    assert shop.rows("select v from silver.t where id = 1") == [("fourth",)]


def test_a_test_that_names_no_such_column_or_is_no_test_says_so(shop):
    shop.write(DAILY | {"pipelines/tests/silver.daily.yaml": "tests:\n  t:\n    given: {bronze.sales: [{dya: 2026-01-01}]}\n    expect: {count: 1}\n"})  # fmt: skip
    with pytest.raises(RequestError, match=r"bronze\.sales has no column 'dya'") as raised:
        run_cases(load(shop.root), ("silver.daily",))
    assert "day" in raised.value.next
    shop.write({"pipelines/tests/silver.daily.yaml": "test:\n  t: {expect: {count: 1}}\n"})
    with pytest.raises(RequestError, match="has no tests: in it"):
        run_cases(load(shop.root), ("silver.daily",))
