"""`rat test`: given rows in, expected rows out, on the stages of a real run and never in the real lake."""

from __future__ import annotations

import hashlib
import json

import pytest

from ratatouille import project as files
from ratatouille.cli.entry import run_command
from ratatouille.errors import RequestError
from ratatouille.testing import run_cases

FILES = {
    "pipelines/p/bronze/sales.sql": "select * from {{ source('landing/sales/*.csv') }}",
    "pipelines/p/bronze/sales.yaml": "materialize: append\non_fail: quarantine\nmax_quarantine: 0.6\n"
    "sources: {landing/sales/*.csv: {columns: {id: integer, quantity: integer, price: double, sold_at: timestamp}}}\n",
    "pipelines/p/bronze/cities.csv": "city,country\nRome,IT\nOslo,NO\n",
    "pipelines/p/silver/sales.sql": "select id, quantity * price as total, sold_at from {{ ref('bronze.sales') }}\n"
    "{% if is_incremental() %} where sold_at > {{ watermark('sold_at') }} {% endif %} order by id\n",
    "pipelines/p/silver/sales.yaml": "materialize: merge\nunique_key: id\ncolumns:\n  total: {checks: [positive]}\n",
    "pipelines/p/silver/people.py": "def build(context):\n"
    "    factor = context.var('factor', 1)\n"
    '    return context.query(f"select name, age * {factor} as age, country from {_of(context)} left join"\n'
    "        ' lake.bronze.cities using (city)')\n\n"
    "def _of(context):\n    context.ref('bronze.cities')\n    context.ref('bronze.people').create_view('people_')\n    return 'people_'\n",
    "pipelines/p/bronze/people.sql": "select 'x' as name, 1 as age, 'Rome' as city, 'a@x' as email",
    "pipelines/p/bronze/people.yaml": "columns: {age: integer}\n",
    "pipelines/p/gold/all.sql": "select count(*) as n, '{{ var(\"label\", \"none\") }}' as label from {{ ref('silver.sales') }}",
    "pipelines/p/gold/all.yaml": "materialize: view\n",
}
SALES = "[{id: 1, quantity: 3, price: 0.1, sold_at: 2026-01-01}, {id: 2, quantity: 1, price: 3, sold_at: 2026-01-03}]"
PASSING = f"""
tests:
  floats are compared to nine places:
    given: {{bronze.sales: {SALES}}}
    expect: {{rows: [{{id: 2, total: 3}}, {{id: 1, total: 0.3}}], count: 2, gates: pass}}
  order counts when asked:
    given: {{bronze.sales: {SALES}}}
    expect: {{rows: [{{id: 1}}, {{id: 2}}], ordered: true}}
  only what is newer than the published rows:
    given: {{bronze.sales: {SALES}}}
    published: [{{id: 2, total: 9, sold_at: 2026-01-02}}, {{id: 7, total: 1, sold_at: 2025-01-01}}]
    expect: {{new_rows: [{{id: 2, total: 3}}], new_count: 1, rows: [{{id: 2, total: 3}}, {{id: 7, total: 1}}]}}
  a watermark without published rows:
    given: {{bronze.sales: {SALES}}}
    watermark: {{sold_at: 2026-01-02}}
    expect: {{rows: [{{id: 2}}]}}
  a gate fails on the row that it should:
    given: {{bronze.sales: [{{id: 1, quantity: -1, price: 1}}, {{id: 2, quantity: 1, price: 1}}]}}
    expect: {{gates: {{total_positive: 1, unique_key: pass}}, count: 2}}
  a gate stops the candidate:
    given: {{bronze.sales: [{{id: 1, quantity: -1, price: 1}}]}}
    expect: {{error: total_positive}}
  twins are refused:
    given: {{bronze.sales: [{{id: 1, quantity: 1, price: 1}}, {{id: 1, quantity: 2, price: 1}}]}}
    expect: {{gates: {{unique_key: fail}}}}
  rows from a file:
    given: {{bronze.sales: {{file: sales.FORMAT}}}}
    expect: {{rows: {{csv: "id,total\\n1,2.5\\n"}}}}
  none:
    given: {{bronze.sales: {{rows: [], columns: {{id: integer, quantity: integer, price: double, sold_at: timestamp}}}}}}
    expect: {{rows: []}}
"""


def tried(shop, *selectors, **options):
    return run_cases(files.load(shop.root), selectors, **options)


def outcome(done):
    return {
        one.name: (one.status, [d.what for d in one.differences], one.error and one.error["what"]) for one in done.cases
    }


