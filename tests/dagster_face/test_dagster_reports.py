"""What `rat run` publishes appears in Dagster's history: once, whatever happens in between."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.sensor import execute_sensor_iteration

from ratatouille.dagster import reports
from ratatouille.dagster.outer import tell_the_engine
from ratatouille.dagster.reports import ledger_sensor
from ratatouille.engine import Outer, Request
from ratatouille.engine.workbench import storage_of
from ratatouille.handle import Workspace, run_request
from ratatouille.lake import ledger, open_lake
from ratatouille.lake.catalogs import file as catalog_file
from ratatouille.project import load

FILES = {
    "pipelines/shop/bronze/a.csv": "id,total\n1,10\n2,20\n",
    "pipelines/shop/bronze/a.yaml": "columns: {total: {checks: [positive, {range: {max: 15, severity: warn}}]}}\n",
    "pipelines/shop/silver/b.sql": "select id, total from {{ ref('bronze.a') }}",
}
A, B = dg.AssetKey(["bronze", "a"]), dg.AssetKey(["silver", "b"])

# What a test asks here, the daemon asks through another door.
beta = pytest.mark.filterwarnings(
    "ignore:Parameter .include_sources. of function:dagster_shared.utils.warnings.BetaWarning"
)


class Told:
    """The ledger's sensor, its ticks, and Dagster's history."""

    def __init__(self, kitchen, instance, **options):
        self.kitchen, self.instance, self.options = kitchen, instance, options
        self.cursor = None

    def evaluate(self):
        sensor = ledger_sensor(self.kitchen.root, load(self.kitchen.root), **self.options)
        with dg.build_sensor_context(self.instance, cursor=self.cursor) as context:
            return sensor.evaluate_tick(context)

    def tick(self) -> list:
        """One tick as the daemon does it: the events first, then the cursor."""
        said = self.evaluate()
        for event in said.asset_events:
            self.instance.report_runless_asset_event(event)
        self.cursor, self.said = said.cursor, said.skip_message
        return list(said.asset_events)

    def history(self, key: dg.AssetKey) -> list[dg.AssetMaterialization]:
        """Oldest first."""
        records = self.instance.fetch_materializations(key, limit=100).records
        return [record.asset_materialization for record in reversed(records)]

    def versions(self, key: dg.AssetKey) -> list[int]:
        return [one.metadata["version"].value for one in self.history(key)]

    def checks(self, key: dg.AssetKey) -> dict[str, int]:
        """How often each check of an asset was told."""
        return {
            check.name: len(self.instance.event_log_storage.get_asset_check_execution_history(check, limit=100))
            for check in [dg.AssetCheckKey(key, name) for name in ("total_positive", "total_range")]
        }


@pytest.fixture
def told(kitchen, instance):
    return Told(kitchen.write(FILES), instance)


def run(kitchen, *words: str) -> None:
    code, out, err = kitchen.rat("run", *words)
    assert code == 0, out + err


def ledger_versions(kitchen, asset: str) -> list[int]:
    code, out, _ = kitchen.rat("history", asset, "--json")
    assert code == 0
    found = json.loads(out)
    return sorted(row["version"] for row in found)


def test_the_sensor_runs_from_the_start(kitchen):
    kitchen.write(FILES)
    sensor = ledger_sensor(kitchen.root, load(kitchen.root))
    assert (sensor.name, sensor.default_status) == ("kitchen_ledger", dg.DefaultSensorStatus.RUNNING)
    assert ledger_sensor(kitchen.root, load(kitchen.root), ("w",)).name == "w_ledger"


def test_a_run_in_a_shell_is_told_once_with_its_checks(told, kitchen):
    run(kitchen)
    assert len(told.tick()) == 4
    (event,) = told.history(A)
    assert event.metadata["dagster/row_count"].value == 2
    assert event.metadata["published at"].value > 1.7e9
    assert event.tags["dagster/data_version"] == str(event.metadata["version"].value)
    assert "outside of Dagster" in event.description
    passed = {}
    for name in ("total_positive", "total_range"):
        (record,) = told.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(A, name), limit=9
        )
        passed[name] = (record.evaluation.passed, record.evaluation.severity.name, record.evaluation.blocking)
    assert passed == {"total_positive": (True, "ERROR", True), "total_range": (False, "WARN", False)}
    for _ in range(3):
        assert told.tick() == []
    kitchen.write({"pipelines/shop/bronze/a.csv": "id,total\n1,11\n"})
    run(kitchen)
    told.tick()
    assert told.versions(A) == ledger_versions(kitchen, "bronze.a")
    assert told.versions(B) == ledger_versions(kitchen, "silver.b")


def test_the_first_look_tells_what_stands_and_not_all_of_history(told, kitchen):
    for total in range(1, 6):
        kitchen.write({"pipelines/shop/bronze/a.csv": f"id,total\n1,{total}\n"})
        run(kitchen)
    told.tick()
    assert told.versions(A) == ledger_versions(kitchen, "bronze.a")[-1:]
    assert told.versions(B) == ledger_versions(kitchen, "silver.b")[-1:]
    assert told.tick() == []


def test_a_tick_has_a_limit_and_the_rest_follows_in_order(told, kitchen):
    told.options = {"entries_per_tick": 2}
    run(kitchen)
    for _ in range(3):
        told.tick()
    for total in range(1, 6):
        kitchen.write({"pipelines/shop/bronze/a.csv": f"id,total\n1,{total}\n"})
        run(kitchen)
    told_of = []
    while found := [e for e in told.tick() if isinstance(e, dg.AssetMaterialization)]:
        assert len(found) <= 2
        told_of += [e.metadata["version"].value for e in found]
    assert told_of == sorted(told_of)
    assert told.versions(A) == ledger_versions(kitchen, "bronze.a")
    assert told.versions(B) == ledger_versions(kitchen, "silver.b")


def test_the_first_sweep_has_a_limit_too(told, kitchen):
    told.options = {"entries_per_tick": 1}
    run(kitchen)
    sizes = [sum(isinstance(e, dg.AssetMaterialization) for e in told.tick()) for _ in range(4)]
    assert sizes == [1, 1, 0, 0]


def test_nothing_is_opened_while_nothing_was_published(told, kitchen, monkeypatch):
    run(kitchen)
    told.tick()
    monkeypatch.setattr(reports, "open_lake", lambda *_: pytest.fail("the lake was opened"))
    assert told.tick() == [] and "Nothing was published since" in told.said


@pytest.mark.parametrize("kept", range(4))
def test_a_tick_that_dies_half_way_is_completed_without_telling_twice(told, kitchen, kept):
    run(kitchen)
    said = told.evaluate()
    assert len(said.asset_events) == 4
    for event in said.asset_events[:kept]:
        told.instance.report_runless_asset_event(event)
    assert len(told.tick()) == 4 - kept  # the cursor was never written down
    assert (len(told.history(A)), len(told.history(B))) == (1, 1)
    assert told.checks(A) == {"total_positive": 1, "total_range": 1}


@pytest.mark.parametrize("cursor", [None, "nonsense", "[]", '{"place": 3}'])
def test_a_cursor_that_is_lost_tells_nothing_twice(told, kitchen, cursor):
    run(kitchen)
    told.tick()
    told.cursor = cursor
    assert told.tick() == []
    assert (len(told.history(A)), len(told.history(B))) == (1, 1)


def test_what_a_dagster_run_publishes_it_tells_itself(told, kitchen):
    job = kitchen.defs().get_repository_def().get_job("shop_job")
    assert job.execute_in_process(instance=told.instance).success
    assert told.tick() == []
    assert (len(told.history(A)), len(told.history(B))) == (1, 1)
    kitchen.write({"pipelines/shop/bronze/a.csv": "id,total\n1,11\n"})
    run(kitchen)
    told.tick()
    assert told.versions(A) == ledger_versions(kitchen, "bronze.a")
    assert job.execute_in_process(instance=told.instance).success
    assert told.tick() == []


def test_a_dagster_run_in_progress_is_left_alone_and_one_that_died_is_helped(told, kitchen):
    """The publish of a Dagster run whose process died before it could tell of it."""
    run(kitchen)
    told.tick()
    job = kitchen.defs().get_repository_def().get_job("shop_job")
    with_plan = told.instance.create_run_for_job(job)
    told.instance.report_engine_event("started", with_plan)
    kitchen.write({"pipelines/shop/bronze/a.csv": "id,total\n1,12\n"})
    run_request(kitchen.root, Request(("bronze.a",)), within=Outer(with_plan.run_id, "shop_job", 1, ()))
    start = told.cursor
    assert told.tick() == []
    told.instance.report_run_failed(told.instance.get_run_by_id(with_plan.run_id))
    told.cursor = start
    assert len([e for e in told.tick() if isinstance(e, dg.AssetMaterialization)]) == 1
    assert told.versions(A) == ledger_versions(kitchen, "bronze.a")


def test_what_python_code_runs_inside_of_another_asset_is_told(told, kitchen):
    @dg.asset
    def report() -> None:
        Workspace(kitchen.root).run("bronze.a")

    tell_the_engine()
    assert dg.materialize([report], instance=told.instance).success
    told.tick()
    assert told.versions(A) == ledger_versions(kitchen, "bronze.a")
    assert told.tick() == []


def test_a_rollback_is_told_as_one(told, kitchen):
    run(kitchen)
    told.tick()
    kitchen.write({"pipelines/shop/bronze/a.csv": "id,total\n1,11\n"})
    run(kitchen)
    first = ledger_versions(kitchen, "bronze.a")[0]
    code, out, err = kitchen.rat("rollback", "bronze.a", "--to", str(first))
    assert code == 0, out + err
    told.tick()
    assert told.versions(A) == ledger_versions(kitchen, "bronze.a")
    assert told.history(A)[-1].description.startswith("Rolled back")


def test_an_asset_that_was_added_is_told_when_dagster_has_loaded_it(told, kitchen):
    run(kitchen)
    told.tick()
    old = load(kitchen.root)
    kitchen.write({"pipelines/shop/gold/c.sql": "select count(*) as n from {{ ref('silver.b') }}"})
    run(kitchen)
    # The code location still has the project of before.
    sensor = ledger_sensor(kitchen.root, old)
    with dg.build_sensor_context(told.instance, cursor=told.cursor) as context:
        said = sensor.evaluate_tick(context)
    assert said.asset_events == []
    told.cursor = said.cursor
    told.tick()
    assert told.versions(dg.AssetKey(["gold", "c"])) == ledger_versions(kitchen, "gold.c")
    assert (len(told.history(A)), len(told.history(B))) == (1, 1)


def test_another_lake_in_the_same_place_starts_anew(told, kitchen):
    run(kitchen)
    told.tick()
    shutil.rmtree(kitchen.root / ".rat")
    for total in (5, 6, 7):  # its versions are higher than those of before
        kitchen.write({"pipelines/shop/bronze/a.csv": f"id,total\n1,{total}\n"})
        run(kitchen)
    told.tick()
    assert told.versions(A)[-1] == ledger_versions(kitchen, "bronze.a")[-1] and len(told.history(A)) == 2
    assert told.tick() == []


def test_a_workspace_with_a_prefix_tells_under_its_keys(told, kitchen):
    run(kitchen)
    told.options = {"prefix": ("kitchen",)}
    assert {event.asset_key for event in told.tick()} == {dg.AssetKey(["kitchen", *key.path]) for key in (A, B)}


def test_no_lake_is_a_reason_to_wait(told):
    assert told.tick() == [] and told.said == "There is no lake yet."


def test_a_lake_that_this_process_has_open_is_a_reason_to_wait(told, kitchen):
    run(kitchen)
    with open_lake(storage_of(load(kitchen.root).workspace)):
        assert told.tick() == [] and "in use" in told.said
    assert told.tick() != []


def test_a_locked_lake_is_a_reason_to_wait(told, kitchen):
    run(kitchen)
    catalog = storage_of(load(kitchen.root).workspace).catalog
    holder = sqlite3.connect(catalog, isolation_level=None)
    holder.execute("pragma locking_mode = exclusive")
    holder.execute("begin exclusive")
    try:
        assert told.tick() == [] and told.said
    finally:
        holder.close()
    assert told.tick() != []


def test_a_damaged_lake_is_a_reason_and_no_error(told, kitchen):
    run(kitchen)
    catalog = storage_of(load(kitchen.root).workspace).catalog
    newest = catalog_file.newest_version(catalog)
    assert newest
    # The catalog still tells its newest version, and then no more.
    with sqlite3.connect(catalog) as connection:
        connection.execute("drop table ducklake_table")
    connection.close()
    assert told.tick() == [] and told.said.startswith("The ledger cannot be read now")


@beta
def test_checks_that_were_told_count_for_the_newest_version(told, kitchen):
    """Dagster shows a check as up to date, and automation below may start."""
    kitchen.write({"pipelines/shop/silver/b.yaml": "triggers: [{upstream: true}]\n"})
    run(kitchen)
    told.tick()
    cursor = dg.evaluate_automation_conditions(kitchen.defs(), told.instance).cursor
    kitchen.write({"pipelines/shop/bronze/a.csv": "id,total\n1,11\n"})
    run(kitchen, "bronze.a")
    told.tick()
    result = dg.evaluate_automation_conditions(kitchen.defs(), told.instance, cursor=cursor)
    assert result.get_num_requested(B) == 1


def test_the_daemon_tells_it(kitchen, instance, tmp_path):
    """The real sensor daemon on a real code location: events and cursor as it keeps them."""
    run(kitchen.write(FILES))
    code = tmp_path / "location.py"
    code.write_text(
        f"from ratatouille.dagster.code_location import definitions\ndefs = definitions({str(kitchen.root)!r})\n"
    )
    target = PythonFileTarget(str(code), attribute=None, working_directory=str(tmp_path), location_name="here")
    logger = logging.getLogger("test")
    with create_test_daemon_workspace_context(target, instance) as workspace:
        list(execute_sensor_iteration(workspace, logger, None, None))
    told = Told(kitchen, instance)
    assert told.versions(A) == ledger_versions(kitchen, "bronze.a")
    (state,) = [s for s in instance.all_instigator_state() if s.instigator_name == "kitchen_ledger"]
    assert json.loads(state.instigator_data.cursor)["seen"]


def test_files_that_were_merged_are_no_news(told, kitchen):
    run(kitchen)
    told.tick()
    with open_lake(storage_of(load(kitchen.root).workspace), write=True) as lake, lake.session() as session:
        head = ledger.heads(session, ["bronze.a"])["bronze.a"]
        same = replace(head, run_id="a-clean", action="compact", unchanged_since=head.version)
        ledger.write_entries(session, [same])
    assert told.tick() == []
