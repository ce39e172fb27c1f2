"""What Dagster loads: the whole project, one pipeline, one workspace; and what it does with files that are wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from ratatouille.dagster.code_location import definitions, workspace_definitions

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).parent / "definitions.json"
PYTHON = """
from dagster import AssetCheckResult, AssetSelection, asset, asset_check, define_asset_job, schedule, sensor

@asset(group_name="mine")
def mine(): ...

@asset_check(asset=mine)
def mine_is_there(): return AssetCheckResult(passed=True)

mine_job = define_asset_job("mine_job", AssetSelection.groups("mine"))

@sensor(job=mine_job)
def mine_sensor(): ...

@schedule(job=mine_job, cron_schedule="@daily")
def mine_daily(): ...
"""


def shown(defs: dg.Definitions) -> dict[str, object]:
    """Names and edges of everything that is defined, JSON-safe."""
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    return {
        "assets": {
            key.to_user_string(): {
                "reads": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
                "group": graph.get(key).group_name,
                "kinds": sorted(graph.get(key).kinds),
                "checks": sorted(
                    f"{check.name}{' (blocking)' if graph.get_check_spec(check).blocking else ''}"
                    for check in graph.get(key).check_keys
                ),
            }
            for key in sorted(graph.get_all_asset_keys(), key=lambda key: key.path)
        },
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
            for job in sorted(repository.get_all_jobs(), key=lambda job: job.name)
            if not job.name.startswith("__")
        },
        "schedules": {s.name: str(s.cron_schedule) for s in sorted(repository.schedule_defs, key=lambda s: s.name)},
        "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
    }


@pytest.fixture
def at_root(monkeypatch):
    before = list(sys.path), set(sys.modules)
    monkeypatch.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    yield
    sys.path[:] = before[0]
    for name in set(sys.modules) - before[1]:
        if name.split(".")[0] == "pipelines":
            del sys.modules[name]


def test_everything_in_this_repository_is_as_it_was(at_root):
    """If a change is meant, write the snapshot anew: python tests/dagster_face/test_dagster_code_location.py"""
    assert shown(definitions()) == json.loads(SNAPSHOT.read_text())


@pytest.mark.parametrize(
    "location", ["ratatouille.definitions", "pipelines.sales", "pipelines.f1", "pipelines.recipes"]
)
def test_dagster_accepts_the_code_locations(location):
    said = _command("dagster", "definitions", "validate", "-m", location)
    assert f"Validation successful for code location {location}" in said


def test_dagster_finds_the_project_by_itself():
    assert "Validation successful for code location ratatouille.definitions" in _command(
        "dagster", "definitions", "validate"
    )


def test_dg_lists_the_definitions():
    listed = json.loads(_command("dg", "list", "defs", "--json", stdout_only=True))
    keys = {asset["asset_key"] for asset in listed["assets"]}
    assert {"bronze/sales", "silver/sales", "gold/sales_summary", "sales_silver", "silver/ingredients"} <= keys


def _command(*words: str, stdout_only: bool = False) -> str:
    path = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "DAGSTER_DISABLE_TELEMETRY": "1"}
    env.pop("RATATOUILLE_WORKSPACE", None)
    ran = subprocess.run(
        [str(path / words[0]), *words[1:]], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout if stdout_only else ran.stdout + ran.stderr


def test_a_pipeline_alone_has_the_names_that_it_has_among_all(at_root):
    import importlib

    alone = shown(importlib.import_module("pipelines.sales").defs())
    whole = shown(definitions())
    assert {"bronze/sales", "sales_silver"} <= set(alone["assets"])
    for key, asset in alone["assets"].items():
        assert whole["assets"][key] == asset
    assert alone["jobs"]["sales_pipeline"] == whole["jobs"]["sales_pipeline"]


def test_two_workspaces_with_the_same_names_are_kept_apart(kitchen, instance):
    kitchen.write(
        {
            "pipelines/bronze/numbers.sql": "select 1 as n",
            "pipelines/gold/total.sql": "select sum(n) as n from {{ ref('bronze.numbers') }}",
            "workspaces/demo/workspace.yaml": "name: demo",
            "workspaces/demo/pipelines/bronze/numbers.sql": "select 2 as n",
            "workspaces/demo/pipelines/gold/total.sql": "select sum(n) as n from {{ ref('bronze.numbers') }}",
            "workspaces/other/workspace.yaml": "name: other",
            "workspaces/other/pipelines/bronze/letters.sql": "select 'a' as a",
        }
    )
    defs = kitchen.defs()
    assets = shown(defs)["assets"]
    assert set(assets) == {
        "bronze/numbers", "gold/total", "demo/bronze/numbers", "demo/gold/total", "bronze/letters"
    }  # fmt: skip
    assert assets["demo/gold/total"]["reads"] == ["demo/bronze/numbers"]
    for key in (["bronze", "numbers"], ["demo", "bronze", "numbers"], ["gold", "total"], ["demo", "gold", "total"]):
        graph = defs.get_repository_def().asset_graph
        assert dg.materialize([graph.assets_def_for_key(dg.AssetKey(key))], instance=instance).success
    from ratatouille.handle import Workspace

    assert kitchen.rows("select n from gold.total") == [(1,)]
    assert Workspace(kitchen.root / "workspaces/demo").query("select n from gold.total").rows() == [(2,)]


def test_python_files_dropped_into_a_workspace_are_loaded(kitchen):
    kitchen.write(
        {
            "workspaces/demo/workspace.yaml": "name: demo",
            "workspaces/demo/pipelines/my_pipeline.py": PYTHON,
            "workspaces/demo/pipelines/deeper/another.py": PYTHON.replace("mine", "other"),
            "workspaces/demo/pipelines/words.py": "raise RuntimeError('no Dagster in here, so nobody imports it')",
            "workspaces/demo/pipelines/_draft.py": "import dagster\nraise RuntimeError('not this one')",
        }
    )
    found = shown(kitchen.defs())
    assert set(found["assets"]) == {"mine", "other"}
    assert found["assets"]["mine"]["checks"] == ["mine_is_there"]
    assert found["jobs"] == {"mine_job": ["mine"], "other_job": ["other"]}
    assert found["schedules"] == {"mine_daily": "@daily", "other_daily": "@daily"}
    assert {"mine_sensor", "other_sensor"} <= set(found["sensors"])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import dagster\nx = 1 / 0", ("ZeroDivisionError", "broken.py:2", "x = 1 / 0")),
        ("import dagster\ndef f(:", ("Python syntax: invalid syntax", "broken.py:2")),
        ("from dagster import nothing_of_that_name", ("ImportError", "broken.py:1")),
    ],
)
def test_a_python_file_that_cannot_be_imported_is_a_placeholder(kitchen, instance, code, said):
    kitchen.write(
        {
            "pipelines/bronze/numbers.sql": "select 1 as n",
            "workspaces/demo/workspace.yaml": "name: demo",
            "workspaces/demo/pipelines/broken.py": code,
            "workspaces/demo/pipelines/mine.py": PYTHON,
        }
    )
    graph = kitchen.defs().get_repository_def().asset_graph
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert keys == {"bronze/numbers", "mine", "broken/pipelines_broken_py"}
    key = dg.AssetKey(["broken", "pipelines_broken_py"])
    for words in said:
        assert words in graph.get(key).description
    result = dg.materialize([graph.assets_def_for_key(key)], instance=instance, raise_on_error=False)
    assert not result.success


def test_a_broken_workspace_does_not_take_down_the_others(kitchen):
    kitchen.write(
        {
            "pipelines/bronze/numbers.sql": "select 1 as n",
            "workspaces/demo/workspace.yaml": "nmae: demo",
        }
    )
    graph = kitchen.defs().get_repository_def().asset_graph
    broken = dg.AssetKey(["broken", "workspaces_demo_workspace_yaml"])
    assert set(graph.get_all_asset_keys()) == {dg.AssetKey(["bronze", "numbers"]), broken}
    assert "Did you mean 'name'?" in graph.get(broken).description


def test_one_broken_package_does_not_take_down_the_others(kitchen):
    kitchen.write(
        {
            "pipelines/__init__.py": "from . import good, bad\nall_assets = good.all_assets + bad.all_assets\n",
            "pipelines/good/__init__.py": "from dagster import asset\n@asset\ndef fine(): ...\nall_assets = [fine]\n",
            "pipelines/bad/__init__.py": "import nothing_of_that_name\n",
        }
    )
    found = shown(kitchen.defs())["assets"]
    assert set(found) == {"fine", "broken/pipelines_bad___init___py", "broken/pipelines___init___py"}


def test_a_python_asset_with_the_key_of_a_file_is_shown_as_a_mistake(kitchen):
    kitchen.write(
        {
            "pipelines/bronze/numbers.sql": "select 1 as n",
            "workspaces/demo/workspace.yaml": "name: demo",
            "workspaces/demo/pipelines/twice.py": (
                "import dagster as dg\n@dg.asset(key=['bronze', 'numbers'])\ndef numbers(): ...\n"
            ),
        }
    )
    graph = kitchen.defs().get_repository_def().asset_graph
    (other,) = set(graph.get_all_asset_keys()) - {dg.AssetKey(["bronze", "numbers"])}
    assert "defined twice" in graph.get(other).description and "twice.py:2" in graph.get(other).description


def test_a_workspace_in_another_project_takes_a_prefix(kitchen):
    kitchen.write({"pipelines/bronze/numbers.sql": "select 1 as n"})
    found = shown(workspace_definitions(kitchen.root, ["team"]))
    assert set(found["assets"]) == {"team/bronze/numbers"}


if __name__ == "__main__":
    os.chdir(ROOT)
    SNAPSHOT.write_text(json.dumps(shown(definitions()), indent=2) + "\n")


_FEED = """
import dagster as dg
import polars as pl
from ratatouille import run


