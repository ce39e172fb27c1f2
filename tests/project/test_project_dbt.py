"""What of a dbt project cannot be guarded is an error with its place; everything else is dbt's own business."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from ratatouille.project.records import Project

Make = Callable[..., Project]
DBT = "pipelines/sales/dbt"
FINE = {
    f"{DBT}/dbt_project.yml": """
name: shop
profile: shop
on-run-start: []
models:
  shop:
    +materialized: incremental
    database: {+schema: silver}
    +quoting: {database: true}
    +meta: {database: words, post_hook: words}
    silver: {+post-hook: [], +database: "{{ target.name }}", +incremental_strategy: delete+insert}
seeds: {shop: {+column_types: {database: varchar}}}
snapshots: {+target_schema: old}
""",
    f"{DBT}/models/clean.sql": """
-- {{ config(pre_hook="drop table x") }}
{# {% snapshot s %} run_query('drop table x') #}
{{ config(materialized='incremental', unique_key=['a', 'b'], tags=['database=x'], pre_hook=[], database=none,
          meta={'materialized': 'external', 'f': var(database='x')}) }}
select a, b, 'create table' as said from {{ source('bronze', 'sales') }}
""",
    f"{DBT}/macros/read.sql": """
{% macro newest() %}
  {% set sql %} select max(created) as drop_me from {{ ref('clean') }} {% endset %}
  {{ return(run_query(sql)) }}
  {% call statement('x', fetch_result=True) %} select 'insert into' {% endcall %}
{% endmacro %}
""",
    f"{DBT}/models/schema.yml": """
models:
  - name: clean
    config: {materialized: table}
    columns: [{name: database, data_tests: [{accepted_values: {values: [a], config: {database: x}}}]}]
sources:
  - {name: bronze, schema: bronze, tables: [{name: sales, description: "a post-hook: no"}]}
""",
    f"{DBT}/analyses/notes.py": "def helper():\n    return 'not a model'\n",
    f"{DBT}/dbt_packages/other/macros/m.sql": "{% materialization odd, default %}{% endmaterialization %}",
    f"{DBT}/profiles.yml": "shop: {outputs: {prod: {type: duckdb, attach: [{path: x}], database: y}}}",
}


def test_a_dbt_project_of_ordinary_models_has_no_problem_and_its_files_are_no_assets(make: Make) -> None:
    project = make(FINE)
    assert [problem.message for problem in project.problems] == []
    assert not project.assets


REFUSED: dict[str, tuple[Mapping[str, str], str, tuple[str, int, int]]] = {
    "on-run-start": (
        {"dbt_project.yml": "name: shop\non-run-start: create table x (a int)\n"},
        "on-run-start", ("dbt_project.yml", 2, 1),
    ),
    "on-run-end": (
        {"dbt_project.yml": "name: shop\non-run-end:\n  - vacuum\n"}, "on-run-end", ("dbt_project.yml", 2, 1),
    ),
    "a hook in dbt_project.yml": (
        {"dbt_project.yml": "name: shop\nmodels:\n  shop:\n    +post-hook: grant x\n"},
        "post-hook", ("dbt_project.yml", 4, 5),
    ),
    "a hook in config()": (
        {"models/a.sql": "{{ config(\n  materialized='table',\n  pre_hook=['delete from x']\n) }}\nselect 1"},
        "pre-hook", ("models/a.sql", 3, 3),
    ),
    "a hook in a schema.yml": (
        {"models/s.yml": "models:\n  - name: a\n    config:\n      post_hook: vacuum\n"}, "post-hook", ("models/s.yml", 4, 7),
    ),
    "a sql_header": ({"models/a.sql": "{{ config(sql_header='set x = 1') }} select 1"}, "sql_header", ("models/a.sql", 1, 11)),
    "a Python model": (
        {"models/p.py": "import x\n\ndef model(dbt, session):\n    return 1\n"}, "a Python model", ("models/p.py", 3, 5),
    ),
    "a database of a model": ({"models/a.sql": "{{ config(database='far') }} select 1"}, "database: far", ("models/a.sql", 1, 11)),
    "a database of a source": (
        {"models/s.yml": "sources:\n  - name: far\n    database: far\n    tables: [{name: t}]\n"},
        "database: far", ("models/s.yml", 3, 5),
    ),
    "an external source": (
        {"models/s.yml": "sources:\n  - name: far\n    tables:\n      - name: t\n        meta: {external_location: t.csv}\n"},
        "external_location: t.csv", ("models/s.yml", 5, 16),
    ),
    "a snapshot": ({"snapshots/s.sql": "\n{% snapshot s %}select 1{% endsnapshot %}"}, "a snapshot", ("snapshots/s.sql", 2, 4)),
    "a snapshot in YAML": ({"snapshots/s.yml": "snapshots:\n  - name: s\n"}, "a snapshot", ("snapshots/s.yml", 1, 1)),
    "run_query that deletes": (
        {"macros/m.sql": "{% macro m() %}\n  {% do run_query('delete from x') %}\n{% endmacro %}"},
        "run_query with DELETE", ("macros/m.sql", 2, 20),
    ),
    "run_query of a block": (
        {"macros/m.sql": "{% macro m() %}{% set q %}\n  select 1;\n  copy x to 'y'\n{% endset %}{% do run_query(q) %}{% endmacro %}"},
        "run_query with COPY", ("macros/m.sql", 3, 3),
    ),
    "a statement that attaches": (
        {"macros/m.sql": "{% call statement('x') %}\n  {{ note }}\n  attach 'other.db'\n{% endcall %}"},
        "call statement with ATTACH", ("macros/m.sql", 3, 3),
    ),
    "another materialization": (
        {"models/a.sql": "{{ config(materialized='external', location='x') }} select 1"},
        "materialized: external", ("models/a.sql", 1, 11),
    ),
    "a materialization of one's own": (
        {"macros/m.sql": "{% materialization odd, default %}{% endmaterialization %}"},
        "a materialization of your own", ("macros/m.sql", 1, 4),
    ),
    "another strategy": (
        {"dbt_project.yml": "name: shop\nmodels: {shop: {+incremental_strategy: microbatch}}\n"},
        "incremental_strategy: microbatch", ("dbt_project.yml", 2, 17),
    ),
    "a partial update": (
        {"models/a.sql": "{{ config(unique_key='a', merge_update_columns=['b']) }} select 1 as a, 2 as b"},
        "merge_update_columns", ("models/a.sql", 1, 27),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_guarded_is_refused_at_its_place(make: Make, what: str) -> None:
    files, construct, place = REFUSED[what]
    project = make(FINE | {f"{DBT}/{name}": text for name, text in files.items()})
    (problem,) = project.errors
    assert problem.message == f"{construct} cannot be guarded in a dbt project"
    assert (problem.path, problem.line, problem.column) == (f"{DBT}/{place[0]}", *place[1:])
    assert problem.hint


def test_a_change_in_a_dbt_project_is_seen_although_nothing_else_changed(make: Make) -> None:
    assert not make(FINE, use_cache=True).problems
    changed = {f"{DBT}/models/clean.sql": "{{ config(pre_hook='drop table x') }} select 1"}
    assert len(make(FINE | changed, use_cache=True).errors) == 1
    assert not make(FINE, use_cache=True).errors


def test_yaml_that_only_dbt_may_understand_is_a_warning(make: Make) -> None:
    project = make(FINE | {f"{DBT}/models/odd.yml": "models:\n\t- name: a\n"})
    assert not project.errors
    assert [problem.severity for problem in project.problems] == ["warn"]