def passes(done):
    assert not done.failed, outcome(done)
    return [one.name for one in done.cases]


def below(folder):
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "cache" not in path.parts
    }


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_sql_assets_are_tested_on_given_rows(shop, kind):
    import duckdb

    shop.write(FILES | {"pipelines/p/tests/silver.sales.yaml": PASSING.replace("FORMAT", kind)})
    rows = "select 1 as id, 5 as quantity, 0.5 as price, timestamp '2026-01-01' as sold_at"
    duckdb.sql(f"copy ({rows}) to '{shop.root}/pipelines/p/tests/sales.{kind}'")
    names = passes(tried(shop))
    assert len(names) == 9 and not (shop.root / ".rat/catalog.sqlite").exists()
    assert passes(tried(shop, "silver.sales", like="TWINS")) == ["twins are refused"]


def test_landing_files_seeds_python_assets_and_views_are_tested(shop, monkeypatch):
    monkeypatch.delenv("SOMEWHERE", raising=False)
    shop.write(
        FILES
        | {
            "landing/sales/real.csv": "id,quantity,price,sold_at\n99,1,1,2026-01-01\n",
            "pipelines/p/tests/more.yaml": """
tests:
  lines that cannot be read are kept out:
    asset: bronze.sales
    given: {landing/sales/*.csv: {csv: "id,quantity,price,sold_at\\n1,2,3,2026-01-01\\nx,2,3,\\n"}}
    expect: {count: 1, quarantined: 1, rows: [{id: 1, price: 3, sold_at: 2026-01-01 00:00:00}]}
  landing rows may be a list:
    asset: bronze.sales
    given: {landing/sales/*.csv: [{id: 7, quantity: 1, price: 2.5, sold_at: 2026-01-01}]}
    expect: {rows: [{id: 7, price: 2.5}], columns: [id, price]}
  a seed is read for real, a Python asset is run:
    asset: silver.people
    given: {bronze.people: [{name: Ada, age: 2, city: Oslo}, {name: Bo, age: 3}]}
    vars: {factor: 10}
    expect: {rows: [{name: Ada, age: 20, country: NO}, {name: Bo, age: 30, country: null}]}
  a view, of a table in another file:
    asset: gold.all
    given: {silver.sales: [{id: 1}, {id: 2}]}
    vars: {label: shop}
    expect: {rows: [{n: 2, label: shop}]}
""",
        }
    )
    assert len(passes(tried(shop))) == 4


