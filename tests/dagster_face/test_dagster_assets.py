"""File assets in Dagster: keys, checks, metadata, and what a failed gate leaves."""

from __future__ import annotations

import dagster as dg
import pytest

from ratatouille import handle
from ratatouille.dagster.keys import key_of

BRONZE = "pipelines/shop/bronze/orders.csv"
SILVER = "pipelines/shop/silver/orders.sql"
GOLD = "pipelines/shop/gold/revenue.sql"
RULES = "pipelines/shop/silver/orders.yaml"
SHOP = {
    BRONZE: "id,country,total\n1,at,10\n2,de,20\n3,de,30\n",
    SILVER: "select id, upper(country) as country, total from {{ ref('bronze.orders') }}",
    RULES: """
description: Tidied orders.
owners: [ann@example.com, kitchen]
tags: [daily]
columns:
  id: {description: Order number, checks: [not_null, unique]}
  country: {sensitive: true}
  total: {checks: [{range: {max: 100, severity: warn}}]}
""",
    GOLD: "select sum(total) as revenue from {{ ref('silver.orders') }}",
}
KEYS = [dg.AssetKey(["bronze", "orders"]), dg.AssetKey(["silver", "orders"]), dg.AssetKey(["gold", "revenue"])]


@pytest.fixture
def shop(kitchen):
    return kitchen.write(SHOP)


def job(defs):
    return defs.get_repository_def().get_job("shop_job")


def materializations(result):
    return {e.asset_key.to_user_string(): e for e in result.get_asset_materialization_events()}


def metadata_of(event):
    return event.step_materialization_data.materialization.metadata


def test_keys_groups_owners_and_dependencies(shop):
    graph = shop.defs().get_repository_def().asset_graph
    assert sorted(graph.get_all_asset_keys()) == sorted(KEYS)
    silver = graph.get(KEYS[1])
    assert (silver.parent_keys, silver.child_keys) == ({KEYS[0]}, {KEYS[2]})
    assert (silver.group_name, silver.owners) == ("shop", ["ann@example.com", "team:kitchen"])
    assert silver.description == "Tidied orders." and silver.kinds == {"sql", "duckdb"}
    assert silver.tags["daily"] == "" and silver.code_version
    checks = {key.name: graph.get_check_spec(key) for key in silver.check_keys}
    assert {name: spec.blocking for name, spec in checks.items()} == {
        "id_not_null": True,
        "id_unique": True,
        "total_range": False,
    }


def test_a_run_materializes_with_checks_and_metadata(shop, instance):
    result = job(shop.defs()).execute_in_process(instance=instance)
    assert result.success
    found = metadata_of(materializations(result)["silver/orders"])
    assert found["dagster/row_count"].value == 3 and found["dagster/table_name"].value == "silver.orders"
    assert [c.name for c in found["dagster/column_schema"].schema.columns] == ["id", "country", "total"]
    assert found["dagster/column_schema"].schema.columns[0].description == "Order number"
    lineage = found["dagster/column_lineage"].column_lineage.deps_by_column
    assert [(d.asset_key, d.column_name) for d in lineage["country"]] == [(KEYS[0], "country")]
    for name in ("version", "seconds", "rows per second", "peak memory (MB)", "checks passed", "issues"):
        assert isinstance(found[name].value, int | float), name
    assert found["version"].value == handle.Workspace(shop.root).plan()["steps"][1]["version"]
    assert "| 1 | [hidden] | 10 |" in found["preview"].value
    checks = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert {name: e.passed for name, e in checks.items()} == {
        "id_not_null": True, "id_unique": True, "total_range": True
    }  # fmt: skip
    assert shop.rows("select revenue from gold.revenue") == [(60,)]


@pytest.mark.parametrize("executor", ["in_process", "multiprocess"])
def test_a_failed_gate_stops_what_is_below_and_publishes_nothing(shop, instance, executor, tmp_path, monkeypatch):
    assert job(shop.defs()).execute_in_process(instance=instance).success
    shop.write({BRONZE: "id,country,total\n1,at,10\n1,de,200\n"})
    before = shop.rows("select * from silver.orders")
    result = _execute(shop, instance, executor, monkeypatch)
    assert not result.success
    done = {e.asset_key.to_user_string() for e in _events(instance, result, dg.DagsterEventType.ASSET_MATERIALIZATION)}
    assert done == {"bronze/orders"}
    evaluations = [
        e.dagster_event.event_specific_data
        for e in instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    ]
    verdicts = {e.check_name: e for e in evaluations}
    assert {name: (e.passed, e.severity.value) for name, e in verdicts.items()} == {
        "id_not_null": (True, "ERROR"),
        "id_unique": (False, "ERROR"),
        "total_range": (False, "WARN"),
    }
    assert verdicts["id_unique"].metadata["bad rows"].value == 2
    assert "[hidden]" in verdicts["id_unique"].metadata["sample"].value
    failure = _failure(instance, result)
    assert "id_unique failed for 2 of 2 rows" in failure and "rat quarantine silver.orders" in failure
    assert shop.rows("select * from silver.orders") == before


def _execute(shop, instance, executor, monkeypatch):
    if executor == "in_process":
        return job(shop.defs()).execute_in_process(instance=instance, raise_on_error=False)
    monkeypatch.setenv(handle.VARIABLE, str(shop.root))
    return dg.execute_job(dg.reconstructable(shop_job), instance=instance)


def shop_job():
    from ratatouille.dagster.code_location import definitions

    return job(definitions())


