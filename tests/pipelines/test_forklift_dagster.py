"""The document by name: assets, job, sensor, resource, its YAML as run config, both module names, and the whole chain."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml
from forklift_bench import ROOT, yard_in
from own_modules import modules_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
CHAIN = [
    "raw_forklift_snapshot",
    "header_assigned_dataset",
    "cleaned_height_dataset",
    "carrying_dataset",
    "training_dataset",
    "trained_model",
    "model_performance_report",
]
# As the document prints it.
PRINTED = """
resources:
  lakefs:
    config:
      endpoint_url: "https://lakefs.example.com"
      repo: forklift-data
      branch: main
      access_key: ${LAKEFS_ACCESS_KEY}
      secret_key: ${LAKEFS_SECRET_KEY}
      prefix: real_data
"""


@pytest.fixture(scope="module")
def repository() -> Iterator[Any]:
    with modules_of(ROOT):
        yield importlib.import_module("pipelines.forklift").defs().get_repository_def()


def test_the_document_is_kept_by_name(repository: Any) -> None:
    graph = repository.asset_graph
    for above, below in itertools.pairwise(CHAIN):
        assert dg.AssetKey(above) in graph.get(dg.AssetKey(below)).parent_keys, below
    groups = {graph.get(dg.AssetKey(name)).group_name for name in CHAIN}
    assert groups == {"ingest", "processing", "ml"}
    job = repository.get_job("forklift_training_job")
    assert set(CHAIN) < {node.name for node in job.nodes}
    sensor = repository.get_sensor_def("lakefs_new_commit_sensor")
    assert sensor.job_name == "forklift_training_job" and sensor.minimum_interval_seconds == 300
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    blocking = {
        spec.asset_key.to_user_string()
        for key in graph.asset_check_keys
        if (spec := graph.get_check_spec(key)).blocking
    }
    ours = importlib.import_module("pipelines.forklift.repo").all_assets
    assert {key.to_user_string() for asset in ours for key in asset.keys} <= blocking
    home = ROOT / "pipelines/forklift"
    assert all((home / name).is_dir() for name in ("assets", "resources", "io_managers", "sensors", "utils"))
    talks = [
        graph.get(dg.AssetKey(name)).assets_def.op.retry_policy
        for name in ("raw_forklift_snapshot", "results_in_lakefs")
    ]
    assert all(policy.max_retries == 2 and policy.calculate_delay(2) == 30 for policy in talks)


def test_its_settings_are_those_of_an_instance(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pipelines/forklift/dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_retries_enabled and instance.run_retries_max_retries == 2
        assert not instance.telemetry_enabled and instance.run_monitoring_enabled


def test_both_names_of_the_module_are_one_code_location(
    repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner
    from dagster._cli.definitions import definitions_cli
    from dagster._core.workspace.autodiscovery import loadable_targets_from_python_module

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    for name in ("pipelines.forklift", "pipeline"):
        (target,) = loadable_targets_from_python_module(name, None)
        assert target.attribute == "defs"
        # Loads the code location as `dagster dev -m` does.
        said = CliRunner().invoke(definitions_cli, ["validate", "-m", name])
        assert said.exit_code == 0, said.output
    assert importlib.import_module("pipeline").defs is importlib.import_module("pipelines.forklift.repo").defs
    # What the document calls pipeline/models/ is there under that name.
    assert (ROOT / "pipeline").resolve() == (ROOT / "pipelines/forklift").resolve()


def test_the_yaml_of_the_document_is_a_run_config_as_it_is_printed(
    repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, config = repository.get_job("forklift_training_job"), yaml.safe_load(PRINTED)
    assert dg.validate_run_config(job, config)["resources"]["lakefs"]["config"]["access_key"] == "${LAKEFS_ACCESS_KEY}"
    local = {"resources": {"lakefs": {"config": {"fallback_local_path": "/data"}}}}
    assert dg.validate_run_config(job, local)
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(job, {"resources": {"lakefs": {"config": {"endpoint": "https://a"}}}})
    monkeypatch.setenv("LAKEFS_ACCESS_KEY", "the key")
    resource = importlib.import_module("pipelines.forklift.resources").LakeFSResource
    assert resource(**config["resources"]["lakefs"]["config"]).expanded("access_key") == "the key"
    # A run with this very YAML: the resource asks for the variables, what is stored has their names.
    monkeypatch.setenv("LAKEFS_SECRET_KEY", "the secret of nobody")
    asked: list[Any] = []
    lakefs = importlib.import_module("pipelines.forklift.lakefs")

    def fetch(root: Path, source: Any, *_: Any, **__: Any) -> Any:
        asked.append(source._settings)
        raise lakefs.LakeFSError("there is nobody", where="here", next="stay")

    monkeypatch.setattr(importlib.import_module("pipelines.forklift.assets.ingest"), "fetch", fetch)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        done = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
        stored = instance.get_run_by_id(done.run_id).run_config
    assert not done.success and (asked[0].access_key, asked[0].secret_key) == ("the key", "the secret of nobody")
    assert stored == config
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"the secret of nobody" not in path.read_bytes(), path


def test_a_file_asset_of_this_pipeline_loads_no_dagster() -> None:
    code = (
        "import sys; import pipelines.forklift.features, pipelines.forklift.processing; print('dagster' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_where_recipes_is_loaded_too_both_keep_their_model(repository: Any) -> None:
    from ratatouille.dagster.modules import packages

    found = packages(ROOT)
    assets = {key.to_user_string(): one for one in found.assets for key in getattr(one, "keys", [])}
    assert assets["trained_model"].op.name == "trained_model"
    ours = assets["forklift/trained_model"]
    assert ours.op.name == "forklift__trained_model" and dg.AssetKey("training_dataset") in ours.dependency_keys
    assert dg.AssetKey(["forklift", "trained_model"]) in assets["production_model"].dependency_keys
    checks = {spec.name: spec for one in found.checks for spec in one.check_specs}
    assert checks["trained_model_loads_safely_check"].asset_key == dg.AssetKey(["forklift", "trained_model"])
    read_too = [dep.asset_key for dep in checks["model_performance_report_is_whole_check"].additional_deps]
    assert read_too == [dg.AssetKey(["forklift", "trained_model"])]
    job = next(one for one in found.jobs if one.name == "forklift_training_job")
    assert dg.AssetKey(["forklift", "trained_model"]) in job.selection.selected_keys


def test_the_whole_job_runs_from_files_to_a_served_model(tmp_path: Path) -> None:
    with yard_in(tmp_path, whole=True) as yard:
        simulate = yard.module("simulate")
        fleet = simulate.Fleet(forklifts=5, trucks=1, days=1, seed=7)
        simulate.write(fleet, tmp_path / "lake/real_data", tmp_path / "truth")
        local = {"lakefs": {"config": {"fallback_local_path": str(tmp_path / "lake")}}}
        job = yard.definitions.get_repository_def().get_job("forklift_training_job")
        rounds = {"ops": {"trained_model": {"config": {"rounds": 15}}}}
        done = job.execute_in_process(run_config={"resources": local, **rounds}, instance=yard.instance)
        assert done.success
        made = yard.json("production_model", "metrics.json")
        scores, baselines = made["scores"]["without_load"], made["baselines"]
        assert (
            scores["average_precision"]
            > baselines["rule"]["average_precision"]
            > baselines["majority"]["average_precision"]
        )
        # The version of the files came along to the model, and each table of the run is noted.
        commits = yard.workspace.query("select distinct commit_id from bronze.forklift_telemetry")[
            "commit_id"
        ].to_list()
        assert {one["commit_id"] for one in made["made_from"]["commits"]} <= set(commits)
        views = yard.root / "pipelines/forklift/artifacts" / done.run_id
        notes = {path.stem: json.loads(path.read_text()) for path in views.glob("*.json")}
        assert set(notes) == set(CHAIN[:5]) and notes["carrying_dataset"]["table"] == "silver.forklift_carrying"
        rows = yard.workspace.query("select count(*) as n from silver.forklift_carrying")["n"][0]
        assert notes["carrying_dataset"]["rows"] == rows
        # FL-0003 has a broken height sensor, FL-0004 a dead load sensor.
        trained_on = set(yard.workspace.query("select distinct machine from gold.forklift_training")["machine"])
        assert not trained_on & {"FL-0003", "FL-0004"} and trained_on == {"FL-0001", "FL-0002", "FL-0005"}
        # Against the truth, the label of a machine with a dead load sensor is never right and the model often is.
        truth = pl.read_parquet(tmp_path / "truth/*.parquet")
        found = yard.module("scores").groups(yard.workspace, truth)
        assert found["load sensor dead"]["machines"] == ["FL-0004"]
        assert (
            found["load sensor dead"]["label"]["recall"] == 0.0
            and found["load sensor dead"]["without_load"]["recall"] > 0.5
        )
        assert set(found) == {"held back, later than all training", "load sensor dead", "height sensor broken"}
        assert "| the label" in yard.module("scores").table("x", found["load sensor dead"])
