"""dbt-duckdb into a DuckDB file, its usual form, written as its documentation advises.

Bronze appends files with a name above the newest one it has; the name is fetched first and written as a literal, so
DuckDB opens only the new files. Silver is incremental by key with the faster of dbt's strategies for this engine.
`dbt build` runs the models and their tests; the trivial projects have no tests and use `dbt run`.
dbt has no idea of "nothing to do": a second build is its no-op.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from measure import Command
from systems.system import environment, plain_env, write
from workload import GOLD, LATEST, TIDY, Job, Tables

VERSIONS = {"dbt-core": "1.11.16", "dbt-duckdb": "1.11.1", "duckdb": "1.5.5"}
STRATEGY = "delete+insert"

BRONZE = """
{{ config(materialized='incremental', incremental_strategy='append') }}
{% if is_incremental() and execute %}
  {% set newest = run_query('select max(_file) from ' ~ this).columns[0].values()[0] %}
{% endif %}
select
    * exclude (filename),
    filename as _file,
    now()::timestamp as _loaded_at,
    '{{ invocation_id }}' as _run_id
from read_parquet('landing/events/*.parquet', filename = true)
{% if is_incremental() %} where filename > '{{ newest }}' {% endif %}
"""
SILVER = f"""
{{{{ config(materialized='incremental', unique_key='event_id', incremental_strategy='{STRATEGY}') }}}}
{TIDY.format(bronze="{{ ref('bronze_events') }}")}
{{% if is_incremental() %}} and _loaded_at > (select max(_loaded_at) from {{{{ this }}}}) {{% endif %}}
qualify {LATEST}
"""
TESTS = """
models:
  - name: silver_events
    columns:
      - name: event_id
        data_tests: [not_null, unique]
      - name: total
        data_tests: [positive]
"""
POSITIVE = """
{% test positive(model, column_name) %}
select * from {{ model }} where not {{ column_name }} > 0
{% endtest %}
"""


@dataclass(frozen=True, slots=True)
class Dbt:
    name: str = "dbt"
    stages: frozenset[str] = frozenset({"full", "noop", "delta"})
    trivial_stages: frozenset[str] = frozenset({"full", "noop"})
    ingests: bool = False

    def prepare(self) -> str:
        environment("dbt", [f"{name}=={version}" for name, version in VERSIONS.items()])
        return ", ".join(f"{name} {version}" for name, version in VERSIONS.items())

    def start(self, folder: Path, job: Job) -> None:
        models = {
            "models/bronze_events.sql": BRONZE,
            "models/silver_events.sql": SILVER,
            "models/gold_sales.sql": "{{ config(materialized='table') }}\n"
            + GOLD.format(silver="{{ ref('silver_events') }}"),
            "models/tests.yml": TESTS,
            "tests/generic/positive.sql": POSITIVE,
        }
        write(folder, models | _project(job, threads=1))
        (folder / "verb").write_text("build")

    def start_trivial(self, folder: Path, count: int, job: Job) -> None:
        models = {"models/base.sql": "{{ config(materialized='table') }}\nselect 1 as id"}
        reader = "{{{{ config(materialized='table') }}}}\nselect id, {n} as n from {{{{ ref('base') }}}}"
        models |= {f"models/t{n}.sql": reader.format(n=n) for n in range(1, count)}
        write(folder, models | _project(job, threads=job.threads))
        (folder / "verb").write_text("run")

    def start_ingest(self, folder: Path, job: Job) -> None:
        raise NotImplementedError

    def command(self, folder: Path, stage: str) -> Command:
        dbt = environment("dbt", [f"{name}=={version}" for name, version in VERSIONS.items()]) / "dbt"
        verb = (folder / "verb").read_text()
        env = plain_env(DBT_SEND_ANONYMOUS_USAGE_STATS="false", DBT_PROFILES_DIR=os.curdir)
        return Command([str(dbt), verb], folder, env)

    def tables(self, folder: Path) -> Tables:
        return Tables(
            ("attach 'dbt.duckdb' as dbt (read_only)",),
            "dbt.main.bronze_events",
            "dbt.main.silver_events",
            "dbt.main.gold_sales",
        )


def _project(job: Job, threads: int) -> dict[str, str]:
    project = {
        "name": "bench",
        "version": "1.0",
        "profile": "bench",
        "model-paths": ["models"],
        "test-paths": ["tests"],
    }
    target = {
        "type": "duckdb",
        "path": "dbt.duckdb",
        "threads": threads,
        "settings": {"memory_limit": job.memory, "threads": job.threads},
    }
    profiles = {"bench": {"target": "dev", "outputs": {"dev": target}}}
    # JSON is YAML, and needs no writer.
    return {"dbt_project.yml": json.dumps(project, indent=2), "profiles.yml": json.dumps(profiles, indent=2)}


SYSTEMS = (Dbt(),)
