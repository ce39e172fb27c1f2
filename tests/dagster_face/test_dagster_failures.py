"""What goes wrong on a bad day: killed steps and runs, orphans, two runs at once, a damaged file, a changed rule."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from ratatouille import handle

SLOW = """
import os, time
from pathlib import Path

HERE = Path(__file__).parents[3]

def build(context):
    with open(HERE / "builds.txt", "a") as said:
        said.write(f"{os.getpid()}\\n")
    while (HERE / "wait").exists():
        time.sleep(0.05)
    return context.ref("bronze.numbers")
"""
SHOP = {
    "workspace.yaml": "name: kitchen\nverify_every: 0s\nresources: {memory: 1GB, threads: 2}\n",
    "pipelines/shop/bronze/numbers.csv": "n\n1\n2\n",
    "pipelines/shop/silver/slow.py": SLOW,
    "pipelines/shop/silver/slow.yaml": "depends_on: [bronze.numbers]\nretries: {max: 0}\n",
    "pipelines/shop/gold/total.sql": "select sum(n) as n from {{ ref('silver.slow') }}",
}
RUN = """
import sys
import dagster as dg
sys.path.insert(0, sys.argv[1])
from test_dagster_failures import shop_job
if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        options = dg.ReexecutionOptions.from_failure(sys.argv[2], instance) if len(sys.argv) > 2 else None
        with dg.execute_job(dg.reconstructable(shop_job), instance=instance, reexecution_options=options) as result:
            sys.exit(0 if result.success else 3)
"""
ORDER = ["bronze.numbers", "silver.slow", "gold.total"]


def shop_job() -> dg.JobDefinition:
    from ratatouille.dagster.code_location import definitions

    return definitions().get_repository_def().get_job("shop_job")


class Bad:
    """A workspace, a Dagster home, and runs in processes of their own that a test can kill."""

    def __init__(self, kitchen, instance, home: Path) -> None:
        self.kitchen, self.instance, self.home = kitchen.write(SHOP), instance, home
        (home / "run.py").write_text(RUN)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        env = {
            **os.environ,
            "DAGSTER_HOME": str(self.home),
            handle.VARIABLE: str(self.kitchen.root),
            "DAGSTER_DISABLE_TELEMETRY": "1",
        }
        tests = str(Path(__file__).parent)
        return subprocess.Popen(
            [sys.executable, str(self.home / "run.py"), tests, *words],
            env={**env, "PYTHONPATH": tests},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        (self.kitchen.root / "wait").touch()

    def go_on(self) -> None:
        (self.kitchen.root / "wait").unlink()

    def builders(self, count: int = 1) -> list[int]:
        """The processes that have begun to build silver.slow, once there are `count`."""
        said = self.kitchen.root / "builds.txt"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            pids = [int(line) for line in said.read_text().split()] if said.exists() else []
            if len(pids) >= count:
                return pids
            time.sleep(0.1)
        raise AssertionError("silver.slow was never begun")

    def published(self) -> dict[str, int]:
        """How often each asset was published."""
        _, out, _ = self.kitchen.rat("history", "--json", "--limit", "100")
        names = [entry["asset"] for entry in json.loads(out)]
        return {name: names.count(name) for name in ORDER if name in names}

    def newest_run(self) -> dg.DagsterRun:
        return self.instance.get_runs(limit=1)[0]


@pytest.fixture
def bad(kitchen, instance, tmp_path):
    made = Bad(kitchen, instance, tmp_path / "dagster-home")
    yield made
    (kitchen.root / "wait").unlink(missing_ok=True)


def test_a_killed_step_is_built_again_and_nothing_else_is(bad):
    bad.wait()
    run = bad.start()
    os.kill(bad.builders()[0], signal.SIGKILL)
    assert run.wait(60) == 3
    assert bad.published() == {"bronze.numbers": 1}
    bad.go_on()
    again = bad.start(bad.newest_run().run_id)
    assert again.wait(90) == 0
    assert bad.published() == {"bronze.numbers": 1, "silver.slow": 1, "gold.total": 1}
    assert bad.kitchen.rows("select n from gold.total") == [(3,)]


def test_a_killed_run_and_its_orphaned_step_publish_once(bad):
    """The run's own process dies; its step lives on while the run is started again from where it failed."""
    bad.wait()
    run = bad.start()
    orphan = bad.builders()[0]
    os.kill(run.pid, signal.SIGKILL)
    run.wait(10)
    dead = bad.newest_run()
    bad.instance.report_run_failed(dead, "its process is gone")
    again = bad.start(dead.run_id)
    time.sleep(4)  # the second run comes to silver.slow and finds it taken
    assert _lives(orphan) and bad.builders() == [orphan]
    bad.go_on()
    assert again.wait(90) == 0
    assert bad.published() == {"bronze.numbers": 1, "silver.slow": 1, "gold.total": 1}
    assert bad.builders() == [orphan]


