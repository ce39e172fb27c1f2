"""The dbt project of F1 without the lake: dbt alone gives the same rows and verdicts on DuckDB and on Spark."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ratatouille.handle import Workspace

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("spark_worker.py")
# What was built when: different in each run.
CLOCK = ("updated_at", "input_updated_at")

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.usefixtures("quiet_retries")]


@pytest.fixture
def bronze(tmp_path: Path, extract: Any) -> Path:
    """The bronze tables of a season, as Parquet."""
    root = tmp_path / "kitchen"
    (root / "pipelines").mkdir(parents=True)
    shutil.copy(ROOT / "workspace.yaml", root)
    shutil.copytree(ROOT / "pipelines" / "f1" / "bronze_raw", root / "pipelines" / "f1" / "bronze_raw")
    entities = [*("sessions", "meetings", "drivers", "laps", "location"), *("pit", "race_control", "session_result", "starting_grid")]  # fmt: skip
    extract(root / "landing" / "f1", mode="latest", sessions=6, entities=entities)
    kitchen = Workspace(root)
    done = kitchen.run()
    folder = tmp_path / "bronze"
    folder.mkdir()
    for table in done["steps"]:
        kitchen.query(f"select * from {table}").write_parquet(folder / f"{table.partition('.')[2]}.parquet")
    return folder


def test_the_project_alone_gives_the_same_rows_on_duckdb_and_on_spark(bronze: Path, tmp_path: Path) -> None:
    if find_spec("pysail") is None:
        pytest.skip("pysail is not installed. Get it with: make setup EXTRAS=spark")
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    project = ROOT / "pipelines" / "f1" / "dbt"
    ran = subprocess.run(
        [sys.executable, str(WORKER), str(project), str(bronze), str(out)],
        cwd=work,
        env={**os.environ, "DBT_LOG_PATH": str(work), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]

    verdicts = {target: {name: status for name, status, _ in json.loads((out / f"{target}.json").read_text())} for target in ("dev", "spark")}  # fmt: skip
    assert verdicts["spark"] == verdicts["dev"]
    assert len(verdicts["spark"]) == 10 + 53 + 39 + 34 and {*verdicts["spark"].values()} <= {"success", "pass", "warn"}

    models = sorted(path.name for path in (out / "dev").iterdir())
    assert len(models) == 10
    for model in models:
        one, other = (_rows(out / target / model) for target in ("dev", "spark"))
        assert one.height > 0 and one.columns == other.columns, model
        different = {name for name in one.columns if not one[name].equals(other[name])}
        assert not different, f"{model}: {different}"


def _rows(path: Path) -> pl.DataFrame:
    """Ordered rows; numbers to nine digits, because engines sum in any order."""
    read = pl.read_parquet(path).drop(CLOCK)
    read = read.with_columns(
        pl.col(pl.Float64, pl.Float32, pl.Decimal).cast(pl.Float64).round(6),
        pl.col(pl.Int8, pl.Int16, pl.Int32).cast(pl.Int64),
        pl.col(pl.Datetime).dt.replace_time_zone(None).dt.cast_time_unit("us"),
        pl.col(pl.List(pl.Int32)).cast(pl.List(pl.Int64)),
    )
    keys = [name for name in read.columns if not isinstance(read.schema[name], pl.List)]
    return read.sort(keys)
