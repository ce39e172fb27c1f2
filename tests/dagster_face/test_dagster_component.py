"""The component `ratatouille.dagster.Workspace`: a workspace in somebody else's Dagster project."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from ratatouille.dagster.component import Workspace
from ratatouille.errors import RatError, RequestError

DEFS_YAML = "type: ratatouille.dagster.Workspace\nattributes:\n  path: {path}\n"
TOML = """
[project]
name = "restaurant"
version = "0.1.0"
requires-python = ">=3.11"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "restaurant"
"""

Project = Callable[[dict[str, str]], Path]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """`project({path: text})`: a Dagster project beside two workspaces, `kitchen` and `bakery`."""

    def make(files: dict[str, str]) -> Path:
        root = tmp_path / "restaurant"
        package = "restaurant/src/restaurant"
        everything = {
            "kitchen/workspace.yaml": "name: kitchen\nresources: {memory: 1GB, threads: 2}\n",
            "kitchen/pipelines/bronze/dishes.sql": "select 1 as dish_id, 'ratatouille' as dish",
            "kitchen/pipelines/silver/dishes.sql": "select * from {{ ref('bronze.dishes') }}",
            "kitchen/pipelines/silver/dishes.yaml": "columns: {dish_id: {checks: [unique]}}\n",
            "bakery/workspace.yaml": "name: bakery\n",
            "bakery/pipelines/bronze/dishes.sql": "select 2 as dish_id, 'fougasse' as dish",
            "restaurant/pyproject.toml": TOML,
            f"{package}/__init__.py": "",
            f"{package}/defs/__init__.py": "",
            **{f"{package}/defs/{name}": text for name, text in files.items()},
        }
        for name, text in everything.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        sys.path.insert(0, str(root / "src"))
        return root

    before = list(sys.path), set(sys.modules)
    yield make
    sys.path[:] = before[0]
    for name in set(sys.modules) - before[1]:
        if name.split(".")[0] in {"restaurant", "pipelines"}:
            del sys.modules[name]


def load(root: Path) -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=root / "src" / "restaurant" / "defs")


def keys(defs: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}


def test_a_folder_is_mounted_by_three_lines_of_yaml(project: Project) -> None:
    root = project({"kitchen/defs.yaml": DEFS_YAML.format(path="../../../../../kitchen")})
    defs = load(root)
    assert keys(defs) == {"bronze/dishes", "silver/dishes"}
    graph = defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey(["silver", "dishes"])).parent_keys == {dg.AssetKey(["bronze", "dishes"])}
    assert {check.name for check in graph.asset_check_keys} == {"dish_id_unique"}


def test_a_mounted_asset_is_built_in_its_own_lake(project: Project, tmp_path: Path) -> None:
    from ratatouille.handle import Workspace as Handle

    root = project({"kitchen/defs.yaml": DEFS_YAML.format(path=tmp_path / "kitchen")})
    with dg.DagsterInstance.ephemeral() as instance:
        result = load(root).resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
    assert result.success
    assert Handle(tmp_path / "kitchen").query("select dish from silver.dishes").rows() == [("ratatouille",)]
    assert not (root / ".rat").exists()


def test_two_workspaces_with_the_same_names_get_prefixes(project: Project) -> None:
    root = project(
        {
            "kitchen/defs.yaml": DEFS_YAML.format(path="../../../../../kitchen"),
            "bakery/defs.yaml": DEFS_YAML.format(path="../../../../../bakery") + "  key_prefix: [bakery]\n",
        }
    )
    assert keys(load(root)) == {"bronze/dishes", "silver/dishes", "bakery/bronze/dishes"}


def test_a_folder_that_is_no_workspace_is_an_error_that_names_it(project: Project, tmp_path: Path) -> None:
    root = project({"kitchen/defs.yaml": DEFS_YAML.format(path="../../../../../kitchne")})
    with pytest.raises(Exception, match=r"defs\.yaml") as failed:
        keys(load(root))
    [told] = [error for error in _causes(failed.value) if isinstance(error, RequestError)]
    assert "kitchne is not a Ratatouille workspace" in told.what
    assert str(tmp_path / "kitchne") in told.where and "workspace.yaml" in told.next


def test_the_path_is_described_for_editors() -> None:
    schema = Workspace.model().model_json_schema()
    assert schema["required"] == ["path"]
    assert schema["properties"]["path"]["description"].startswith("The folder with workspace.yaml")


@pytest.mark.slow
def test_dg_knows_the_component_by_its_entry_point(project: Project) -> None:
    root = project({"kitchen/defs.yaml": DEFS_YAML.format(path="../../../../../kitchen")})
    dg_command = Path(sys.executable).with_name("dg")
    listed = subprocess.run(
        [str(dg_command), "list", "components", "--json"], cwd=root, capture_output=True, text=True, check=False
    )
    assert listed.returncode == 0, listed.stderr
    assert '"ratatouille.dagster.Workspace"' in listed.stdout


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


NATIVE = """
import dagster as dg
import polars as pl


@dg.asset(key_prefix="raw")
def NAME() -> pl.DataFrame:
    return pl.DataFrame({"n": [1]})
"""


def test_native_assets_are_stored_in_their_own_lake_and_others_where_they_were(
    project: Project, tmp_path: Path
) -> None:
    root = project(
        {
            "kitchen/defs.yaml": DEFS_YAML.format(path="../../../../../kitchen"),
            "bakery/defs.yaml": DEFS_YAML.format(path="../../../../../bakery") + "  key_prefix: [bakery]\n",
            "own.py": "import dagster as dg\n\n\n@dg.asset\ndef own() -> int:\n    return 1\n",
        }
    )
    (tmp_path / "kitchen/pipelines/feeds.py").write_text(NATIVE.replace("NAME", "spices"))
    (tmp_path / "bakery/pipelines/feeds.py").write_text(NATIVE.replace("NAME", "flour"))
    with dg.DagsterInstance.ephemeral() as instance:
        result = load(root).resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey(["raw", "spices"]), dg.AssetKey(["raw", "flour"]), dg.AssetKey("own")]
        )  # fmt: skip
    assert result.success and result.output_for_node("own") == 1
    from ratatouille.handle import Workspace as Handle

    kitchen, bakery = Handle(tmp_path / "kitchen"), Handle(tmp_path / "bakery")
    assert kitchen.query("select n from raw.spices").rows() == [(1,)]
    assert bakery.query("select n from raw.flour").rows() == [(1,)]
    for handle, other in ((kitchen, "raw.flour"), (bakery, "raw.spices")):
        with pytest.raises(RatError, match="does not exist"):
            handle.query(f"select * from {other}")
    assert not (tmp_path / "kitchen/.rat/artifacts").exists()  # the project's own asset is not ours to store