def test_what_differs_is_shown_as_rows(shop, capsys):
    shop.write(
        FILES
        | {
            "pipelines/p/tests/silver.sales.yaml": f"""
tests:
  wrong value:
    given: {{bronze.sales: {SALES}}}
    expect: {{rows: [{{id: 1, total: 0.3}}, {{id: 2, total: 4}}]}}
  too few:
    given: {{bronze.sales: {SALES}}}
    expect: {{rows: [{{id: 1}}, {{id: 1}}, {{id: 2}}]}}
  wrong order:
    given: {{bronze.sales: {SALES}}}
    expect: {{rows: [{{id: 2}}, {{id: 1}}], ordered: true}}
  wrong counts:
    given: {{bronze.sales: {SALES}}}
    expect: {{count: 3, new_count: 1, quarantined: 2}}
  wrong column:
    given: {{bronze.sales: {SALES}}}
    expect: {{rows: [{{id: 1, totl: 1}}]}}
  not none:
    given: {{bronze.sales: {SALES}}}
    expect: {{rows: []}}
  gate that passes:
    given: {{bronze.sales: {SALES}}}
    expect: {{gates: {{total_positive: fail, unique_kee: pass}}}}
  gate that fails:
    given: {{bronze.sales: [{{id: 1, quantity: -1, price: 1}}]}}
    expect: {{gates: pass}}
  gate that nobody expected:
    given: {{bronze.sales: [{{id: 1, quantity: -1, price: 1}}]}}
    expect: {{count: 1}}
  error that does not come:
    given: {{bronze.sales: {SALES}}}
    expect: {{error: boom}}
  other error:
    given: {{bronze.sales: [{{id: 1, quantity: -1, price: 1}}]}}
    expect: {{error: boom}}
  nothing given:
    expect: {{count: 0}}
  not a number:
    given: {{bronze.sales: {SALES}}}
    expect: {{rows: [{{id: one}}]}}
"""
        }
    )
    done = tried(shop)
    said = {name: " | ".join([*what, error or ""]) for name, (_, what, error) in outcome(done).items()}
    for name, part in {
        "wrong value": "1 expected and not there, 1 there and not expected",
        "too few": "1 expected and not there",
        "wrong order": "2 places differ",
        "wrong counts": "3 expected, 2 came | new rows: 1 expected, 2 came | rows kept out: 2 expected, 0 came",
        "wrong column": "no column totl. Did you mean",
        "not none": "none expected, 2 came",
        "gate that passes": "total_positive: expected to fail, and it passes | there is no gate unique_kee. Did you mean",
        "gate that fails": "total_positive: passes expected, 1 rows are bad",
        "gate that nobody expected": "the gate total_positive failed",
        "error that does not come": "there was none",
        "other error": "does not say 'boom'",
        "nothing given": "the test gives no rows of it",
        "not a number": "cannot be compared",
    }.items():
        assert part in said[name], (name, said[name])
    assert done.failed == len(done.cases) == 13
    assert done.cases[0].differences[0].rows == (("-", ("2", "4.0")), ("+", ("2", "3.0")))
    assert done.cases[2].differences[0].rows == (
        ("-", ("1", "2")),
        ("+", ("1", "1")),
        ("-", ("2", "1")),
        ("+", ("2", "2")),
    )
    assert run_command(["-w", str(shop.root), "test", "-k", "wrong value"]) == 1
    out = capsys.readouterr().out
    assert "failed  wrong value" in out and "4.0" in out and "1 failed, 0 passed" in out
    assert run_command(["-w", str(shop.root), "test", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == 13


def test_gates_can_be_asked_of_what_is_published_and_the_lake_stays_as_it_is(shop, capsys):
    yaml = """
asset: silver.sales
tests:
  what is published is sound: {data: published, expect: {gates: pass, count: 2}}
  and mock rows need no lake: {given: {bronze.sales: [{id: 5, quantity: 1, price: 1}]}, expect: {count: 1}}
"""
    shop.write(
        FILES
        | {
            "pipelines/p/tests/x.yml": yaml,
            "landing/sales/a.csv": "id,quantity,price,sold_at\n1,1,1,2026-01-01\n2,2,2,2026-01-02\n",
        }
    )
    assert "no lake" in outcome(tried(shop, like="published"))["what is published is sound"][2]
    shop.run()
    before = below(shop.root / ".rat")
    assert run_command(["-w", str(shop.root), "test", "-k", "mock"]) == 0
    assert below(shop.root / ".rat") == before
    assert run_command(["-w", str(shop.root), "test"]) == 0
    after = {path: sha for path, sha in below(shop.root / ".rat").items() if not path.endswith(("-shm", "-wal"))}
    assert after == {path: sha for path, sha in before.items() if not path.endswith(("-shm", "-wal"))}
    assert "2 passed" in capsys.readouterr().out
    shop.write(
        {
            "pipelines/p/silver/sales.yaml": FILES["pipelines/p/silver/sales.yaml"].replace(
                "positive", "{range: {max: 3}}"
            )
        }
    )
    assert outcome(tried(shop, like="published"))["what is published is sound"][1] == [
        "gate total_range: passes expected, 1 rows are bad"
    ]


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("tests: {a: {expect: {cuont: 1}}}", "unknown key 'cuont'", "count"),
        ("tests: {a: {given: {bronze.sale: []}, expect: {count: 1}}}", "no table or source", "bronze.sales"),
        ("tests: {a: {asset: silver.sale, expect: {count: 1}}}", "not an asset", "silver.sales"),
        ("tests: {a: {given: {bronze.sales: [1]}, expect: {count: 1}}}", "row 1 must be", ""),
        ("tests: {a: {given: {bronze.sales: {file: no.csv}}, expect: {count: 1}}}", "there is no file no.csv", ""),
        ("tests: {a: {given: {bronze.sales: {csv: x, file: y}}, expect: {count: 1}}}", "one of rows, csv, file", ""),
        ("tests: {a: {data: real, expect: {count: 1}}}", "not a value of data", "published"),
        ("tests: [a", "not YAML", ""),
    ],
)
def test_a_mistake_in_a_test_file_is_shown_at_its_place(shop, text, said, hint, capsys):
    shop.write(FILES | {"pipelines/p/tests/silver.sales.yaml": text})
    with pytest.raises(RequestError) as raised:
        tried(shop)
    assert said in raised.value.what.lower() or said in raised.value.what, raised.value
    assert "pipelines/p/tests/silver.sales.yaml:1" in raised.value.where and hint in str(raised.value)
    assert run_command(["-w", str(shop.root), "test"]) == 2


