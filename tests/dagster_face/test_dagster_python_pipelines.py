"""Every block of docs/python-pipelines.md runs: whole programs unchanged, fragments with what FILLED_IN says."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python-pipelines.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
FILES = re.findall(r"`(pipelines/sales/\w+\.py)`\n\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
WORKSPACE = {
    "workspace.yaml": "name: shop\nresources: {memory: 1GB, threads: 2}\n",
    "pipelines/files/bronze/sales.csv": "date,product,quantity,price\n2026-01-01,ratatouille,2,9.5\n2026-01-02,soup,1,4.0\n",
    "pipelines/files/silver/sales.sql": "select *, quantity * price as total from {{ ref('bronze.sales') }}",
    "pipelines/files/silver/my_data.sql": "select * from {{ ref('bronze.sales') }}",
    "pipelines/files/gold/sales_summary.sql": "select date, sum(total) as revenue from {{ ref('silver.sales') }} group by date",
}


@dataclass(frozen=True)
class Filling:
    """What a fragment lacks: lines before and after it, and what stands for its `...`. `added`: characters in all."""

    added: int
    before: str = ""
    after: str = ""
    dots: tuple[str, ...] = ()


_ASSETS = "from dagster import AssetKey, MaterializeResult, MetadataValue, asset\nfrom ratatouille import query, run\n"
_TWO = "@asset\ndef my_bronze(): ...\n@asset(group_name='my_pipeline')\ndef my_silver(): ...\n"
# Block -> what is filled in. Blocks that are not here are whole programs.
FILLED_IN = {
    2: Filling(175, before=f"{_ASSETS}from dagster import AssetExecutionContext\n@asset\ndef my_bronze(): ...\n"),
    3: Filling(27, before="from dagster import asset\n", dots=("", "1")),
    4: Filling(105, before=_ASSETS),
    6: Filling(
        91, before="from dagster import define_asset_job\nmy_pipeline_job = define_asset_job('my_pipeline_job')\n"
    ),
    7: Filling(108, before=f"from dagster import asset\n{_TWO}"),
    12: Filling(36, before="from ratatouille import query, run\n", dots=("1",)),
    13: Filling(34, before="def say(context, result, errors):\n"),
    14: Filling(74, before="from dagster import MaterializeResult, MetadataValue\ndef done(row_count):\n"),
    15: Filling(26, before="from dagster import asset\n", dots=("", "", "", "")),
    16: Filling(26, before="from dagster import asset\n", dots=("", "")),
}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    for name, text in WORKSPACE.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)  # the workspace is found from the file that calls, not from here
    before = set(sys.modules), list(sys.path)
    yield tmp_path / "shop"
    sys.path[:] = before[1]
    for name in set(sys.modules) - before[0]:
        if name.split(".")[0] in ("pipelines", "block", "my_pipeline"):
            del sys.modules[name]


def load(shop: Path, code: str, name: str = "block") -> ModuleType:
    path = shop / "pipelines" / f"{name}.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def filled(number: int) -> str:
    filling, code = FILLED_IN[number], BLOCKS[number]
    assert code.count("...") == len(filling.dots), "one filling for each `...`"
    for text in filling.dots:
        code = code.replace("...", text, 1)
    return filling.before + code + filling.after


def rat_run(shop: Path) -> None:
    from ratatouille.handle import Workspace

    Workspace(shop).run()


def test_the_page_has_the_blocks_that_are_run_here():
    assert len(BLOCKS) == 18 and len(FILES) == 4
    for number, filling in FILLED_IN.items():
        added = len(filling.before) + len(filling.after) + sum(len(text) for text in filling.dots)
        assert filling.added == added, f"block {number} is filled in with {added} characters"


def test_an_asset_that_runs_a_file(shop):
    rat_run(shop)
    module = load(shop, BLOCKS[0])
    result = dg.materialize([module.my_silver_data])
    assert result.success and result.output_for_node("my_silver_data")["status"] == "skipped"


def test_the_basic_asset(shop):
    module = load(shop, BLOCKS[1])
    from ratatouille.handle import Workspace

    Workspace(shop).run("bronze.sales")
    result = dg.materialize([module.my_silver])
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["status"].value == "completed"
    assert module.my_silver.group_names_by_key[dg.AssetKey("my_silver")] == "my_pipeline"


def test_dependencies(shop):
    rat_run(shop)
    module = load(shop, filled(2))
    assert module.my_silver.asset_deps[dg.AssetKey("my_silver")] == {dg.AssetKey("my_bronze")}
    assert dg.materialize([module.my_bronze, module.my_silver]).success
    module = load(shop, filled(3))
    assert module.my_silver.asset_deps[dg.AssetKey("my_silver")] == {dg.AssetKey("my_bronze")}


def test_metadata_is_native(shop):
    rat_run(shop)
    result = dg.materialize([load(shop, filled(4)).my_asset])
    metadata = result.get_asset_materialization_events()[0].materialization.metadata
    assert metadata["row_count"].value == 2 and metadata["result"].value["status"] == "skipped"


@pytest.mark.parametrize("nulls", [False, True])
def test_checks(shop, nulls):
    if nulls:
        (shop / "pipelines/files/bronze/sales.csv").write_text("date,product,quantity,price\n2026-01-01,,2,9.5\n")
    rat_run(shop)
    module = load(shop, BLOCKS[5])

    @dg.asset
    def my_silver() -> None: ...

    checks = [module.check_not_empty, module.check_no_nulls]
    result = dg.materialize([my_silver, *checks])
    found = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert found["check_not_empty"].passed
    assert found["check_no_nulls"].passed is not nulls
    assert found["check_no_nulls"].metadata["null_counts"].value == {"date": 0, "product": int(nulls)}
    assert found["check_no_nulls"].severity.value == ("ERROR" if nulls else "WARN")


def test_a_sensor_on_files(shop):
    module = load(shop, filled(6))
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance)
        assert list(module.new_files_sensor(context)) == []
        (shop / "landing/sales").mkdir(parents=True)
        (shop / "landing/sales/a.csv").write_text("x")
        assert [one.run_key for one in module.new_files_sensor(context)] == ["ingest-landing/sales/a.csv"]
        assert list(module.new_files_sensor(context)) == [] and context.cursor == "landing/sales/a.csv"


def test_jobs(shop):
    module = load(shop, filled(7))
    defs = dg.Definitions(
        assets=[module.my_bronze, module.my_silver],
        jobs=[module.my_pipeline_job, module.silver_only_job, module.with_downstream],
    )
    chosen = {
        job.name: {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
        for job in defs.get_repository_def().get_all_jobs()
    }
    assert chosen["my_pipeline_job"] == chosen["silver_only"] == {"my_silver"}
    assert chosen["full_pipeline"] == {"my_bronze"}


def test_good_habits(shop):
    rat_run(shop)
    text = filled(12).replace("SELECT * FROM bronze.sales WHERE 1", "SELECT * FROM bronze.sales WHERE true")
    module = load(shop, text)
    assert module.result["status"] == "skipped" and len(module.df) == 2
    said: list[str] = []

    class Log:
        info = warning = said.append

    module = load(shop, _indented(13))
    module.say(type("Context", (), {"log": Log})(), {"status": "completed"}, 3)
    assert said == ["Pipeline completed: {'status': 'completed'}", "Skipped 3 files with errors"]
    assert load(shop, _indented(14)).done(7).metadata["rows"].value == 7


def _indented(number: int) -> str:
    """A fragment of a function's body below the function that FILLED_IN gives it."""
    return FILLED_IN[number].before + "".join(f"    {line}\n" for line in BLOCKS[number].splitlines())


