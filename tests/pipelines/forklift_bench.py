"""What the tests of forklift's learning share: a workspace with this pipeline alone, on telemetry that is made up.

The carrying flag comes as a seed file in place of the tables above it, so that a test of learning is of learning alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import polars as pl
from own_modules import modules_of

ROOT = Path(__file__).resolve().parents[2]
CHAIN = ["training_dataset", "trained_model", "model_performance_report", "production_model"]
STALE_ONLY = {"ratatouille/stale_only": "test"}
QUICK = {"trained_model": {"rounds": 20}}
SEED = Path("pipelines/forklift/silver/forklift_carrying.parquet")


def carrying(forklifts: int = 6, days: int = 2, seed: int = 7, commit: str = "c0ffee01", **change: Any) -> pl.DataFrame:
    """Telemetry of a simulated fleet with the flag that silver.forklift_carrying would give it, but for the debouncing."""
    simulate = import_module("pipelines.forklift.simulate")
    fleet = simulate.Fleet(seed=seed, forklifts=forklifts, trucks=0, days=days, first_day=date(2026, 3, 2))
    made = [
        simulate.telemetry(machine, fleet.first_day, days)[0].with_columns(machine=pl.lit(machine.name))
        for machine in simulate.machines(fleet)
    ]
    rows = pl.concat(made).rename(str.lower)
    flag = (pl.col("load") >= 0.5) & (pl.col("height") > 0.35) & (pl.col("speed") <= 7.2) & (pl.col("onduty") == 1)
    return rows.select(
        "machine",
        pl.col("timestamp").str.to_datetime().alias("ts"),
        *("height", "load", "latitude", "longitude", "speed"),
        (pl.col("onduty") == 1).alias("on_duty"),
        flag.alias("carrying"),
        pl.when(flag).then(pl.concat_str("machine", pl.lit("@"), flag.rle_id().over("machine"))).alias("pulse_id"),
        pl.lit(value=False).alias("sensor_broken"),
        pl.lit(commit).alias("commit_id"),
    ).with_columns(**change)


class Yard:
    """The pipeline in a workspace of its own, run in this process."""

    def __init__(self, root: Path, instance: dg.DagsterInstance | None) -> None:
        from ratatouille.dagster import definitions
        from ratatouille.handle import Workspace

        self.root, self.instance = root, instance
        self.definitions = definitions(root)
        self.workspace = Workspace(root)

    def module(self, name: str) -> ModuleType:
        return import_module(f"pipelines.forklift.{name}")

    def bring(self, rows: pl.DataFrame) -> None:
        """Let these rows be silver.forklift_carrying."""
        rows.write_parquet(self.root / SEED)
        self.workspace.run("silver.forklift_carrying")

    def run(
        self,
        *names: str,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        lakefs: Mapping[str, str] | None = None,
    ) -> Any:
        """Materialize these assets with their checks; the settings of QUICK under those of `config`."""
        names = names or tuple(CHAIN)
        wish = {name: {**QUICK.get(name, {}), **(config or {}).get(name, {})} for name in names}
        return self.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            run_config={"ops": {name: {"config": one} for name, one in wish.items() if one}}
            | ({"resources": {"lakefs": {"config": dict(lakefs)}}} if lakefs else {}),
            instance=self.instance,
            asset_selection=[dg.AssetKey(name) for name in names],
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def current(self, table: str) -> Path:
        return self.workspace.artifact(f"forklift.{table}")

    def json(self, table: str, name: str) -> Any:
        return json.loads((self.current(table) / name).read_text())


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """What the last materialization of an asset in a run says."""
    for event in reversed(result.all_events):
        if event.is_step_materialization and event.asset_key == dg.AssetKey(asset):
            said = event.step_materialization_data.materialization.metadata
            return {name: value.value for name, value in said.items()}
    return {}


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the first step that failed says."""
    failed = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    return str(failed.user_failure_data.description if failed.user_failure_data else failed.error.to_string())


@contextmanager
def yard_in(folder: Path, *, whole: bool = False) -> Iterator[Yard]:
    """A yard below `folder`, with the tables above the carrying flag if it is `whole`; the modules of this pipeline are the copy's until the end, then what they were before."""
    root = folder / "kitchen"
    root.mkdir(parents=True)
    (root / "workspace.yaml").write_text("name: kitchen\nlayers: [bronze, silver, gold]\n")
    pipeline = root / "pipelines" / "forklift"
    left_out = [
        "__pycache__",
        "artifacts",
        "models",
        "metrics",
        *(() if whole else ("bronze", "silver", "forklift_[las]*")),
    ]
    shutil.copytree(ROOT / "pipelines" / "forklift", pipeline, ignore=shutil.ignore_patterns(*left_out))
    (pipeline / "silver").mkdir(exist_ok=True)
    (root / "pipelines" / "__init__.py").write_text("")
    (folder / "home").mkdir()
    with modules_of(root), dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        if not whole:
            carrying(forklifts=1, days=1).head(100).write_parquet(root / SEED)
        yield Yard(root, instance)
