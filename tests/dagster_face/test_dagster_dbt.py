"""dbt in Dagster: a selection is one asset or many, its tests are checks, and a failed one keeps everything out."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_dbt")]

FILES = {
    "pipelines/bronze/sales.csv": "id,store,amount\n1,a,10\n2,a,20\n3,b,5\n",
    "pipelines/shop/dbt/dbt_project.yml": "name: shop\nprofile: x\nmodels: {shop: {+materialized: table}}\n",
    "pipelines/shop/dbt/models/schema.yml": """
sources:
  - {name: bronze, tables: [{name: sales}]}
models:
  - name: clean
    description: One row for each sale.
    columns:
      - name: id
        data_tests: [unique]
      - name: store
        data_tests: [{accepted_values: {arguments: {values: [a, b]}, config: {severity: warn}}}]
  - name: stores
    columns:
      - name: total
        data_tests: [not_null]
""",
    "pipelines/shop/dbt/models/clean.sql": "select * from {{ source('bronze', 'sales') }}",
    "pipelines/shop/dbt/models/stores.sql": "select store, sum(amount) as total from {{ ref('clean') }} group by store",
    "pipelines/shop/dbt/tests/no-odd_total.sql": "select * from {{ ref('stores') }} where total < 0",
    "pipelines/shop_assets.py": """
from pathlib import Path
import dagster as dg
from ratatouille.dagster import dbt_asset, dbt_assets

DBT = Path(__file__).parent / "shop" / "dbt"

one = dbt_asset(name="shop_built", project_dir=DBT, group_name="shop", owners=["team:shop"])
many = dbt_assets(name="shop_models", project_dir=DBT, group_name="models")

@dg.asset(deps=["shop_built"])
def after():
    return None
