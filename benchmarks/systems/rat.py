"""Ratatouille through its command, as a user runs it: a workspace on disk and `rat run`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from measure import Command, CommandFailed
from systems.raw import attach
from systems.system import HERE, plain_env, write
from workload import GOLD, TIDY, Job, Tables

SILVER = f"""
{TIDY.format(bronze="{{ ref('bronze.events') }}")}
{{% if is_incremental() %}} and _loaded_at > {{{{ watermark('_loaded_at') }}}} {{% endif %}}
"""
SILVER_RULES = """
materialize: merge
unique_key: event_id
deduplicate: updated_at desc
columns:
  event_id: {checks: [not_null, unique]}
  total: {checks: [positive]}
"""


@dataclass(frozen=True, slots=True)
class Rat:
    name: str = "rat"
    stages: frozenset[str] = frozenset({"full", "noop", "delta"})
    trivial_stages: frozenset[str] = frozenset({"full", "noop", "noop_cold"})
    ingests: bool = True

    def prepare(self) -> str:
        tried = subprocess.run([*_rat(), "--help"], env=_env(), capture_output=True, text=True)
        if tried.returncode != 0:
            raise CommandFailed(f"rat --help: {tried.stderr or tried.stdout}")
        code = "import importlib.metadata as m; print(m.version('ratatouille-lakehouse'))"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return f"ratatouille {shown.stdout.strip() or 'from src/'}"

    def start(self, folder: Path, job: Job) -> None:
        pipeline = "pipelines/shop"
        files = {
            f"{pipeline}/bronze/events.sql": "select * from {{ source('landing/events/*.parquet') }}",
            f"{pipeline}/bronze/events.yaml": "materialize: append",
            f"{pipeline}/silver/events.sql": SILVER,
            f"{pipeline}/silver/events.yaml": SILVER_RULES,
            f"{pipeline}/gold/sales.sql": GOLD.format(silver="{{ ref('silver.events') }}"),
        }
        write(folder, files | _workspace(job))

    def start_trivial(self, folder: Path, count: int, job: Job) -> None:
        files = {"pipelines/many/bronze/base.csv": "id\n1"}
        reader = "select id, {n} as n from {{{{ ref('bronze.base') }}}}"
        files |= {f"pipelines/many/silver/t{n}.sql": reader.format(n=n) for n in range(1, count)}
        write(folder, files | _workspace(job))

    def start_ingest(self, folder: Path, job: Job) -> None:
        rules = {"materialize": "append", "sources": {"landing/events/*.csv": {"columns": job.columns}}}
        files = {
            "pipelines/shop/bronze/events.sql": "select * from {{ source('landing/events/*.csv') }}",
            "pipelines/shop/bronze/events.yaml": json.dumps(rules, indent=2),
        }
        write(folder, files | _workspace(job))

    def command(self, folder: Path, stage: str) -> Command:
        if stage == "noop_cold":
            shutil.rmtree(folder / ".rat" / "cache")
        return Command([*_rat(), "run"], folder, _env())

    def tables(self, folder: Path) -> Tables:
        lake = attach(read_only=True, catalog=".rat/catalog.sqlite")
        return Tables((lake,), "lake.bronze.events", "lake.silver.events", "lake.gold.sales")


def _workspace(job: Job) -> dict[str, str]:
    settings = {"name": "bench", "resources": {"memory": job.memory, "threads": job.threads}}
    return {"workspace.yaml": json.dumps(settings, indent=2)}


def _installed() -> Path:
    return Path(sys.executable).parent / "rat"


def _rat() -> list[str]:
    """The installed command beside this interpreter, else the sources of this repository."""
    return [str(_installed())] if _installed().exists() else [sys.executable, "-m", "ratatouille.cli"]


def _env() -> dict[str, str]:
    return plain_env() if _installed().exists() else plain_env(PYTHONPATH=str(HERE.parent / "src"))


SYSTEMS = (Rat(),)
