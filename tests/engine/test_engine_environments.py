"""--env: a lake of its own, on what the default lake has."""

from __future__ import annotations

import json

import pytest

from ratatouille.cli.entry import run_command
from ratatouille.errors import RequestError
from ratatouille.handle import Workspace
from ratatouille.project import load

FILES = {
    "workspace.yaml": "name: shop\nresources: {memory: 1GB, threads: 2}\nvars: {least: 1}\n"
    "environments: {dev: {vars: {least: 2}}, odd: {lake: {catalog: .rat/catalog.sqlite, data: .rat/data}}}\n",
    "pipelines/bronze/orders.sql": "select i as id, i % 2 as store from range(4) t(i)",
    "pipelines/bronze/stores.sql": "select 0 as store union all select 1",
    "pipelines/silver/orders.sql": "select * from {{ ref('bronze.orders') }} where id >= {{ var('least') }}",
    "pipelines/silver/orders.yaml": "columns: {store: {checks: [{relationships: {to: bronze.stores, column: store}}]}}",
    "pipelines/gold/counts.py": "def build(context):\n    return context.ref('silver.orders').aggregate('count(*) as n')\n",
}


def test_an_environment_has_a_lake_of_its_own_and_reads_the_rest_from_the_default_one_pinned(shop, monkeypatch, capsys):
    shop.write(FILES).run()
    assert shop.value("select n from gold.counts") == 3
    first = shop.entries("bronze.orders")[0].version
    monkeypatch.setenv("RATATOUILLE_ENV", "dev")
    result = shop.run("silver.orders", "gold.counts")
    assert [step.error for step in result.steps] == [None, None]
    assert result.step("silver.orders").inputs["bronze.orders"] == -first, "negative: counted in the other lake"
    assert any(
        "read from the default lake, because dev has none: bronze.orders, bronze.stores" in w for w in result.warnings
    )
    assert shop.value("select n from gold.counts") == 2
    assert (
        shop.rows("select schema_name from duckdb_schemas() where database_name = 'lake' and schema_name = 'bronze'")
        == []
    )
    assert [step.status for step in shop.run("silver.orders", "gold.counts").steps] == ["skipped", "skipped"]
    monkeypatch.delenv("RATATOUILLE_ENV")
    assert shop.value("select n from gold.counts") == 3, "the default lake is as it was"
    shop.write({"pipelines/bronze/orders.sql": "select i as id, i % 2 as store from range(9) t(i)"}).run(
        "bronze.orders"
    )
    assert run_command(["-w", str(shop.root), "run", "silver.orders", "--env", "dev", "--json"]) == 0
    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert (step["status"], step["reason"], step["rows_total"]) == ("built", "bronze.orders changed", 7)
    assert run_command(["--env=dev", "-w", str(shop.root), "run", "bronze.orders", "silver.orders"]) == 0
    monkeypatch.setenv("RATATOUILLE_ENV", "dev")
    assert Workspace(shop.root).query("select count(*) as n from silver.orders")["n"].to_list() == [7]
    assert shop.entries("silver.orders")[0].inputs["bronze.orders"] > 0, "now it has its own"
    shop.write({"workspace.yaml": FILES["workspace.yaml"].replace("least: 2", "least: 3")})
    assert shop.step("silver.orders").rows_total == 6


def test_an_environment_that_cannot_be_is_refused(shop, monkeypatch):
    shop.write(FILES)
    for name, message in (("dve", "Did you mean 'dev'"), ("odd", "has the catalog of the default lake")):
        monkeypatch.setenv("RATATOUILLE_ENV", name)
        with pytest.raises(RequestError, match=message):
            load(shop.root)
