"""SQLMesh on its DuckDB engine, state in the same file, written as its documentation advises.

Work is cut into daily intervals. The clock is set by --execution-time, so that day two is due when its file is there:
`plan` of day one is the full load, the same plan again the no-op, `plan --run` a day later the delta.
Bronze replaces the rows of an interval, silver is incremental by key, its audits stop the plan.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from measure import Command
from systems.system import environment, plain_env, write
from workload import GOLD, LATEST, TIDY, Job, Tables

VERSIONS = {"sqlmesh": "0.236.4", "duckdb": "1.5.5"}
NOW = {"full": "2026-01-02", "noop": "2026-01-02", "delta": "2026-01-03"}

BRONZE = """
MODEL (
  name bronze.events,
  kind INCREMENTAL_BY_TIME_RANGE (time_column (_day, '%Y-%m-%d'))
);
select
    * exclude (filename),
    filename as _file,
    now()::timestamp as _loaded_at,
    @execution_ds as _run_id,
    substr(filename, 23, 10) as _day
from read_parquet('landing/events/*.parquet', filename = true)
where filename between 'landing/events/events-' || @start_ds and 'landing/events/events-' || @end_ds || '~'
"""
SILVER = f"""
MODEL (
  name silver.events,
  kind INCREMENTAL_BY_UNIQUE_KEY (unique_key event_id),
  audits (
    not_null(columns := (event_id)),
    unique_values(columns := (event_id)),
    forall(criteria := (total > 0))
  )
);
{TIDY.format(bronze="bronze.events")} and _day between @start_ds and @end_ds
qualify {LATEST}
"""


@dataclass(frozen=True, slots=True)
class SqlMesh:
    name: str = "sqlmesh"
    stages: frozenset[str] = frozenset({"full", "noop", "delta"})
    trivial_stages: frozenset[str] = frozenset({"full", "noop"})
    ingests: bool = False

    def prepare(self) -> str:
        environment("sqlmesh", [f"{name}=={version}" for name, version in VERSIONS.items()])
        return ", ".join(f"{name} {version}" for name, version in VERSIONS.items())

    def start(self, folder: Path, job: Job) -> None:
        gold = "MODEL (name gold.sales, kind FULL);\n" + GOLD.format(silver="silver.events")
        models = {"models/bronze.sql": BRONZE, "models/silver.sql": SILVER, "models/gold.sql": gold}
        write(folder, models | _config(job))

    def start_trivial(self, folder: Path, count: int, job: Job) -> None:
        models = {"models/base.sql": "MODEL (name bronze.base, kind FULL);\nselect 1 as id"}
        reader = "MODEL (name silver.t{n}, kind FULL);\nselect id, {n} as n from bronze.base"
        models |= {f"models/t{n}.sql": reader.format(n=n) for n in range(1, count)}
        write(folder, models | _config(job))

    def start_ingest(self, folder: Path, job: Job) -> None:
        raise NotImplementedError

    def command(self, folder: Path, stage: str) -> Command:
        sqlmesh = environment("sqlmesh", [f"{name}=={version}" for name, version in VERSIONS.items()]) / "sqlmesh"
        plan = [str(sqlmesh), "plan", "--auto-apply", "--no-prompts", "--no-diff", "--execution-time", NOW[stage]]
        return Command([*plan, "--run"] if stage == "delta" else plan, folder, plain_env())

    def tables(self, folder: Path) -> Tables:
        return Tables(
            ("attach 'lake.duckdb' as lake (read_only)", "use lake"),
            "bronze.events",
            "silver.events",
            "gold.sales",
        )


def _config(job: Job) -> dict[str, str]:
    settings = {"threads": job.threads, "memory_limit": job.memory}
    connection = {"type": "duckdb", "database": "lake.duckdb", "connector_config": settings}
    config = {
        "gateways": {"local": {"connection": connection}},
        "default_gateway": "local",
        "model_defaults": {"dialect": "duckdb", "start": "2026-01-01", "cron": "@daily"},
        "disable_anonymized_analytics": True,
    }
    # JSON is YAML, and needs no writer.
    return {"config.yaml": json.dumps(config, indent=2)}


SYSTEMS = (SqlMesh(),)
