"""Benchmark Ratatouille beside its neighbours, in one run, on generated events. See README.md.

python benchmarks/run.py --scenario full --rows 1000000 --runs 5 --only raw,rat,dbt
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import events
import report
import scenarios
from systems import dbt, rat, raw, sqlmesh
from systems.system import HERE, System
from workload import Job

SYSTEMS: dict[str, System] = {s.name: s for m in (raw, rat, dbt, sqlmesh) for s in m.SYSTEMS}
GROUPS = {"raw": [s.name for s in raw.SYSTEMS]}
SCENARIOS = ("full", "trivial", "ingest")


def main(arguments: list[str]) -> int:
    asked = _parse(arguments)
    work = Path(asked.work).resolve()
    for rows in asked.rows:
        job = Job(
            rows=rows,
            key=asked.key,
            threads=asked.threads,
            memory=asked.memory,
            data=work / "data" / f"{rows}-{asked.key}-{asked.seed}",
            columns=events.columns(asked.key),
            seed=asked.seed,
        )
        for scenario in asked.scenario:
            if scenario == "trivial" and rows != asked.rows[0]:
                continue  # trivial tables do not depend on the number of events
            found = scenarios.run(scenario, asked.systems, job, asked, work / "runs")
            paths = report.write(found, asked.results)
            print("\n" + report.markdown(found) + "\nwritten: " + ", ".join(path.name for path in paths), flush=True)
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scenario", default=",".join(SCENARIOS), help=f"of {', '.join(SCENARIOS)}; several with commas"
    )
    parser.add_argument("--rows", default="1000000", help="events of the full load and the ingestion")
    parser.add_argument("--runs", type=int, default=5, help="samples of each timing (default 5)")
    parser.add_argument("--only", default="", help=f"of raw (= {', '.join(GROUPS['raw'])}), {', '.join(SYSTEMS)}")
    parser.add_argument("--counts", default="3,200,1000", help="numbers of trivial tables")
    parser.add_argument("--key", choices=events.KEY_TYPES, default="bigint", help="type of event_id")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="DuckDB threads of every system")
    parser.add_argument("--memory", default="8GB", help="DuckDB memory limit of every system")
    parser.add_argument("--work", default=str(HERE / ".work"), help="folder for data and projects, on a local disk")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--keep", action="store_true", help="keep the last project of each system to look at")
    asked = parser.parse_args(arguments)
    asked.rows = [int(rows) for rows in asked.rows.replace("_", "").split(",")]
    asked.counts = [int(count) for count in asked.counts.split(",")]
    asked.scenario = _known(parser, asked.scenario.split(","), SCENARIOS)
    names = [name for part in asked.only.split(",") if part for name in GROUPS.get(part, [part])]
    asked.systems = [SYSTEMS[name] for name in _known(parser, names or list(SYSTEMS), SYSTEMS)]
    return asked


def _known(parser: argparse.ArgumentParser, names: list[str], known: object) -> list[str]:
    for name in names:
        if name not in known:  # type: ignore[operator]
            parser.error(f"unknown: {name} (known: {', '.join(known)})")  # type: ignore[call-overload]
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