def test_testing_nothing_is_no_success(shop, capsys):
    shop.write(FILES)
    for words, said in ((["test"], "no tests yet"), (["test", "-k", "x"], "no tests yet")):
        assert run_command(["-w", str(shop.root), *words]) == 2
        assert said in capsys.readouterr().err
    shop.write({"pipelines/p/tests/silver.sales.yaml": "tests: {a: {given: {bronze.sales: []}, expect: {count: 1}}}"})
    assert run_command(["-w", str(shop.root), "test", "gold.all"]) == 2
    assert "no test fits" in capsys.readouterr().err


def test_histories_and_partitions_are_tested_like_any_other_table(shop):
    shop.write(
        {
            "pipelines/bronze/people.sql": "select 1 as id, 'Rome' as city, timestamp '2026-01-01' as seen_at",
            "pipelines/silver/people.sql": "select id, city, seen_at from {{ ref('bronze.people') }}",
            "pipelines/silver/people.yaml": "materialize: snapshot\nunique_key: id\nupdated_at: seen_at\n",
            "pipelines/silver/days.sql": "select seen_at::date as day, count(*) as n from {{ ref('bronze.people') }}"
            " {% if is_incremental() %} where seen_at >= {{ watermark('day') }} {% endif %} group by all",
            "pipelines/silver/days.yaml": "materialize: partition\npartition_by: day\n",
            "pipelines/tests/people.yaml": """
asset: silver.people
tests:
  a move closes the state before it:
    given: {bronze.people: [{id: 1, city: Oslo, seen_at: 2026-02-01}]}
    published:
      - {id: 1, city: Rome, seen_at: 2026-01-01, valid_from: 2026-01-01, is_current: true}
      - {id: 2, city: Bern, seen_at: 2026-01-01, valid_from: 2026-01-01, is_current: true}
    expect:
      rows:
        - {id: 1, city: Rome, valid_from: 2026-01-01, valid_to: 2026-02-01, is_current: false}
        - {id: 1, city: Oslo, valid_from: 2026-02-01, valid_to: null, is_current: true}
        - {id: 2, city: Bern, valid_from: 2026-01-01, valid_to: null, is_current: true}
  only the days that come are replaced:
    asset: silver.days
    given: {bronze.people: [{id: 1, seen_at: 2026-02-01}, {id: 2, seen_at: 2026-02-01}]}
    published: [{day: 2026-02-01, n: 9}, {day: 2026-01-01, n: 7}]
    expect: {rows: [{day: 2026-01-01, n: 7}, {day: 2026-02-01, n: 2}], new_count: 1}
""",
        }
    )
    assert len(passes(tried(shop))) == 2


def test_a_table_of_a_database_is_given_and_never_asked(shop):
    tests = "tests: {a: {CASE expect: {rows: [{id: 1, name: ADA}]}}}"
    shop.write(
        {
            "workspace.yaml": "name: shop\ndatabases: {crm: {type: sqlite, path: nowhere.sqlite}}\n",
            "pipelines/bronze/customers.sql": "select id, upper(name) as name from {{ source('crm.customers') }}",
            "pipelines/tests/bronze.customers.yaml": tests.replace(
                "CASE", "given: {crm.customers: [{id: 1, name: Ada}]},"
            ),
        }
    )
    assert passes(tried(shop)) == ["a"]
    shop.write({"pipelines/tests/bronze.customers.yaml": tests.replace("CASE", "")})
    assert "gives no rows of it" in outcome(tried(shop))["a"][2]


@pytest.mark.parametrize("glob", ["**/sales.csv", "*/sales.csv", "g[i]ven/*.csv", "pipelines/*/sales.csv"])
def test_given_rows_never_lie_in_the_real_workspace(shop, glob):
    real = dict.fromkeys(("sales.csv", "given/sales.csv", "gxven/given.csv", "pipelines/given/sales.csv"), "id\n1\n")
    case = 'asset: bronze.a\ntests:\n  x:\n    given: {files: {csv: "id\\n9\\n"}}\n    expect: {count: 1}\n'
    shop.write(
        real
        | {
            "workspace.yaml": f"name: shop\nsources: {{files: {{files: '{glob}'}}}}\n",
            "pipelines/p/bronze/a.sql": "select * from {{ source('files') }}",
            "pipelines/p/tests/a.yaml": case,
        }
    )
    run_cases(files.load(shop.root))
    assert {name: (shop.root / name).read_text() for name in real} == real
