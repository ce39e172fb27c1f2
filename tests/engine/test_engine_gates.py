"""Gates: each kind seen passing and failing; block, quarantine and warn; nothing bad ever visible."""

from __future__ import annotations

import pytest

ROWS = "pipelines/bronze/rows.sql"
SIDE = "pipelines/bronze/rows.yaml"
GOOD = "select * from (values (1, 'a', 10.0), (2, 'b', 20.0), (3, 'c', 30.0)) t(id, code, amount)"
BAD_ID = "select * from (values (1, 'a', 10.0), (null, 'b', 20.0), (3, 'c', 30.0)) t(id, code, amount)"

# (sidecar, a query that passes, a query that fails, how many rows are bad)
KINDS = {
    "not_null": ("columns: {id: {checks: [not_null]}}", GOOD, BAD_ID, 1),
    "unique": ("columns: {id: {checks: [unique]}}", GOOD, f"{GOOD} union all select 1, 'z', 1.0", 2),
    "unique over two": (
        "checks: {pair: {check: unique, columns: [id, code]}}",
        f"{GOOD} union all select 1, 'z', 1.0",
        f"{GOOD} union all select 1, 'a', 1.0",
        2,
    ),
    "accepted_values": (
        "columns: {code: {checks: [{accepted_values: [a, b, c]}]}}",
        GOOD,
        GOOD.replace("'c'", "'it''s'"),
        1,
    ),
    "range": ("columns: {amount: {checks: [{range: {min: 10, max: 30}}]}}", GOOD, GOOD.replace("30.0", "30.5"), 1),
    "range, limits excluded": (
        "columns: {amount: {checks: [{range: {min: 10, inclusive: false}}]}}",
        GOOD.replace("10.0", "10.1"),
        GOOD,
        1,
    ),
    "positive": ("columns: {amount: {checks: [positive]}}", GOOD, GOOD.replace("20.0", "0.0"), 1),
    "regex": ("columns: {code: {checks: [{regex: '^[a-c]$'}]}}", GOOD, GOOD.replace("'b'", "'bb'"), 1),
    "row_count": ("checks: {row_count: {min: 2, max: 3}}", GOOD, f"{GOOD} limit 1", 1),
    "completeness": (
        "checks: {completeness: {columns: [id, code], at_least: 0.9}}",
        GOOD,
        BAD_ID,
        1,
    ),
    "length": (
        "columns: {code: {checks: [{length: {min: 1, max: 2}}]}}",
        GOOD.replace("'b'", "'éé'").replace("'c'", "null"),
        GOOD.replace("'b'", "''"),
        1,
    ),
    "expression": (
        "checks: {under: {expression: 'id * 10 <= amount -- always'}}",
        GOOD.replace("(2, 'b', 20.0)", "(2, 'b', null)"),
        GOOD.replace("20.0", "19.0"),
        1,
    ),
    "success_rate": ("columns: {id: {checks: [{success_rate: 0.6}]}}", BAD_ID, BAD_ID.replace("(3", "(null"), 2),
    "success_rate, where": (
        "checks: {enriched: {check: success_rate, at_least: 0.6, where: amount > 10}}",
        GOOD,
        GOOD.replace("20.0", "null"),
        2,
    ),
    "freshness": (
        "columns: {at: {checks: [{freshness: 2d}]}}",
        "select 1 as id, (now() - interval 47 hour)::timestamp as at union all select 2, timestamp '2020-01-01'",
        "select 1 as id, (now() - interval 49 hour)::timestamp as at",
        1,
    ),
    "distribution": (
        "columns: {amount: {checks: [{distribution: {mean: [15, 25], p95: [null, 30], nulls: [0, 0.4], distinct: [2, 3]}}]}}",
        GOOD.replace("30.0", "null").replace("20.0", "25.0").replace("10.0", "15.0"),
        GOOD.replace("30.0", "99.0"),
        3,
    ),
    "error_if a share": (
        "columns: {id: {checks: [{not_null: {error_if: '> 34%'}}]}}",
        GOOD,
        BAD_ID.replace("(3", "(null"),
        2,
    ),
    "error_if a count": (
        "checks: {big: {sql: 'select * from {{ this }} where amount > 15', warn_if: '> 1', error_if: '> 1'}}",
        GOOD.replace("30.0", "3.0"),
        GOOD,
        2,
    ),
    "sql": (
        "checks: {no_big: {sql: 'select * from {{ this }} where amount > 25'}}",
        GOOD.replace("30.0", "3.0"),
        GOOD,
        1,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_passes_and_blocks(shop, kind):
    sidecar, passes, fails, n_bad = KINDS[kind]
    shop.write({SIDE: sidecar, ROWS: passes})
    first = shop.step("bronze.rows")
    assert first.status == "built", first.error
    assert all(check.passed for check in first.checks)
    stands = shop.rows("select * from bronze.rows order by all")
    shop.write({ROWS: fails})
    second = shop.step("bronze.rows")
    assert (second.status, second.error["error"]) == ("failed", "GateFailed")
    assert f"{n_bad} " in second.error["what"]
    assert f"version {first.version}" in second.error["state"]
    assert shop.rows("select * from bronze.rows order by all") == stands
    assert shop.entries("bronze.rows")[0].version == first.version


def test_relationships_look_into_another_asset_and_order_the_run(shop):
    shop.write(
        {
            "pipelines/bronze/zones.csv": "zone,label\na,first\nb,second\n",
            ROWS: GOOD.replace("'c'", "'b'"),
            SIDE: "columns: {code: {checks: [{relationships: {to: bronze.zones, column: zone}}]}}",
        }
    )
    result = shop.run()
    assert [step.status for step in result.steps] == ["built", "built"]
    shop.write({ROWS: GOOD})
    error = shop.step("bronze.rows").error
    assert "1 of 3 rows" in error["what"]
    assert "in bronze.zones.zone" in error["what"]


def test_a_failed_gate_blocks_what_is_below_and_nothing_else(shop):
    shop.write(
        {
            ROWS: BAD_ID,
            SIDE: "columns: {id: {checks: [not_null]}}",
            "pipelines/silver/below.sql": "select * from {{ ref('bronze.rows') }}",
            "pipelines/silver/beside.sql": "select 1 as a",
        }
    )
    result = shop.run()
    assert {s.asset: s.status for s in result.steps} == {
        "bronze.rows": "failed",
        "silver.below": "blocked",
        "silver.beside": "built",
    }
    assert result.failed


def test_a_warning_lets_the_candidate_pass_and_is_reported(shop):
    shop.write({ROWS: BAD_ID, SIDE: "columns: {id: {checks: [{not_null: {severity: warn}}]}}"})
    step = shop.step("bronze.rows")
    assert step.status == "built"
    (check,) = step.checks
    assert (check.passed, check.bad, check.rows, check.severity) == (False, 1, 3, "warn")
    assert check.sample[0]["code"] == "b"
    assert shop.entries("bronze.rows")[0].checks[0]["bad"] == 1


QUARANTINE = """
on_fail: quarantine
max_quarantine: 0.5
columns:
  id: {checks: [not_null, unique]}
  amount: {checks: [positive]}
"""


def test_quarantine_keeps_bad_rows_out_with_every_reason(shop):
    shop.write({SIDE: QUARANTINE, ROWS: f"{GOOD} union all select null, 'bad', -1.0"})
    step = shop.step("bronze.rows")
    assert (step.status, step.rows_in, step.rows_written, step.rows_quarantined) == ("built", 4, 3, 1)
    assert shop.value("select count(*) from bronze.rows where amount < 0") == 0
    ((checks, row),) = shop.rows('select checks, "row" from rat.quarantine')
    assert checks == "id_not_null, amount_positive"
    assert '"code":"bad"' in row
    by_name = {check.name: check for check in step.checks}
    assert (by_name["id_not_null"].passed, by_name["id_not_null"].bad) == (True, 1)


def test_all_rows_of_a_repeated_key_stay_out(shop):
    shop.write({SIDE: QUARANTINE, ROWS: f"{GOOD} union all select 1, 'z', 5.0"})
    assert shop.step("bronze.rows").rows_quarantined == 2
    assert shop.rows("select id from bronze.rows order by 1") == [(2,), (3,)]


def test_more_bad_rows_than_the_limit_block(shop):
    shop.write({SIDE: QUARANTINE.replace("0.5", "0.1"), ROWS: f"{GOOD} union all select null, 'bad', -1.0"})
    step = shop.step("bronze.rows")
    assert step.status == "failed"
    assert "more than 10%" in step.error["what"]
    assert (shop.root / ".rat/failed/bronze.rows/id_not_null.parquet").exists()


def test_a_rebuild_replaces_the_quarantine(shop):
    shop.write({SIDE: QUARANTINE, ROWS: f"{GOOD} union all select null, 'bad', -1.0"})
    shop.run()
    shop.write({ROWS: GOOD})
    shop.run()
    assert shop.value("select count(*) from rat.quarantine") == 0


def test_table_gates_see_what_is_left_after_the_quarantine(shop):
    shop.write({SIDE: QUARANTINE + "checks: {row_count: {min: 4}}", ROWS: f"{GOOD} union all select null, 'bad', 1.0"})
    step = shop.step("bronze.rows")
    assert step.status == "failed"
    assert "row_count" in step.error["what"]


def test_gates_of_an_append_see_the_table_that_readers_would_see(shop):
    shop.write(
        {
            ROWS: "select * from {{ source('landing/*.csv') }}",
            SIDE: "materialize: append\ncolumns: {id: {checks: [unique]}}\n"
            "checks: {row_count: {max: 3}, twice: {sql: 'select id from {{ this }} group by id having count(*) > 1'}}",
            "landing/1.csv": "id\n1\n2\n",
        }
    )
    assert shop.step("bronze.rows").status == "built"
    shop.write({"landing/2.csv": "id\n2\n"})
    error = shop.step("bronze.rows").error
    assert "id_unique failed for 1 of 1 rows" in error["what"]
    assert "1 more gate" in error["what"], "the custom query saw old and new rows together"
    shop.write({"landing/2.csv": "id\n3\n4\n"})
    assert "row_count" in shop.step("bronze.rows").error["what"]
    shop.write({"landing/2.csv": "id\n3\n"})
    assert shop.step("bronze.rows").rows_total == 3


def test_a_gate_that_cannot_be_computed_is_a_failure(shop):
    shop.write({ROWS: GOOD, SIDE: 'checks: {broken: {sql: "select cast(code as integer) from {{ this }}"}}'})
    step = shop.step("bronze.rows")
    assert step.status == "failed"
    assert shop.entries("bronze.rows") == []


def test_sensitive_values_never_leave_the_lake(shop):
    secret = "geheim@example.org"
    shop.write(
        {
            ROWS: f"select null::integer as id, '{secret}' as email",
            SIDE: "columns: {id: {checks: [{not_null: {severity: warn}}]}, email: {sensitive: true}}",
        }
    )
    step = shop.step("bronze.rows")
    assert step.checks[0].sample[0]["email"] == "[hidden]"
    ledger_text = shop.value("select checks from rat.ledger")
    assert secret not in ledger_text


def test_checks_that_the_footers_prove_are_right(shop):
    """Bounds at the edges, negative numbers, nulls and several files: statistics must never wave a bad row through."""
    for bad, value in ((True, "0"), (False, "0.5"), (True, "-1"), (True, "'nan'::double")):
        shop.write(
            {
                ROWS: f"select {value}::double as x union all select null union all select 7",
                SIDE: "columns: {x: {checks: [positive, {range: {max: 7}}]}}",
            }
        )
        step = shop.step("bronze.rows", force=True)
        expected_bad = (bad and "nan" not in value) or "nan" in value  # nan is above every number: the range catches it
        assert (step.status == "failed") is expected_bad, value


def test_a_key_that_repeats_across_many_rows_is_counted_exactly(shop):
    shop.write(
        {
            ROWS: "select i % 500000 as id from range(500001) t(i)",
            SIDE: "columns: {id: {checks: [unique]}}",
        }
    )
    assert "2 of 500,001 rows" in shop.step("bronze.rows").error["what"]


def test_limits_say_from_how_many_bad_rows_on_it_warns_and_fails(shop):
    side = "vars: {quality: {few: '> 1', many: '> 40%'}}\n"
    shop.write({"workspace.yaml": f"name: shop\n{side}", ROWS: BAD_ID})
    gate = "{not_null: {warn_if: \"{{ var('quality.few') }}\", error_if: \"{{ var('quality.many') }}\"}}"
    shop.write({SIDE: f"columns: {{id: {{checks: [{gate}]}}}}"})
    step = shop.step("bronze.rows")
    [check] = step.checks
    assert (step.status, check.passed, check.bad, check.threshold) == ("built", True, 1, "warn > 1, error > 40%")
    shop.write({"workspace.yaml": f"name: shop\n{side.replace('> 1', '> 0')}"})
    [check] = shop.step("bronze.rows").checks
    assert (check.passed, check.severity, check.bad) == (False, "warn", 1), "a new threshold asks again"
    shop.write({"workspace.yaml": f"name: shop\n{side.replace('40', '30')}"})
    failed = shop.step("bronze.rows")
    assert "id_not_null failed for 1 of 3 rows, asked for: warn > 1, error > 30%" in failed.error["what"]


def test_a_figure_out_of_its_bounds_is_named(shop):
    side = "columns: {amount: {checks: [{distribution: {mean: [0, 15], max: [0, 30], min: [11, null]}}]}}"
    failed = shop.write({ROWS: GOOD, SIDE: side}).step("bronze.rows")
    assert "failed for 3 rows" in failed.error["what"]
    assert "mean of amount is 20, min of amount is 10" in failed.error["what"]
    assert [c.value for c in failed.checks] == [20.0]
    side = "columns: {amount: {checks: [{distribution: {mean: [0, 100], max: [0, null]}}]}}"
    failed = shop.write({ROWS: GOOD.replace("20.0", "'nan'::double"), SIDE: side}).step("bronze.rows")
    assert "mean of amount is nan, max of amount is nan" in failed.error["what"], "which is below and above nothing"


def test_a_limit_that_a_custom_gate_takes_from_a_variable_makes_the_table_stale_when_it_changes(shop):
    limit = "name: shop\nvars: {most: %d, other: %d}\n"
    side = "checks: {most: {sql: \"select * from {{ this }} where amount > {{ var('most') }}\"}}\n"
    shop.write({"workspace.yaml": limit % (100, 1), ROWS: GOOD, SIDE: side})
    assert shop.step("bronze.rows").status == "built"
    shop.write({"workspace.yaml": limit % (100, 2)})
    assert shop.step("bronze.rows").status == "skipped", "a variable that it does not name"
    shop.write({"workspace.yaml": limit % (25, 2)})
    assert shop.step("bronze.rows").status == "failed"