def _events(instance, result, kind):
    return [record.dagster_event for record in instance.all_logs(result.run_id, of_type=kind)]


def _failure(instance, result):
    (event,) = _events(instance, result, dg.DagsterEventType.STEP_FAILURE)
    return event.step_failure_data.user_failure_data.description


def test_a_wrong_query_fails_with_its_four_lines_and_is_not_retried(shop, instance):
    shop.write({SILVER: "select id, country, total / 'x' as total from {{ ref('bronze.orders') }}"})
    result = job(shop.defs()).execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    assert "pipelines/shop/silver/orders.sql" in _failure(instance, result)
    assert not _events(instance, result, dg.DagsterEventType.STEP_UP_FOR_RETRY)


def test_materialize_runs_again_and_a_schedule_skips_what_is_fresh(shop, instance):
    first = job(shop.defs()).execute_in_process(instance=instance)
    again = job(shop.defs()).execute_in_process(instance=instance)
    versions = [metadata_of(materializations(r)["gold/revenue"])["version"].value for r in (first, again)]
    assert versions[1] > versions[0]
    scheduled = job(shop.defs()).execute_in_process(instance=instance, tags={"dagster/schedule_name": "nightly"})
    found = metadata_of(materializations(scheduled)["gold/revenue"])
    assert (found["version"].value, found["status"].value) == (versions[1], "skipped")
    assert len(list(scheduled.get_asset_check_evaluations())) == 3


def test_all_steps_of_a_dagster_run_are_one_run_of_rat(shop, instance):
    result = job(shop.defs()).execute_in_process(instance=instance)
    code, out, _ = shop.rat("runs", "--json")
    import json

    (run,) = json.loads(out)
    assert code == 0 and (run["run_id"], run["status"], run["steps"]) == (result.run_id, "done", {"built": 3})


def test_a_native_asset_that_runs_a_file_does_the_work_once(shop, instance):
    shop.write(
        {
            "pipelines/__init__.py": "",
            "pipelines/shop/__init__.py": """
from dagster import AssetSelection, asset, define_asset_job
from ratatouille import run

@asset(group_name="shop", compute_kind="sql")
def silver_native():
    result = run("silver.orders")
    assert result["status"] == "skipped", result

all_assets = [silver_native]
all_jobs = [define_asset_job("shop_job", AssetSelection.groups("shop"))]
""",
        }
    )
    defs = shop.defs()
    graph = defs.get_repository_def().asset_graph
    native = dg.AssetKey("silver_native")
    assert graph.get(native).parent_keys == {KEYS[1]} and graph.get(native).kinds == {"sql"}
    result = job(defs).execute_in_process(instance=instance)
    assert result.success and set(materializations(result)) == {
        "bronze/orders", "silver/orders", "gold/revenue", "silver_native"
    }  # fmt: skip
    _, out, _ = shop.rat("history", "silver.orders", "--json")
    assert out.count('"version"') == 1


def test_a_broken_file_is_a_placeholder_and_the_rest_runs(shop, instance):
    shop.write({GOLD: "selec sum(total) from {{ ref('silver.orders') }}"})
    defs = shop.defs()
    result = job(defs).execute_in_process(instance=instance)
    assert result.success and set(materializations(result)) == {"bronze/orders", "silver/orders"}
    graph = defs.get_repository_def().asset_graph
    broken = graph.get(KEYS[2])
    assert broken.group_name == "broken" and "gold/revenue.sql:1" in broken.description
    failed = dg.materialize([graph.assets_def_for_key(KEYS[2])], instance=instance, raise_on_error=False)
    assert not failed.success


def test_names_with_odd_characters_are_named_safely():
    assert key_of("silver.sales", ("demo",)) == dg.AssetKey(["demo", "silver", "sales"])


def test_a_run_may_name_partitions(kitchen, instance):
    days = "select date '2026-03-01' + i::int as day, {n} as n from range(3) t(i)"
    side = "materialize: partition\npartition_by: day\n"
    kitchen.write({"pipelines/shop/gold/days.sql": days.format(n=1), "pipelines/shop/gold/days.yaml": side})
    assert job(kitchen.defs()).execute_in_process(instance=instance).success
    kitchen.write({"pipelines/shop/gold/days.sql": days.format(n=2)})
    config = {"ops": {"gold__days": {"config": {"partitions": ["2026-03-02.."]}}}}
    assert job(kitchen.defs()).execute_in_process(instance=instance, run_config=config).success
    assert [n for (n,) in kitchen.rows("select n from gold.days order by day")] == [1, 2, 2]


def test_the_log_of_a_step_says_how_far_its_chunks_are(kitchen, monkeypatch):
    monkeypatch.setattr("ratatouille.dagster.assets.LOG_EVERY_S", 0.0)
    kitchen.write(
        {
            "pipelines/shop/bronze/parts.py": "def build(context):\n"
            "    yield from context.chunks('select i as id from range(10) t(i)', 4, by='id')\n"
        }
    )
    with dg.instance_for_test() as instance:
        result = job(kitchen.defs()).execute_in_process(instance=instance)
        said = [record.user_message for record in instance.all_logs(result.run_id)]
    told = [line for line in said if line.startswith("bronze.parts: chunk ")]
    assert [line.partition(" rows")[0] for line in told] == [
        f"bronze.parts: chunk {n}: {rows} of 10" for n, rows in ((1, 4), (2, 8), (3, 10))
    ]