""",
}
CHECKS = {
    "accepted_values_clean_store__a__b", "no_odd_total", "not_null_stores_total", "unique_clean_id",
}  # fmt: skip


def run(
    kitchen: Any, instance: dg.DagsterInstance, *keys: str, tags: dict[str, str] | None = None, **config: Any
) -> Any:
    job = kitchen.defs().resolve_implicit_global_asset_job_def()
    chosen = [dg.AssetKey(key.split("/")) for key in keys]
    return job.execute_in_process(
        asset_selection=chosen, instance=instance, raise_on_error=False, tags=tags, run_config=config or None
    )


def checks_of(result: Any) -> dict[str, tuple[bool, str]]:
    return {one.check_name: (one.passed, one.severity.value) for one in result.get_asset_check_evaluations()}


def sales(kitchen: Any, rows: str) -> None:
    kitchen.write({"pipelines/bronze/sales.csv": "id,store,amount\n" + rows})
    assert kitchen.rat("run", "bronze.sales")[0] == 0


def test_a_selection_is_one_asset_whose_checks_are_its_tests(kitchen: Any, instance: dg.DagsterInstance) -> None:
    kitchen.write(FILES)
    assert kitchen.rat("run")[0] == 0
    graph = kitchen.defs().resolve_asset_graph()
    one = graph.get(dg.AssetKey("shop_built"))
    assert {key.to_user_string() for key in one.parent_keys} == {"bronze/sales"}
    assert {key.name for key in one.check_keys} == CHECKS
    assert one.group_name == "shop" and one.kinds == {"dbt", "duckdb"}
    stores = graph.get(dg.AssetKey(["default", "stores"]))
    assert {key.to_user_string() for key in stores.parent_keys} == {"default/clean"}
    assert {key.name for key in stores.check_keys} == {"no_odd_total", "not_null_stores_total"}
    assert graph.get(dg.AssetKey(["default", "clean"])).description == "One row for each sale."

    first = run(kitchen, instance, "shop_built", "after")
    assert first.success
    assert set(checks_of(first).values()) == {(True, "ERROR"), (True, "WARN")}
    (made,) = first.asset_materializations_for_node("shop_built")
    said = {name: value.value for name, value in made.metadata.items()}
    assert (said["models_count"], said["schema"], said["tests_passed"]) == (2, "default", 4)
    assert "Completed successfully" in said["output_log"] and len(said["output_log"]) <= 1000
    rows = [record.data for record in made.metadata["models"].records]
    assert [(row["model"], row["rows"]) for row in rows] == [("default.clean", 3), ("default.stores", 2)]
    assert rows[0]["version"] == rows[1]["version"] > 0

    sales(kitchen, "1,a,10\n1,c,20\n3,b,-5\n")
    failed = run(kitchen, instance, "shop_built", "after")
    assert not failed.success
    assert checks_of(failed) == {
        "accepted_values_clean_store__a__b": (False, "WARN"),
        "unique_clean_id": (False, "ERROR"),
    }  # what is below a failed test did not run
    assert not failed.asset_materializations_for_node("shop_built")
    assert not failed.asset_materializations_for_node("after")
    (failure,) = [event for event in failed.all_events if event.is_step_failure and event.step_key == "shop_built"]
    lines = failure.step_failure_data.user_failure_data.description.splitlines()
    assert lines[0] == "dbt: the test unique_clean_id failed: 1 row" and len(lines) == 4
    assert f"Readers still see version {rows[0]['version']}" in lines[2]
    assert kitchen.rows('select total from "default".stores order by 1') == [(5,), (30,)]
    assert kitchen.rat("runs")[0] == 0

    sales(kitchen, "1,a,10\n2,c,20\n3,b,5\n")
    mended = run(kitchen, instance, "shop_built", tags={"dagster/schedule_name": "nightly"})
    assert mended.success and checks_of(mended)["accepted_values_clean_store__a__b"] == (False, "WARN")
    assert mended.asset_materializations_for_node("shop_built")[0].metadata["rows total"].value == 3 + 3
    again = run(kitchen, instance, "shop_built", tags={"dagster/schedule_name": "nightly"})
    (made,) = again.asset_materializations_for_node("shop_built")
    assert made.metadata["status"].value == "skipped" and "unchanged since version" in made.metadata["reason"].value
    assert checks_of(again) == checks_of(mended)

    def planned() -> tuple[str, str]:
        [step] = json.loads(kitchen.rat("plan", "shop_built", "--json")[1])["steps"]
        assert step["asset"] == "shop_built"
        return step["action"], step["rule"]

    assert planned() == ("skip", "fresh")
    sales(kitchen, "1,a,10\n2,c,20\n3,b,6\n")
    assert planned() == ("build", "inputs changed")


def test_a_selection_is_an_asset_for_each_model(kitchen: Any, instance: dg.DagsterInstance) -> None:
    log = "{{ config(materialized='incremental') }} select count(*) as n from {{ ref('clean') }}"
    kitchen.write(FILES | {"pipelines/shop/dbt/models/log.sql": log})
    models = ("default/clean", "default/log", "default/stores")
    made = run(kitchen, instance, "bronze/sales", *models)
    assert made.success  # dbt reads what the file asset of the same run has published
    versions = {
        one.asset_key.to_user_string(): one.metadata["version"].value
        for one in made.asset_materializations_for_node("shop_models")
    }
    assert set(versions) == set(models) and len(set(versions.values())) == 1
    assert len(checks_of(made)) == 4

    sales(kitchen, "1,a,10\n3,b,-500\n")
    failed = run(kitchen, instance, *models)
    assert not failed.success and checks_of(failed)["no_odd_total"] == (False, "ERROR")
    assert not failed.asset_materializations_for_node("shop_models")
    assert kitchen.rows('select count(*) from "default".clean') == [(3,)]
    config = {"ops": {"shop_models": {"config": {"full_refresh": True}}}}
    sales(kitchen, "1,a,10\n")
    assert run(kitchen, instance, *models).success
    assert kitchen.rows('select n from "default".log order by n') == [(1,), (3,)]
    assert run(kitchen, instance, *models, **config).success
    assert kitchen.rows('select n from "default".log') == [(1,)]


def test_definitions_load_without_dbt_when_nothing_has_changed_and_a_broken_project_is_a_placeholder(
    kitchen: Any, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ratatouille.dbt_project import process

    more = "two = dbt_asset(name='stores_built', project_dir=DBT, select='stores')\n"
    kitchen.write(FILES | {"pipelines/shop_assets.py": FILES["pipelines/shop_assets.py"] + more})
    calls: list[Any] = []
    run_dbt = process._run

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments[0])
        return run_dbt(*arguments, **options)

    monkeypatch.setattr(process, "_run", counted)
    kitchen.defs().resolve_asset_graph()
    assert len(calls) == 2  # three definitions of two selections
    assert kitchen.defs().resolve_asset_graph().has(dg.AssetKey("stores_built"))
    assert len(calls) == 2
    kitchen.write({"pipelines/shop/dbt/models/another.sql": "select 1 as one"})
    graph = kitchen.defs().resolve_asset_graph()
    assert len(calls) == 3  # what was asked before is asked at once
    assert {key.to_user_string() for key in graph.get(dg.AssetKey("stores_built")).parent_keys} == {"default/clean"}
    assert graph.has(dg.AssetKey(["default", "another"]))

    kitchen.write({"pipelines/shop/dbt/models/clean.sql": "select * from {{ ref('nowhere') }}"})
    graph = kitchen.defs().resolve_asset_graph()
    assert len(calls) == 4
    broken = graph.get(dg.AssetKey("shop_built"))
    assert broken.group_name == "broken" and "nowhere" in str(broken.description)
    assert graph.has(dg.AssetKey("shop_models")) and graph.has(dg.AssetKey(["bronze", "sales"]))
    result = run(kitchen, instance, "shop_built")
    assert not result.success