@dg.asset(key_prefix="raw")
def NAME() -> pl.DataFrame:
    return pl.DataFrame({"place": ["NAME"]})


@dg.asset
def NAME_served() -> None:
    run("silver.dishes")
"""


def test_each_workspace_stores_its_native_assets_in_its_own_lake(kitchen) -> None:
    dishes = "select place from {{ ref('raw.NAME') }}"
    kitchen.write(
        {
            "pipelines/feeds.py": _FEED.replace("NAME", "spices"),
            "pipelines/silver/dishes.sql": dishes.replace("NAME", "spices"),
            "workspaces/bakery/workspace.yaml": "name: bakery\nresources: {memory: 1GB, threads: 2}\n",
            "workspaces/bakery/pipelines/feeds.py": _FEED.replace("NAME", "flour"),
            "workspaces/bakery/pipelines/silver/dishes.sql": dishes.replace("NAME", "flour"),
        }
    )
    defs = kitchen.defs()
    graph = defs.resolve_asset_graph()
    above = {key.to_user_string(): {k.to_user_string() for k in graph.get(key).parent_keys} for key in graph.get_all_asset_keys()}  # fmt: skip
    assert above == {
        "raw/spices": set(),
        "silver/dishes": {"raw/spices"},
        "spices_served": {"silver/dishes"},
        "raw/flour": set(),
        "bakery/silver/dishes": {"raw/flour"},
        "flour_served": {"bakery/silver/dishes"},
    }
    with dg.DagsterInstance.ephemeral() as instance:
        assert defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance).success
    from ratatouille.handle import Workspace

    bakery = Workspace(kitchen.root / "workspaces/bakery")
    assert kitchen.rows("select place from silver.dishes") == [("spices",)]
    assert bakery.query("select place from silver.dishes").rows() == [("flour",)]


def test_public_names_are_no_modules_whatever_was_imported_before() -> None:
    code = (
        "import pkgutil, importlib, types, ratatouille.dagster as face\n"
        "for one in pkgutil.iter_modules(face.__path__): importlib.import_module(f'ratatouille.dagster.{one.name}')\n"
        "print([name for name in face.__all__ if isinstance(getattr(face, name), types.ModuleType)])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
