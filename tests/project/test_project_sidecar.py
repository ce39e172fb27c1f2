"""Sidecars: every key becomes a field, every check a record."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ratatouille.project import schemas
from ratatouille.project.checks import KINDS
from ratatouille.project.records import Asset, Check, Column, Project, Retries

Make = Callable[..., Project]
SQL = "select id, store_id, total, email from {{ ref('bronze.raw') }}"
RAW = {"bronze/raw.csv": "id,store_id,total,email\n", "bronze/stores.csv": "store_id,city\n"}


def _asset(make: Make, text: str) -> Asset:
    project = make({**RAW, "silver/sales.sql": SQL, "silver/sales.yaml": text})
    assert project.problems == (), [problem.message for problem in project.problems]
    return project.assets["silver.sales"]


def test_every_key(make: Make) -> None:
    asset = _asset(
        make,
        """
description: Cleaned sales, one row per sale.
materialize: merge
unique_key: id
deduplicate: total desc
columns:
  id: {type: varchar, description: Sale number, checks: [not_null, unique]}
  total: "decimal(12,2)"
  email: {sensitive: true}
checks:
  no_future: {sql: "select * from {{ this }} where total < 0", severity: warn}
  completeness: {columns: [id, store_id], at_least: 0.95}
on_fail: quarantine
max_quarantine: 0.2
on_change: forward
freshness: {warn_after: 6h, error_after: 1d}
triggers: [{schedule: "0 2 * * *", timezone: Europe/Paris}, {files: "landing/sales/*.csv", status: stopped}]
retries: {max: 5, delay: 500ms, backoff: constant}
owners: ana
tags: [daily, money]
group: finance
version: {files: "models/*"}
refresh_every: 1h
depends_on: [bronze.stores]
""",
    )
    assert asset.description == "Cleaned sales, one row per sale."
    assert (asset.materialize, asset.unique_key, asset.deduplicate) == ("merge", ("id",), "total desc")
    assert asset.columns == (
        Column("id", "varchar", "Sale number"),
        Column("total", "decimal(12,2)"),
        Column("email", sensitive=True),
    )
    assert asset.checks == (
        Check("id_not_null", "not_null", ("id",)),
        Check("id_unique", "unique", ("id",)),
        Check("no_future", "sql", (), {"sql": "select * from {{ this }} where total < 0"}, "warn"),
        Check("completeness", "completeness", ("id", "store_id"), {"at_least": 0.95}),
    )
    assert (asset.on_fail, asset.max_quarantine, asset.on_change) == ("quarantine", 0.2, "forward")
    assert asset.freshness == {"warn_after_s": 21600.0, "error_after_s": 86400.0}
    assert asset.triggers == (
        {"schedule": "0 2 * * *", "timezone": "Europe/Paris"},
        {"files": "landing/sales/*.csv", "status": "stopped"},
    )
    assert asset.retries == Retries(5, 0.5, "constant")
    assert (asset.owners, asset.tags, asset.group) == (("ana",), ("daily", "money"), "finance")
    assert (asset.version, asset.refresh_every_s) == ({"files": "models/*"}, 3600.0)
    assert asset.depends_on == ("bronze.stores", "bronze.raw")


COLUMN_CHECKS = {
    "not_null": Check("id_not_null", "not_null", ("id",)),
    "{not_null: {severity: warn}}": Check("id_not_null", "not_null", ("id",), {}, "warn"),
    "{not_null: }": Check("id_not_null", "not_null", ("id",)),
    "positive": Check("id_positive", "positive", ("id",)),
    "{accepted_values: [a, b]}": Check("id_accepted_values", "accepted_values", ("id",), {"values": ["a", "b"]}),
    "{accepted_values: {values: [1], severity: warn}}": Check(
        "id_accepted_values", "accepted_values", ("id",), {"values": [1]}, "warn"
    ),
    "{range: {min: 0, max: 10}}": Check("id_range", "range", ("id",), {"min": 0, "max": 10}),
    "{range: {min: '2020-01-01', inclusive: false}}": Check(
        "id_range", "range", ("id",), {"min": "2020-01-01", "inclusive": False}
    ),
    "{regex: '^x'}": Check("id_regex", "regex", ("id",), {"pattern": "^x"}),
    "{relationships: {to: bronze.stores, column: store_id}}": Check(
        "id_relationships", "relationships", ("id",), {"to": "bronze.stores", "column": "store_id"}
    ),
}


@pytest.mark.parametrize("written", COLUMN_CHECKS)
def test_forms_of_a_column_check(written: str, make: Make) -> None:
    asset = _asset(make, f"columns:\n  id:\n    checks:\n      - {written}\n")
    assert asset.checks == (COLUMN_CHECKS[written],)


TABLE_CHECKS = {
    "row_count: {min: 1, max: 5}": Check("row_count", "row_count", (), {"min": 1, "max": 5}),
    "one_per_store: {check: unique, columns: [id, store_id]}": Check("one_per_store", "unique", ("id", "store_id")),
    "unique: {columns: id}": Check("unique", "unique", ("id",)),
    "odd: 'select * from {{ this }} where id = 1'": Check(
        "odd", "sql", (), {"sql": "select * from {{ this }} where id = 1"}
    ),
    "stores: {check: relationships, columns: [store_id], to: bronze.stores, column: store_id}": Check(
        "stores", "relationships", ("store_id",), {"to": "bronze.stores", "column": "store_id"}
    ),
}


@pytest.mark.parametrize("written", TABLE_CHECKS)
def test_forms_of_a_table_check(written: str, make: Make) -> None:
    assert _asset(make, f"checks:\n  {written}\n").checks == (TABLE_CHECKS[written],)


def test_checks_that_read_other_assets_put_them_upstream(make: Make) -> None:
    asset = _asset(
        make,
        "columns:\n  store_id: {checks: [{relationships: {to: bronze.stores, column: store_id}}]}\n",
    )
    assert asset.depends_on == ("bronze.raw", "bronze.stores")
    by_sql = _asset(
        make, "checks:\n  lost: {sql: \"from {{ this }} anti join {{ ref('bronze.stores') }} using (store_id)\"}"
    )
    assert by_sql.depends_on == ("bronze.raw", "bronze.stores")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("checks: {a: {column: x}}", "'a' does not say what it checks"),
        ("checks: {a: {check: uniq, columns: [id]}}", "'uniq' is not a check"),
        ("checks: {unique: {}}", "'unique' needs columns"),
        ("checks: {row_count: {}}", "'row_count' needs min or max"),
        ("checks: {row_count: {min: -1}}", "'min' must be a whole number, 0 or more"),
        ("checks: {completeness: {columns: [id], at_least: 2}}", "'at_least' must be a number from 0 to 1"),
        ("columns: {id: {checks: [row_count]}}", "'row_count' looks at the whole table"),
        ("columns: {id: {checks: [range]}}", "'range' needs min or max"),
        ("columns: {id: {checks: [{range: 3}]}}", "'range' takes min, max, inclusive, severity"),
        ("columns: {id: {checks: [relationships]}}", "'relationships' needs to and column"),
        ("columns: {id: {checks: [unique, unique]}}", "the check 'id_unique' is there twice"),
        ("columns: {id: {checks: [{unique: {severity: err}}]}}", "severity is error or warn"),
        ("columns: {id: {checks: [3]}}", "write a check as its name"),
        ("checks: {row_count: {min: 1, warn_if: '> 3'}}", "'row_count' counts no bad rows, so it has no warn_if"),
        ("columns: {id: {checks: [{unique: {error_if: many}}]}}", "'many' is not a limit"),
        ("columns: {id: {checks: [{unique: {error_if: '> 3', severity: warn}}]}}", "severity is for any bad row"),
        ("columns: {id: {checks: [{freshness: soon}]}}", "'max_age' must be a duration like 6h or 1d"),
        ("columns: {id: {checks: [{distribution: {mean: [3, 1]}}]}}", "'mean' must be [lowest, highest]"),
        ("columns: {id: {checks: [{distribution: {}}]}}", "'distribution' needs mean or stddev"),
        ("checks: {a: {expression: total <}}", "'expression' must be an expression over the columns of a row"),
        ("checks: {a: {expression: (select 1)}}", "a query goes into a check of kind sql"),
        ("checks: {a: {expression: sum(total) > 1}}", "an expression is about one row"),
        ("checks: {a: {expression: totals > 1}}", "silver.sales has no column 'totals'"),
        ("checks: {success_rate: {at_least: 0.9}}", "'success_rate' needs columns: [...] or where: ..., one of them"),
        ("checks: {row_count: {min: \"{{ var('quality.few') }}\"}}", "there is no variable called 'quality.few'"),
        ("columns: {id: {}, ID: {}}", "is there twice: case does not tell names apart"),
        ("deduplicate: id", "deduplicate needs a unique_key"),
        ("version: {sql: select 1, files: a}", "version is exactly one of"),
        ("triggers: [{schedule: dayly}]", "'schedule': write five fields"),
        ("retries: {max: lots}", "'max' must be a whole number"),
        ("max_quarantine: 3", "'max_quarantine' must be at most 1"),
        ("sources: {sales: {columns: {a: int}}}", "the source 'sales' needs files"),
        ("sources: {landing/a.csv: {delimiter: ';;'}}", "'delimiter': must be one character"),
        ("columns: [id]", "'columns' must be a mapping"),
        ("just text", "this must be a mapping"),
    ],
)
def test_mistakes(text: str, message: str, make: Make) -> None:
    project = make({**RAW, "silver/sales.sql": SQL, "silver/sales.yaml": text})
    assert any(message in problem.message for problem in project.problems), project.problems
    assert all(problem.asset == "silver.sales" and problem.line == 1 for problem in project.problems)


def test_sources_of_a_sidecar(make: Make) -> None:
    project = make(
        {
            "bronze/a.sql": "select * from {{ source('landing/a/*.tsv.gz') }} union all by name from {{ source('b') }}",
            "bronze/a.yaml": "sources:\n  landing/a/*.tsv.gz: {nulls: NA}\n  b: {files: drop/b, format: json}\n",
        }
    )
    assert project.problems == ()
    first, second = project.assets["bronze.a"].sources
    assert (first.glob, first.format, first.delimiter, first.nulls) == ("landing/a/*.tsv.gz", "csv", "\t", ("NA",))
    assert (second.name, second.glob, second.format) == ("b", "drop/b", "json")


BASE = "materialize: merge\nunique_key: id\n"
CHANGES = [
    "columns: {id: varchar}",
    "columns: {id: {checks: [not_null]}}",
    "checks: {row_count: {min: 1}}",
    "on_fail: quarantine",
    "max_quarantine: 0.3",
    "deduplicate: total",
    "depends_on: [bronze.stores]",
]
NO_CHANGES = ["owners: ana", "tags: x", "group: g", "retries: {max: 1}", "freshness: {warn_after: 1h}", "# a comment"]


@pytest.mark.parametrize("line", CHANGES)
def test_what_changes_rows_or_gates_changes_the_code_hash(line: str, make: Make) -> None:
    assert _asset(make, BASE).code_hash != _asset(make, BASE + line).code_hash


@pytest.mark.parametrize("line", [*NO_CHANGES, "description: x"])
def test_other_keys_do_not(line: str, make: Make) -> None:
    before, after = _asset(make, BASE), _asset(make, BASE + line)
    assert before.code_hash == after.code_hash
    assert (before.text_hash != after.text_hash) == line.startswith("description")


def test_a_trigger_that_can_never_start_anything_is_a_warning(make: Make) -> None:
    sidecar = "triggers: [{upstream: true}]\n"
    project = make({"bronze/a.sql": "select 1 as id", "bronze/a.yaml": sidecar})
    [problem] = project.problems
    assert (problem.severity, problem.path, problem.line) == ("warn", "pipelines/sales/bronze/a.yaml", 1)
    assert "never starts it" in problem.message
    reads = {"silver/b.sql": "select id from {{ ref('bronze.a') }}", "silver/b.yaml": sidecar}
    assert make({"bronze/a.yaml": "", **reads}).problems == ()


def test_schemas_are_closed_and_describe_every_key() -> None:
    found = schemas()
    assert set(found) == {"workspace", "asset", "test"}
    for schema in found.values():
        for model in (schema, *schema["$defs"].values()):
            assert model["additionalProperties"] is False
            for key, value in model["properties"].items():
                assert value.get("description") or "$ref" in value, key


def test_schema_knows_every_check() -> None:
    text = str(schemas()["asset"])
    for kind in KINDS:
        assert f"'{kind}'" in text


MODES = {
    "materialize: snapshot": "snapshot needs a unique_key",
    "materialize: partition": "partition needs a partition_by",
    "materialize: view\npartition_by: id": "a view stores no rows",
    "materialize: view\non_fail: quarantine": "a view stores no rows, so none can be kept out",
    "materialize: snapshot\nunique_key: id\non_fail: quarantine": "a snapshot would have a hole in its history",
    "materialize: merge\nunique_key: id\nupdated_at: total": "only a snapshot knows updated_at, and this is a merge",
    "deletions: close": "a table knows no deletions: close",
    "materialize: merge\nunique_key: id\ndeletions: close": "a merge knows no deletions: close",
    "materialize: merge\nunique_key: id\ndeletions: remove\non_fail: quarantine": "would come again each time",
    "on_change: forward": "a table is always built whole",
    "materialize: snapshot\nunique_key: id\ndeduplicate: total desc": "without updated_at has one row for each key",
    "partition_by: [id, tota]": "silver.sales has no column 'tota'",
    "sort_by: tota": "silver.sales has no column 'tota'",
    "materialize: snapshot\nunique_key: id\nupdated_at: tota": "silver.sales has no column 'tota'",
}


def test_modes_that_cannot_be_point_at_the_key(make: Make) -> None:
    for text, message in MODES.items():
        project = make({**RAW, "silver/sales.sql": SQL, "silver/sales.yaml": text})
        [problem] = [p for p in project.errors if message in p.message] or [None]
        assert problem is not None, (text, project.problems)
        assert (problem.path, problem.line > 0) == ("pipelines/sales/silver/sales.yaml", True)
    snapshot = 'materialize: snapshot\nunique_key: id\nchecks: {open: {sql: "from {{ this }} where is_current"}}'
    assert make({**RAW, "silver/sales.sql": SQL, "silver/sales.yaml": snapshot}).problems == ()
    below = {"gold/x.sql": "select valid_from from {{ ref('silver.sales') }} where is_current"}
    assert make({**RAW, "silver/sales.sql": SQL, "silver/sales.yaml": snapshot, **below}).problems == ()
    for text, sql, message in (
        (snapshot, "select * from {{ source('landing/*.csv') }}", "a snapshot cannot read landing files"),
        (
            "materialize: partition\npartition_by: id",
            "select id from {{ source('landing/*.csv') }}",
            "a partition cannot",
        ),
        (
            snapshot + "\ndeletions: close",
            SQL + "{% if is_incremental() %} where id > 1 {% endif %}",
            "what is only old would look deleted",
        ),
    ):
        project = make({**RAW, "silver/sales.sql": sql, "silver/sales.yaml": text, "gold/x.sql": "select 1 as a"})
        assert any(message in p.message and p.line for p in project.errors), (text, project.problems)


def test_the_keys_of_modes_become_fields(make: Make) -> None:
    text = "materialize: snapshot\nunique_key: id\nupdated_at: total\ndeletions: close\nsort_by: [id, total]"
    asset = _asset(make, text)
    assert (asset.updated_at, asset.deletions, asset.sort_by) == ("total", "close", ("id", "total"))
    for less in ("deletions: close", "updated_at: total", "sort_by: [id, total]"):
        assert _asset(make, text.replace(less, "")).code_hash != asset.code_hash