def test_groups_and_versions(shop):
    module = load(shop, _with_bodies(15))
    assert module.sales_bronze.group_names_by_key == {dg.AssetKey("sales_bronze"): "sales"}
    module = load(shop, _with_bodies(16))
    assert module.my_asset.code_versions_by_key[dg.AssetKey("my_asset")] == "1.2.0"


def _with_bodies(number: int) -> str:
    """`, ...)` is a decorator's further arguments, `: ...` a body that does nothing."""
    code = BLOCKS[number].replace(", ...)", ")")
    return FILLED_IN[number].before + code


def test_the_whole_pipeline_under_its_own_names(shop, monkeypatch):
    for name, code in FILES:
        path = shop / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    (shop / "pipelines/__init__.py").write_text("from .sales import all_asset_checks, all_assets, all_jobs\n")
    monkeypatch.chdir(shop)
    from ratatouille.dagster.code_location import definitions

    repository = definitions().get_repository_def()
    job = repository.get_job("sales_pipeline")
    with dg.instance_for_test() as instance:
        result = job.execute_in_process(instance=instance)
    assert result.success
    done = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events()}
    assert {"sales_bronze", "sales_silver", "sales_gold"} <= done
    (check,) = [e for e in result.get_asset_check_evaluations() if e.check_name == "silver_not_empty"]
    assert check.passed and check.metadata["row_count"].value == 2


def test_materialize_in_python(shop, monkeypatch):
    rat_run(shop)
    (shop / "pipelines/my_pipeline.py").write_text(dict(FILES)["pipelines/sales/assets.py"])
    monkeypatch.syspath_prepend(str(shop / "pipelines"))
    assert load(shop, BLOCKS[17]).result.success
