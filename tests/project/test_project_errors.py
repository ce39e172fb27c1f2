"""What people get wrong in files: each mistake is found without a database, at its character, with its cure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ratatouille.errors import RequestError
from ratatouille.project import ensure_valid, load
from ratatouille.project.records import Problem, Project

SEED = "id,amount\n1,2\n"
GOOD = {"bronze/raw.csv": SEED, "silver/sales.sql": "select id, amount from {{ ref('bronze.raw') }}\n"}


@dataclass(frozen=True)
class Case:
    files: Mapping[str, str | bytes]
    message: str
    at: str = ""  # path:line:column below pipelines/sales/; empty: the whole file
    under: str = ""  # the text above the carets
    hint: str = ""


CASES = {
    "typo in a ref": Case(
        {**GOOD, "gold/total.sql": "select sum(amount) as total\nfrom {{ ref('silver.salse') }}\n"},
        "there is no asset called 'silver.salse'",
        "gold/total.sql:2:14",
        "silver.salse",
        "Did you mean 'silver.sales'?",
    ),
    "ref without a layer": Case(
        {**GOOD, "gold/total.sql": "select * from {{ ref('sales') }}"},
        "'sales' is not the name of an asset",
        "gold/total.sql:1:23",
        "sales",
        "did you mean 'silver.sales'?",
    ),
    "ref to a name with quotes": Case(
        {**GOOD, "gold/total.sql": "select * from {{ ref('silver.sa\"les') }}"},
        "there is no asset called 'silver.sa\"les'",
        "gold/total.sql:1:23",
        'silver.sa"les',
    ),
    "a missing column": Case(
        {**GOOD, "gold/total.sql": "select\n    sum(amuont) as total\nfrom {{ ref('silver.sales') }}\n"},
        "there is no column 'amuont' in silver.sales",
        "gold/total.sql:2:9",
        "amuont",
        "Did you mean 'amount'?",
    ),
    "a missing column behind a line that renders longer": Case(
        {
            **GOOD,
            "gold/total.sql": "{# one\ntwo #}select a.id, {{ '1' }} as x, a.amuont\nfrom {{ ref('silver.sales') }} a",
        },
        "there is no column 'amuont' in silver.sales",
        "gold/total.sql:2:38",
        "amuont",
    ),
    "a check on a missing column": Case(
        {**GOOD, "silver/sales.yaml": "columns:\n  amout: {checks: [not_null]}\n"},
        "silver.sales has no column 'amout'",
        "silver/sales.yaml:2:3",
        "amout",
        "Did you mean 'amount'?",
    ),
    "a unique_key that the query does not give": Case(
        {**GOOD, "silver/sales.yaml": "materialize: merge\nunique_key: [id, store]\n"},
        "silver.sales has no column 'store'",
        "silver/sales.yaml:2:13",
        "[id, store]",
    ),
    "an order by a column that the query does not give": Case(
        {**GOOD, "silver/sales.yaml": "unique_key: id\ndeduplicate: abs(amuont) desc\n"},
        "silver.sales has no column 'amuont'",
        "silver/sales.yaml:2:14",
        "abs(amuont) desc",
        "Did you mean 'amount'?",
    ),
    "an order that is more than an order": Case(
        {**GOOD, "silver/sales.yaml": "unique_key: id\ndeduplicate: id limit 1\n"},
        "deduplicate is an order, like updated_at desc",
        "silver/sales.yaml:2:14",
        "id limit 1",
    ),
    "a relationship to a missing column": Case(
        {
            **GOOD,
            "silver/sales.yaml": "columns:\n  id:\n    checks:\n      - relationships: {to: bronze.raw, column: ids}\n",
        },
        "bronze.raw has no column 'ids'",
        "silver/sales.yaml:4:29",
    ),
    "a relationship to a missing asset": Case(
        {**GOOD, "silver/sales.yaml": "columns:\n  id: {checks: [{relationships: {to: bronze.row, column: id}}]}\n"},
        "there is no asset called 'bronze.row'",
        hint="Did you mean 'bronze.raw'?",
    ),
    "a table without ref": Case(
        {**GOOD, "gold/total.sql": "select *\nfrom silver.sales"},
        "the table 'silver.sales' is used without ref",
        "gold/total.sql:2:6",
        "silver.sales",
        "write {{ ref('silver.sales') }}",
    ),
    "a table without ref inside a subquery of a CTE": Case(
        {**GOOD, "gold/total.sql": "with sales as (select * from sales) select * from sales"},
        "the table 'sales' is used without ref",
        "gold/total.sql:1:30",
        "sales",
    ),
    "a file read past source": Case(
        {"bronze/x.sql": "select * from read_csv('landing/x.csv')"},
        "read_csv() reads files that nobody remembers",
        "bronze/x.sql:1:15",
        "read_csv",
        "use {{ source('landing/...') }} for landing files",
    ),
    "a file as a table": Case(
        {"bronze/x.sql": "select * from 'landing/x.parquet'"},
        "'landing/x.parquet' is a file that nobody remembers",
        "bronze/x.sql:1:15",
        "'landing/x.parquet'",
    ),
    "a table named by text": Case(
        {"bronze/x.sql": "select * from query_table('secrets')"}, "query_table() hides which table is read"
    ),
    "a syntax error": Case(
        {**GOOD, "gold/total.sql": "select id\nfrom {{ ref('silver.sales') }}\nwhere where id > 1\n"},
        "SQL syntax: ",
        "gold/total.sql:3:7",
        "where",
    ),
    "a quote that is not closed": Case(
        {"bronze/x.sql": "select 1 as a,\n  'it''s as b\n"},
        "a quote or a comment is opened here and never closed",
        "bronze/x.sql:2:3",
        "'",
    ),
    "two statements": Case(
        {"bronze/x.sql": "select 1 as a;\ndrop table b\n"}, "one select is allowed", "bronze/x.sql:2:1", "drop"
    ),
    "not a select": Case(
        {"bronze/x.sql": "create table x as select 1"}, "only a select is allowed here, and this is CREATE"
    ),
    "an empty file": Case({"bronze/x.sql": "-- later\n"}, "there is no select here"),
    "an unknown function in a template": Case(
        {"bronze/x.sql": "select 1 as a\nfrom {{ reff('bronze.y') }}"},
        "'reff' is undefined",
        "bronze/x.sql:2:9",
        "reff",
        "Did you mean 'ref'?",
    ),
    "a template that is not closed": Case(
        {"bronze/x.sql": "select 1 as a\n{% if is_incremental() %} where a"}, "this template cannot be read", ""
    ),
    "an unknown variable": Case(
        {"workspace.yaml": "vars: {country: FR}", "bronze/x.sql": "select {{ var('county') }} as a"},
        "there is no variable called 'county'",
        "bronze/x.sql:1:16",
        "county",
        "Did you mean 'country'?",
    ),
    "an environment variable that is not listed": Case(
        {"bronze/x.sql": "select '{{ env('HOME') }}' as a"},
        "templates may not read the environment variable HOME",
        hint="add HOME to `env:` in workspace.yaml",
    ),
    "an unknown source": Case(
        {
            "workspace.yaml": "sources: {sales: {files: 'landing/sales/*.csv'}}",
            "bronze/x.sql": "select * from {{ source('sale') }}",
        },
        "there is no source called 'sale'. Did you mean 'sales'?",
        "bronze/x.sql:1:26",
    ),
    "a slip in the name of a database": Case(
        {
            "workspace.yaml": "databases: {shop: {type: sqlite, path: shop.sqlite}}",
            "bronze/x.sql": "select * from {{ source('shopp.customers') }}",
        },
        "there is no source called 'shopp.customers'. Did you mean 'shop'?",
        "bronze/x.sql:1:26",
    ),
    "a source outside the workspace": Case(
        {"bronze/x.sql": "select * from {{ source('../secrets/*.csv') }}"}, "'../secrets/*.csv' leaves the workspace"
    ),
    "an absolute source": Case({"bronze/x.sql": "select * from {{ source('/etc/*.csv') }}"}, "is not a path inside"),
    "a source of unknown format": Case(
        {"bronze/x.sql": "select * from {{ source('landing/x/*') }}"}, "does not end in a known format"
    ),
    "assets that read each other": Case(
        {"silver/a.sql": "select 1 as x from {{ ref('silver.b') }}", "silver/b.sql": "from {{ ref('silver.a') }}"},
        "these assets read each other: silver.a -> silver.b -> silver.a",
        "silver/a.sql:1:28",
        "silver.b",
    ),
    "an asset that reads itself": Case(
        {"silver/a.sql": "select 1 as x from {{ ref('silver.a') }}"}, "silver.a reads itself", hint="use {{ this }}"
    ),
    "two files with one name": Case(
        {**GOOD, "pipelines/shop/silver/Sales.sql": "select 1 as a"},
        "two files build silver.Sales: pipelines/sales/silver/sales.sql and pipelines/shop/silver/Sales.sql"[:14],
    ),
    "a name with a quote": Case(
        {'silver/sa"les.sql': "select 1 as a"}, "cannot be the name of a table", hint="rename the file to sa_les.sql"
    ),
    "a name with dots": Case(
        {"silver/...sales.sql": "select 1 as a", "silver/a..b.sql": "select 1 as a"},
        "'a..b' cannot be the name of a table",
        hint="rename the file to a_b.sql",
    ),
    "a select with a typo": Case({"silver/a.sql": "selec 1"}, "this is not a select", hint="Did you mean 'select'?"),
    "a file below its layer": Case(
        {"silver/deep/sales.sql": "select 1 as a"}, "lies too deep", hint="move it to a folder called 'silver'"
    ),
    "a folder that is nearly a layer": Case(
        {"sliver/sales.sql": "select 1 as a"}, "is not in a layer's folder", hint="Did you mean 'silver'?"
    ),
    "a sidecar without an asset": Case(
        {**GOOD, "silver/sale.yaml": "description: x"}, "belongs to no asset", hint="Did you mean 'sales'?"
    ),
    "two sidecars": Case({**GOOD, "silver/sales.yaml": "", "silver/sales.yml": ""}, "silver.sales has two sidecars"),
    "a tab in YAML": Case(
        {**GOOD, "silver/sales.yaml": "columns:\n\tid: varchar\n"},
        "a tab in YAML: use spaces",
        "silver/sales.yaml:2:1",
    ),
    "an unknown key": Case(
        {**GOOD, "silver/sales.yaml": "description: x\nmaterialise: view\n"},
        "unknown key 'materialise'",
        "silver/sales.yaml:2:1",
        "materialise",
        "Did you mean 'materialize'?",
    ),
    "an unknown key of a column": Case(
        {**GOOD, "silver/sales.yaml": "columns:\n  id: {descripton: x}\n"},
        "unknown key 'descripton'",
        "silver/sales.yaml:2:8",
        "descripton",
        "Did you mean 'description'?",
    ),
    "a key twice": Case(
        {**GOOD, "silver/sales.yaml": "tags: a\ntags: b\n"}, "'tags' appears twice", "silver/sales.yaml:2:1", "tags"
    ),
    "a wrong value": Case(
        {**GOOD, "silver/sales.yaml": "materialize: snapshots\n"},
        "'snapshots' is not a value of materialize",
        "silver/sales.yaml:1:14",
        "snapshots",
        "materialize is one of table, view, append, merge, partition, snapshot. Did you mean 'snapshot'?",
    ),
    "a number where text is needed": Case(
        {**GOOD, "silver/sales.yaml": "description: 12\n"}, "'description' must be text", "silver/sales.yaml:1:14", "12"
    ),
    "a wrong duration": Case(
        {**GOOD, "silver/sales.yaml": "freshness: {warn_after: soon}\n"},
        "'warn_after': write a duration like 30m",
        "silver/sales.yaml:1:25",
        "soon",
    ),
    "a wrong type": Case(
        {**GOOD, "silver/sales.yaml": "columns: {id: varchr}\n"}, "'varchr' is not a type that DuckDB knows"
    ),
    "an unknown check": Case(
        {**GOOD, "silver/sales.yaml": "columns:\n  id: {checks: [not_nul]}\n"},
        "'not_nul' is not a check",
        "silver/sales.yaml:2:17",
        "not_nul",
        "Did you mean 'not_null'?",
    ),
    "a wrong argument of a check": Case(
        {**GOOD, "silver/sales.yaml": "columns:\n  id: {checks: [{range: {mn: 1}}]}\n"},
        "'range' does not take 'mn'",
        "silver/sales.yaml:2:26",
        "mn",
        "Did you mean 'min'?",
    ),
    "a check's SQL that writes": Case(
        {**GOOD, "silver/sales.yaml": "checks:\n  bad: {sql: 'delete from {{ this }}'}\n"},
        "the check 'bad': only a select is allowed here, and this is DELETE",
        "silver/sales.yaml:2:14",
    ),
    "a check's SQL on a missing column": Case(
        {**GOOD, "silver/sales.yaml": "checks:\n  bad: 'select * from {{ this }} where amuont < 0'\n"},
        "the check 'bad': there is no column 'amuont' in silver.sales",
        "silver/sales.yaml:2:8",
        hint="Did you mean 'amount'?",
    ),
    "a check's SQL on a table without ref": Case(
        {"bronze/raw.csv": SEED, "bronze/raw.yaml": "checks:\n  bad: 'from {{ this }} join silver.sales using (id)'\n"},
        "the table 'silver.sales' is used without ref",
        "bronze/raw.yaml:2:8",
    ),
    "a source in a comment": Case(
        {"bronze/x.sql": "select 1 as a\n-- from {{ source('landing/*.csv') }}\n"},
        "{{ source('landing/*.csv') }} stands in a comment",
        "bronze/x.sql:2:20",
        "landing/*.csv",
        "comment templates out with {# ... #}",
    ),
    "a ref in a text": Case(
        {**GOOD, "gold/x.sql": "select '{{ ref('silver.sales') }}' as a"}, "stands in a comment or a text"
    ),
    "merge without a key": Case(
        {**GOOD, "silver/sales.yaml": "materialize: merge\n"}, "merge needs a unique_key", "silver/sales.yaml:1:14"
    ),
    "a view of landing files": Case(
        {"bronze/x.sql": "select * from {{ source('landing/*.csv') }}", "bronze/x.yaml": "materialize: view"},
        "a view cannot read landing files",
        "bronze/x.sql:1:26",
    ),
    "incremental code in a table": Case(
        {"bronze/x.sql": "select 1 as a {% if is_incremental() %} where false {% endif %}"}, "this never applies"
    ),
    "a reference to code in YAML": Case(
        {**GOOD, "silver/sales.yaml": "description: !!python/object:os.system x\n"}, "tag:yaml.org,2002:python", ""
    ),
    "a dependency that is computed": Case(
        {**GOOD, "gold/p.py": "def build(context):\n    name = 'silver.sales'\n    return context.ref(name)\n"},
        "what is read here is known only when the code runs",
        "gold/p.py:3:24",
        "name",
    ),
    "a typo in a Python ref": Case(
        {**GOOD, "gold/p.py": "def build(context):\n    return context.ref('silver.sale')\n"},
        "there is no asset called 'silver.sale'",
        "gold/p.py:2:24",
        "'silver.sale'",
        "Did you mean 'silver.sales'?",
    ),
    "Python that cannot be read": Case(
        {"gold/p.py": "def build(context):\n    return (\n"}, "Python syntax: ", "gold/p.py:2:12"
    ),
    "build without its argument": Case({"gold/p.py": "def build():\n    pass\n"}, "build takes one argument"),
    "a file that is not text": Case({"gold/p.sql": b"select \xff\xfe"}, "is not UTF-8 text"),
    "a file that is too large": Case({"gold/p.sql": "select 1" + " " * 1_000_001}, "a file of code or settings may"),
    "a control character": Case({"gold/p.sql": "select 1\x00 as a"}, "a control character", "gold/p.sql:1:9"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_mistake_is_found_at_its_place(case: Case, make: Callable[..., Project]) -> None:
    project = make(case.files)
    found = [problem for problem in project.problems if case.message in problem.message]
    assert found, [problem.message for problem in project.problems]
    problem = found[0]
    if case.at:
        assert f"{problem.path}:{problem.line}:{problem.column}" == f"pipelines/sales/{case.at}"
    if case.under:
        assert _underlined(problem) == case.under
    assert case.hint in problem.hint


def _underlined(problem: Problem) -> str:
    return problem.text[problem.column - 1 : problem.column - 1 + problem.length]


def test_valid_files_have_no_problem(make: Callable[..., Project]) -> None:
    project = make(GOOD)
    assert project.problems == ()
    ensure_valid(project)


def test_first_problem_is_raised_with_its_span_and_the_count_of_the_rest(make: Callable[..., Project]) -> None:
    project = make({**GOOD, "gold/a.sql": "select * from {{ ref('silver.sale') }}", "gold/b.sql": "selec"})
    with pytest.raises(RequestError) as raised:
        ensure_valid(project)
    assert raised.value.what == "There is no asset called 'silver.sale'"
    assert raised.value.where.splitlines()[0] == "pipelines/sales/gold/a.sql:1:23"
    assert raised.value.where.splitlines()[2].strip() == "^" * len("silver.sale")
    assert raised.value.next == "Did you mean 'silver.sales'?\n1 more; see rat check"


def test_broken_assets_are_left_out_and_the_others_stay(make: Callable[..., Project]) -> None:
    project = make({**GOOD, "gold/a.sql": "selec"})
    assert list(project.assets) == ["bronze.raw", "silver.sales"]


def test_duplicates_show_both_paths(make: Callable[..., Project]) -> None:
    project = make({**GOOD, "pipelines/shop/silver/SALES.sql": "select 1 as a"})
    message = next(problem.message for problem in project.problems)
    assert "pipelines/sales/silver/sales.sql" in message
    assert "pipelines/shop/silver/SALES.sql" in message


def test_links_that_leave_the_workspace_are_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "secret.sql").write_text("select 1 as a")
    root = write(GOOD)
    (root / "pipelines/sales/silver/stolen.sql").symlink_to(tmp_path / "secret.sql")
    (root / "pipelines/sales/silver/near.sql").symlink_to(root / "pipelines/sales/silver/sales.sql")
    project = load(root, environment={}, use_cache=False)
    assert [p.message for p in project.problems] == [
        "pipelines/sales/silver/stolen.sql is a link that leads out of the workspace"
    ]
    assert "silver.near" in project.assets
    assert "silver.stolen" not in project.assets
