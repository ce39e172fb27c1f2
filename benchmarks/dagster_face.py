"""What Dagster costs on top: loading a thousand file assets, and its share of a step.

    python benchmarks/dagster_face.py            # five runs, a minute or two; writes results/dagster.md and .json

load     a process imports dagster, then asks for the definitions of a workspace with 1000 SQL assets and a check
         each; `beyond` is the time after the import, with the project cache (warm) and without (cold)
share    a step's time without the engine's own (`run_request`) against two plain assets that build nothing: one with an
         empty body, and one that tells Dagster as much as ours does (the same metadata and the same check result)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOAD = """
import json, sys, time
started = time.perf_counter()
import dagster
imported = time.perf_counter()
from ratatouille.dagster import definitions
repository = definitions(sys.argv[1]).get_repository_def()
assets = len(repository.asset_graph.get_all_asset_keys())
repository.get_all_jobs()
print(json.dumps({"import": imported - started, "beyond": time.perf_counter() - imported, "assets": assets}))
"""
SHARE = """
import json, sys, time
import dagster as dg
from ratatouille.dagster import assets, definitions

spent = []
inner = assets.run_request
def timed(*args, **options):
    started = time.perf_counter()
    try:
        return inner(*args, **options)
    finally:
        spent.append(time.perf_counter() - started)
assets.run_request = timed

@dg.asset
def plain() -> None: ...

said = {}

@dg.asset(check_specs=[dg.AssetCheckSpec("id_not_null", asset="telling", blocking=True)])
def telling():
    yield dg.MaterializeResult(metadata=said["metadata"], check_results=[said["check"]], data_version=dg.DataVersion("1"))

graph = definitions(sys.argv[1]).get_repository_def().asset_graph
ours = graph.assets_def_for_key(dg.AssetKey(["bronze", "a0"]))
found = {"plain": [], "telling": [], "ours": [], "engine": []}

def step_s(asset, instance):
    result = dg.materialize([asset], instance=instance)
    (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_SUCCESS]
    return event.event_specific_data.duration_ms / 1000

import tempfile
with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
    step_s(ours, instance)
    event = instance.get_latest_materialization_event(dg.AssetKey(["bronze", "a0"]))
    said["metadata"] = dict(event.asset_materialization.metadata)
    [record] = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(["bronze", "a0"]), "id_not_null"), limit=1
    )
    evaluation = record.event.dagster_event.asset_check_evaluation_data
    said["check"] = dg.AssetCheckResult(passed=True, metadata=dict(evaluation.metadata), description=evaluation.description)
    for number in range(int(sys.argv[2]) + 1):
        spent.clear()
        times = {"plain": step_s(plain, instance), "telling": step_s(telling, instance)}
        times |= {"ours": step_s(ours, instance), "engine": sum(spent)}
        for name, value in times.items():
            found[name] += [value] if number else []
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--assets", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shop"
        _workspace(root, asked.assets)
        warm, cold = [], []
        _python(LOAD, str(root))
        for _ in range(asked.runs):
            warm.append(_python(LOAD, str(root)))
            shutil.rmtree(root / ".rat" / "cache")
            cold.append(_python(LOAD, str(root)))
        share = _python(SHARE, str(root), str(asked.runs * 4))
    report = _report(asked, warm, cold, share)
    print(report)
    (HERE / "results" / "dagster.md").write_text(report)
    samples = {"warm": warm, "cold": cold, "share": share}
    (HERE / "results" / "dagster.json").write_text(json.dumps(samples, indent=1) + "\n")


def _workspace(root: Path, count: int) -> None:
    bronze = root / "pipelines" / "shop" / "bronze"
    bronze.mkdir(parents=True)
    (root / "workspace.yaml").write_text("name: shop\nresources: {threads: 2, memory: 2GB}\n")
    for number in range(count):
        (bronze / f"a{number}.sql").write_text(f"select {number} as id")
        (bronze / f"a{number}.yaml").write_text("columns: {id: {checks: [not_null]}}\n")


def _python(code: str, *words: str) -> dict:
    env = {**os.environ, "DAGSTER_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore"}
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=env, check=False)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return json.loads(ran.stdout.splitlines()[-1])


def _report(asked: argparse.Namespace, warm: list[dict], cold: list[dict], share: dict) -> str:
    def median(samples: list[dict], name: str) -> float:
        return statistics.median(sample[name] for sample in samples)

    own = [step - engine for step, engine in zip(share["ours"], share["engine"], strict=True)]
    plain, telling, ours = (
        statistics.median(share["plain"]),
        statistics.median(share["telling"]),
        statistics.median(own),
    )
    beyond = median(warm, "beyond")
    return f"""# Dagster's part

{datetime.now(UTC):%Y-%m-%d} · {os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()} · medians of {asked.runs} runs

| loading {asked.assets:,} file assets with a check each | seconds |
|---|---:|
| `import dagster` | {median(warm, "import"):.2f} |
| beyond it, project cache warm | {beyond:.2f} |
| beyond it, cold | {median(cold, "beyond"):.2f} |

| one trivial step on SQLite storage | milliseconds |
|---|---:|
| a plain asset with an empty body | {plain * 1000:.1f} |
| a plain asset that tells as much: the same metadata, the same check | {telling * 1000:.1f} |
| a file asset, without the engine | {ours * 1000:.1f} |
| the engine | {statistics.median(share["engine"]) * 1000:.1f} |

| goal | measured | at most | |
|---|---:|---:|---|
| beyond `import dagster`, warm | {beyond:.2f} s | 3 s | {"met" if beyond <= 3 else "missed"} |
| Dagster's share of a step against a plain asset that tells as much | {ours / telling:.2f} | 1.30 | {"met" if ours / telling <= 1.3 else "missed"} |
| the same against one that tells nothing | {ours / plain:.2f} | 1.30 | {"met" if ours / plain <= 1.3 else "missed"} |
"""


if __name__ == "__main__":
    main()