def test_everything_is_killed_and_the_rerun_goes_on(bad):
    bad.wait()
    run = bad.start()
    bad.builders()
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(10)
    dead = bad.newest_run()
    assert dead.status == dg.DagsterRunStatus.STARTED, "nobody was left to say so"
    bad.instance.report_run_failed(dead, "its process is gone")
    bad.go_on()
    assert bad.start(dead.run_id).wait(90) == 0
    assert bad.published() == {"bronze.numbers": 1, "silver.slow": 1, "gold.total": 1}
    _, out, _ = bad.kitchen.rat("runs", "--json")
    assert [one["status"] for one in json.loads(out)] == ["done", "died"]


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_two_runs_of_the_same_assets_at_once(bad):
    runs = [bad.start(), bad.start()]
    assert [run.wait(120) for run in runs] == [0, 0]
    assert bad.published() == {"bronze.numbers": 2, "silver.slow": 2, "gold.total": 2}
    assert bad.kitchen.rows("select n from gold.total") == [(3,)]


def run_one(bad, name: str, **options):
    graph = bad.kitchen.defs().get_repository_def().asset_graph
    asset = graph.assets_def_for_key(dg.AssetKey(name.split(".")))
    return dg.materialize([asset], instance=bad.instance, raise_on_error=False, **options)


def test_nothing_is_built_from_a_damaged_file(bad):
    for name in ORDER:
        assert run_one(bad, name).success
    (stored,) = (bad.kitchen.root / ".rat/data/bronze/numbers").rglob("*.parquet")
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 0xFF
    os.chmod(stored, 0o644)
    stored.write_bytes(content)
    failed = run_one(bad, "silver.slow")
    assert not failed.success
    (event,) = [e for e in failed.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    said = event.step_failure_data.user_failure_data.description
    assert "a file of bronze.numbers is damaged" in said and "rat run bronze.numbers -f" in said
    assert bad.published()["silver.slow"] == 1
    assert run_one(bad, "bronze.numbers", run_config=_full("bronze__numbers")).success
    assert run_one(bad, "silver.slow").success


def _full(step: str) -> dict[str, object]:
    return {"ops": {step: {"config": {"full_refresh": True}}}}


def test_a_changed_rule_is_replayed_from_that_asset_on(bad):
    job = shop_job_of(bad)
    assert job.execute_in_process(instance=bad.instance).success
    bad.kitchen.write({"pipelines/shop/silver/slow.yaml": SHOP["pipelines/shop/silver/slow.yaml"] + "unique_key: n\n"})
    job = shop_job_of(bad)
    assert job.execute_in_process(instance=bad.instance, tags={"dagster/schedule_name": "nightly"}).success
    assert bad.published() == {"bronze.numbers": 1, "silver.slow": 2, "gold.total": 2}


def shop_job_of(bad) -> dg.JobDefinition:
    return bad.kitchen.defs().get_repository_def().get_job("shop_job")
