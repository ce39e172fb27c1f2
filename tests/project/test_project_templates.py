"""Templates: what they may ask for, where they go wrong, and that no value changes the query around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import parse_one

from ratatouille.errors import RequestError
from ratatouille.project import load, render, render_check_sql
from ratatouille.project.records import Project, Source
from ratatouille.project.templates import Refused, Values, render_text
from ratatouille.project.text_file import TextFile

Make = Callable[..., Project]


class Tables:
    """Bindings as a run gives them."""

    def __init__(self, *, incremental: bool = False) -> None:
        self.incremental = incremental

    def ref(self, name: str) -> str:
        layer, _, table = name.partition(".")
        return f'"lake"."{layer}"."{table}"'

    def source(self, source: Source) -> str:
        return f"read_csv('{source.glob}', delim = '{source.delimiter}')"

    def this(self) -> str:
        return '"lake"."silver"."this"'

    def is_incremental(self) -> bool:
        return self.incremental

    def watermark(self, column: str) -> str:
        return f"(select max({column}) from {self.this()})"

    def changes(self, name: str) -> str:
        return f"(select *, 'insert' as _change from {self.ref(name)})"


FILES = {
    "workspace.yaml": 'env: [CITY]\nvars: {limit: 5, name: "O\'Brien", many: [a, b], on: true}\n'
    "sources: {sales: {files: 'landing/sales/*.csv', delimiter: ';'}}",
    "bronze/sales.sql": "select * from {{ source('sales') }} -- all\n;\n",
    "silver/sales.sql": "select id, sold_at\nfrom {{ ref('bronze.sales') }}\n"
    "{% if is_incremental() %} where sold_at > {{ watermark('sold_at') }} {% endif %}",
    "silver/sales.yaml": "materialize: append\nchecks:\n  late: {sql: 'from {{ this }} where sold_at > {{ var(\"limit\") }}'}",
}


def test_full_and_incremental_rendering(make: Make) -> None:
    project = make(FILES)
    assert project.problems == ()
    assert render(project, "bronze.sales", Tables()).sql == "select * from read_csv('landing/sales/*.csv', delim = ';')"
    full = render(project, "silver.sales", Tables()).sql
    assert " ".join(full.split()) == 'select id, sold_at from "lake"."bronze"."sales"'
    delta = render(project, "silver.sales", Tables(incremental=True)).sql
    assert delta.endswith('where sold_at > (select max(sold_at) from "lake"."silver"."this")')


def test_check_sql_is_rendered_against_the_candidate(make: Make) -> None:
    project = make(FILES)
    check = project.assets["silver.sales"].checks[0]
    assert render_check_sql(project, "silver.sales", check, Tables()).sql == (
        'from "lake"."silver"."this" where sold_at > 5'
    )
    worse = replace(check, arguments={"sql": "drop table {{ this }}"})
    with pytest.raises(RequestError, match="this is DROP"):
        render_check_sql(project, "silver.sales", worse, Tables())


def test_a_file_that_changed_after_loading_is_not_rendered(write: Callable[..., Path]) -> None:
    root = write(FILES)
    project = load(root, environment={}, use_cache=False)
    (root / "pipelines/sales/silver/sales.sql").write_text("select 1 as id")
    with pytest.raises(RequestError, match="changed while the run was going on"):
        render(project, "silver.sales", Tables())


def test_only_sql_assets_are_rendered(make: Make) -> None:
    project = make({"bronze/raw.csv": "id\n1\n"})
    with pytest.raises(RequestError, match="not a SQL asset"):
        render(project, "bronze.raw", Tables())
    with pytest.raises(RequestError, match=r"no asset called 'bronze.rw'. Did you mean 'bronze.raw'"):
        render(project, "bronze.rw", Tables())


def test_bindings_may_not_smuggle_in_a_second_statement(make: Make) -> None:
    class Broken(Tables):
        def ref(self, name: str) -> str:
            return "a; drop table b"

    with pytest.raises(RequestError, match="second statement"):
        render(make(FILES), "silver.sales", Broken())


def _render(text: str, values: Values) -> str:
    return render_text(TextFile("x.sql", text), Tables(), values).text


VALUES = Values(
    {"limit": 5, "name": "O'Brien", "many": ["a", "b"], "on": True, "none": None}, ("CITY",), {"CITY": "Lyon"}
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ var('limit') }}", "5"),
        ("{{ var('absent', 7) }}", "7"),
        ("{{ var('on') }} {{ var('none') }}", "true null"),
        ("{{ var('name') | literal }}", "'O''Brien'"),
        ("in ({{ var('many') | literal }})", "in ('a', 'b')"),
        ("{% for one in var('many') %}{{ one }},{% endfor %}", "a,b,"),
        ("'{{ env('CITY') }}'", "'Lyon'"),
        ("{{ env('CITY') ~ '_x' }}", "Lyon_x"),
        ("{{ this }}", '"lake"."silver"."this"'),
        ("select {'a': 1} as b", "select {'a': 1} as b"),
    ],
)
def test_values_as_sql(template: str, text: str) -> None:
    assert _render(template, VALUES) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("'{{ var('name') }}'", "the value of var('name') could end a text"),
        ("{{ var('name') ~ 'x' }}", "the value of var('name') could end a text"),
        ("{{ env('HOME') }}", "may not read the environment variable HOME"),
        ("{{ ref.__class__.__mro__ }}", "unsafe"),
        ("{{ ''.__class__ }}", "unsafe"),
        ("{% include 'x' %}", "include, import and extends are not available"),
        ("{% import '/etc/passwd' as x %}", "include, import and extends are not available"),
        ("{{ [1] | random }}", "No filter named 'random'"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
        ("{{ ref() }}", "ref needs a name"),
        ("{{ ref(1) }}", "ref needs a name"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for i in range(1000000) %}{% endfor %}", "Range too big"),
    ],
)
def test_what_a_template_may_not_do(template: str, message: str) -> None:
    with pytest.raises(Refused) as raised:
        _render(f"select 1,\n  {template}", VALUES)
    assert message.lower() in raised.value.problem.message.lower()
    assert raised.value.problem.line == 2


@given(st.text(max_size=30))
def test_no_value_leaves_its_quotes(value: str) -> None:
    values = Values({"value": value}, ("VALUE",), {"VALUE": value})
    for template in ("select '{{ var('value') }}' as a", "select '{{ env('VALUE') }}' as a"):
        try:
            sql = _render(template, values)
        except Refused as refused:
            assert value not in refused.problem.message or len(value) < 3
            continue
        assert parse_one(sql, dialect="duckdb").selects[0].this.this == value


@given(st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30))
def test_literal_gives_the_value_back(value: str) -> None:
    sql = _render("select {{ var('value') | literal }} as a", Values({"value": value}))
    assert parse_one(sql, dialect="duckdb").selects[0].this.this == value


@given(st.text(alphabet="{}%#-' \nabc(", max_size=40))
def test_any_template_renders_or_is_refused_with_a_place(text: str) -> None:
    try:
        _render(text, Values())
    except Refused as refused:
        assert refused.problem.path == "x.sql"


@given(
    st.lists(
        st.sampled_from(
            ["a", "{{ 1 }}", "{# x\ny #}", "{% if false %}\nno\n{% endif %}", "{%- if true %}\nb{% endif %}"]
        )
    )
)
def test_every_rendered_line_knows_its_line_in_the_template(pieces: list[str]) -> None:
    text = "\n".join([*pieces, "end"])
    rendered = render_text(TextFile("x.sql", text), Tables(), Values())
    assert rendered.line_at(rendered.text.rindex("end")) == text.count("\n") + 1


def test_changes_are_followed_and_refused_where_nobody_knows_them(make: Make) -> None:
    files = {"bronze/a.sql": "select 1 as id", "silver/b.yaml": "materialize: append"}
    project = make({**files, "silver/b.sql": "select id, _change as what from {{ changes('bronze.a') }}"})
    assert project.problems == ()
    asset = project.assets["silver.b"]
    assert (asset.depends_on, asset.incremental, asset.lineage["id"]) == (("bronze.a",), True, (("bronze.a", "id"),))
    for sql, side, message in (
        ("select ids from {{ changes('bronze.a') }}", "", "no column"),
        ("select id from {{ changes('bronze.b') }}", "", "there is no asset called 'bronze.b'"),
        ("select id from {{ changes('bronze.v') }}", "", "bronze.v is a view, so nobody knows its changes"),
        ("select 1 as id -- {{ changes('bronze.a') }}", "", "stands in a comment or a text"),
        ("select 1 as id", "\nchecks: {c: {sql: \"from {{ changes('bronze.a') }}\"}}", "cannot ask for changes"),
    ):
        view = {"bronze/v.sql": "select 1 as id", "bronze/v.yaml": "materialize: view"}
        side = {"silver/b.yaml": files["silver/b.yaml"] + side}
        problems = make({**files, **view, **side, "silver/b.sql": sql}).errors
        assert any(message in p.message and p.line for p in problems), (sql, problems)


MACROS = {
    "macros/money.sql": "{% macro cents(column) %}({{ column }} * 100)::bigint{% endmacro %}\n"
    "{% macro open_orders() %}\n(select * from {{ ref('bronze.a') }} where {{ cents('id') }} > {{ var('least') }})\n"
    "{% endmacro %}\n",
}


def test_macros_of_the_workspace_are_known_to_every_template(make: Make, write: Callable[..., Path]) -> None:
    root = write({"bronze/a.sql": "select 1 as id", "workspace.yaml": "name: shop\nvars: {least: 5}\n"})
    for path, text in MACROS.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)
    files = {"workspace.yaml": "name: shop\nvars: {least: 5}\n", "bronze/a.sql": "select 1 as id"}
    sql = "select id,\n{{ cents('id') }} as c\nfrom {{ open_orders() }}"
    project = make({**files, "silver/b.sql": sql}, use_cache=True)
    assert project.problems == ()
    asset = project.assets["silver.b"]
    assert (asset.depends_on, asset.outputs) == (("bronze.a",), ("id", "c"))
    assert "(id * 100)::bigint as c" in render(project, "silver.b", Tables()).sql
    (root / "macros/money.sql").write_text(MACROS["macros/money.sql"].replace("* 100", "* 1000"))
    changed = make({**files, "silver/b.sql": sql}, use_cache=True).assets["silver.b"]
    assert changed.code_hash != asset.code_hash, "what a macro says is part of the code"
    mistake = make({**files, "silver/b.sql": sql + "\nwhere {{ cent('id') }} > 1"}).errors[0]
    assert (mistake.path, mistake.line, mistake.hint) == ("pipelines/sales/silver/b.sql", 4, "Did you mean 'cents'?")
    for text, message in (
        ("{% macro ref(x) %}{% endmacro %}", "'ref': a template knows that already"),
        ("\n{% macro x( %}{% endmacro %}", "this macro cannot be read"),
        ("{% include '/etc/passwd' %}", "these macros cannot be loaded"),
    ):
        (root / "macros/more.sql").write_text(text)
        [problem] = {(p.path, p.message) for p in make({**files, "silver/b.sql": sql}).errors if "macros/" in p.path}
        assert problem[0] == "macros/more.sql"
        assert message in problem[1]
