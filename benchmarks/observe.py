"""What observing costs: the same run with everything that is measured, sampled, kept and looked for, and without.

    python benchmarks/observe.py                       # 10M rows, five pairs; writes results/observe.md and .json
    python benchmarks/observe.py --rows 300000 --runs 1

Each run is a process of its own on a fresh lake: `rat run` of the three stages (bronze, silver, gold) of `full` in
run.py. Pairs are interleaved. `without` leaves out the seconds of stages, CPU, spill and disk, the figures of the
footers, the journal's short rows, the samples, and the look at what is unusual at the end. The history that the look
reads is there: thirty earlier steps of each asset. Processor seconds are compared: other people may be at work.
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
from typing import Any

import duckdb
from events import FILE_ROWS, events_sql
from systems.rat import SILVER, SILVER_RULES
from workload import GOLD

HERE = Path(__file__).resolve().parent
RUN = """
import json, os, sys, time
from pathlib import Path
from ratatouille.engine import Request, measured, memory, stages
from ratatouille.handle import run_request
from ratatouille.lake import journal, open_journal
from ratatouille.lake.journal import points

root, observed = Path(sys.argv[1]), sys.argv[2] == "with"
if not observed:
    from ratatouille.engine import recorded
    from ratatouille.observe import after
    measured.figures = lambda *_: {}
    measured.facts_of = lambda *_: {}
    memory.LOOK_AT_DISK_EVERY_S = 1e9
    memory.MemoryGauge.used = lambda *_: {}
    points.KEPT = ()
    journal.Journal.note_sample = lambda *_: None
    after.after = lambda bench, result: result
started, before = time.perf_counter(), os.times()
result = run_request(root, Request(()))
now = os.times()
assert result.status == "done", result
print(json.dumps({"wall": time.perf_counter() - started, "cpu": now.user + now.system - before.user - before.system,
                  "rows": result.step("silver.events").rows_total}))
"""
PAST = """
import json, sys
from pathlib import Path
from ratatouille.engine import storage_of
from ratatouille import project
from ratatouille.engine import open_workbench
from ratatouille.engine.measured import profile_of
from ratatouille.lake import open_journal

root = Path(sys.argv[1])
with open_workbench(root, write=True) as bench:
    columns = {f"c{n}": {"rows": 1e7, "nulls": 0, "bytes": 1e7, "distinct": 9, "min": 0, "max": 9} for n in range(10)}
    said = {"stages": {"build": 9.0, "gate": 1.0}, "profile": profile_of(bench.lake), "columns": columns}
    for number in range(30):
        for asset in ("bronze.events", "silver.events", "gold.sales"):
            for mode in ("full", "incremental"):
                record = {"mode": mode, "seconds": 10.0, "rows_in": 10**7, "rows_written": 10**7, "measured": said}
                bench.journal.record_step(f"past-{number}-{mode}", asset, 1, "built", record)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to work (default: a temporary folder)")
    asked = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        landing = Path(folder) / "landing"
        _land(landing, asked.rows)
        for number in range(asked.runs):
            order = ["with", "without"] if number % 2 == 0 else ["without", "with"]
            for how in order:
                found[how].append(_run(Path(folder) / how, landing, how))
                print(how, found[how][-1], flush=True)
    report = _report(asked, found)
    print(report)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "observe.md").write_text(report)
    (HERE / "results" / "observe.json").write_text(json.dumps(found, indent=1) + "\n")


def _land(folder: Path, rows: int) -> None:
    folder.mkdir()
    with duckdb.connect() as connection:
        for number, first in enumerate(range(0, rows, FILE_ROWS)):
            sql = events_sql(first, min(rows, first + FILE_ROWS), rows, "bigint", 42)
            connection.execute(f"copy ({sql}) to '{folder}/day1_{number}.parquet' (format parquet)")


def _run(root: Path, landing: Path, how: str) -> dict[str, Any]:
    shutil.rmtree(root, ignore_errors=True)
    shop = root / "pipelines" / "shop"
    for name, text in {
        "bronze/events.sql": "select * from {{ source('landing/events/*.parquet') }}",
        "bronze/events.yaml": "materialize: append",
        "silver/events.sql": SILVER,
        "silver/events.yaml": SILVER_RULES,
        "gold/sales.sql": GOLD.format(silver="{{ ref('silver.events') }}"),
    }.items():
        (shop / name).parent.mkdir(parents=True, exist_ok=True)
        (shop / name).write_text(text.strip() + "\n")
    (root / "workspace.yaml").write_text("name: bench\nresources: {memory: 4GB, threads: 2}\n")
    (root / "landing").mkdir()
    (root / "landing" / "events").symlink_to(landing)
    _python(PAST, str(root))
    return json.loads(_python(RUN, str(root), how).splitlines()[-1])


def _python(code: str, *words: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=env, check=False)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return ran.stdout


def _report(asked: argparse.Namespace, found: dict[str, list[dict[str, Any]]]) -> str:
    def median(how: str, what: str) -> float:
        return statistics.median(one[what] for one in found[how])

    pairs = [one["cpu"] / other["cpu"] - 1 for one, other in zip(found["with"], found["without"], strict=True)]
    share = median("with", "cpu") / median("without", "cpu") - 1
    return f"""# What observing costs

{datetime.now(UTC):%Y-%m-%d} · {os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()} · {asked.rows:,} events, three stages, medians of {asked.runs} interleaved pairs

| | processor seconds | seconds |
|---|---:|---:|
| with everything | {median("with", "cpu"):.2f} | {median("with", "wall"):.2f} |
| without | {median("without", "cpu"):.2f} | {median("without", "wall"):.2f} |

| goal | measured | at most | |
|---|---:|---:|---|
| processor seconds of observing, as a share of the run's | {share:+.1%} (pairs: {min(pairs):+.1%} to {max(pairs):+.1%}) | 2 % | {"met" if share <= 0.02 else "missed"} |
"""


if __name__ == "__main__":
    main()
