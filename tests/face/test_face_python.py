"""`from ratatouille import run, query, workspace, tools`, as pipelines use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ratatouille import GateFailed, RequestError, StepFailed, query, run, tools, workspace
from ratatouille.handle import find_workspace

CodeIn = Callable[[Path, str], ModuleType]
SOURCE = Path(__file__).resolve().parents[2] / "src"


def test_run_and_query_find_the_workspace_of_the_file_that_calls(shop: Path, code_in: CodeIn) -> None:
    code = code_in(
        shop / "pipelines",
        "def build(): return run('bronze.sales')\n"
        "def count(): return query('select count(*) as cnt from bronze.sales')['cnt'][0]\n"
        "def files(): return tools.ls('landing/sales/')\n"
        "def root(): return workspace().root",
    )
    result = code.build()
    assert result.get("status", "completed") == "completed"
    assert json.loads(json.dumps(result)) == result
    assert (result["asset"], result["rows_total"]) == ("bronze.sales", 3)
    assert code.count() == 3 and type(code.count()) is int
    assert code.files() == ["landing/sales/b.csv"]
    assert code.root() == shop
    assert code.build()["status"] == "skipped"


def test_without_a_workspace_above_the_file_the_variable_counts_and_then_the_folder(
    shop: Path, code_in: CodeIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = code_in(tmp_path / "elsewhere", "def root(): return workspace().root")
    with pytest.raises(RequestError, match="not in a workspace"):
        code.root()
    monkeypatch.setenv("RATATOUILLE_WORKSPACE", str(shop / "pipelines"))
    assert code.root() == shop
    monkeypatch.setenv("RATATOUILLE_WORKSPACE", str(tmp_path / "nowhere"))
    with pytest.raises(RequestError, match="There is no folder"):
        code.root()
    monkeypatch.delenv("RATATOUILLE_WORKSPACE")
    monkeypatch.chdir(shop / "landing")
    assert code.root() == shop
    assert find_workspace(shop / "workspace.yaml") == shop


def test_run_of_several_assets_says_each(shop: Path) -> None:
    here = workspace(shop)
    first = here.run()
    assert first["status"] == "completed"
    assert {name: step["status"] for name, step in first["steps"].items()} == {
        "bronze.sales": "completed",
        "gold.total": "completed",
    }
    again = here.run()
    assert (again["status"], set(again["steps"])) == ("skipped", {"bronze.sales", "gold.total"})
    assert here.run("gold.total", full=True)["status"] == "completed"
    assert json.loads(json.dumps(first)) == first


def test_a_failed_gate_raises(shop: Path) -> None:
    here = workspace(shop)
    here.run("bronze.sales")
    (shop / "pipelines/gold/total.yaml").write_text("columns: {n: {checks: [{range: {max: 1}}]}}\n")
    with pytest.raises(GateFailed, match=r"gold\.total: the gate n_range failed") as failed:
        here.run("gold.total")
    assert failed.value.next == "rat quarantine gold.total"
    (shop / "pipelines/gold/total.yaml").unlink()
    (shop / "pipelines/gold/total.sql").write_text("select error('no') as n from {{ ref('bronze.sales') }}")
    with pytest.raises(StepFailed, match="no"):
        here.run()


def test_a_wrong_request_raises(shop: Path) -> None:
    here = workspace(shop)
    with pytest.raises(RequestError, match=r"Did you mean 'gold\.total'"):
        here.run("gold.totl")
    with pytest.raises(RequestError, match="no lake"):
        here.query("select 1 as x")
    here.run()
    with pytest.raises(RequestError, match="DROP"):
        here.query("drop table x")


def test_query_gives_native_scalars(shop: Path) -> None:
    here = workspace(shop)
    here.run()
    frame = here.query(
        "select n, ids, amount, 170141183460469231731687303715884105727 as big, [1::hugeint] as l,"
        " {'a': 1.5::decimal(4,1)} as s, interval 1 day as i, '2026-01-05 12:00:00+02'::timestamptz as t,"
        " uuid() as u, 'x'::enum('x', 'y') as e, null as nothing, 1 as one, 2 as one"
        " from gold.total"
    )
    row = frame.row(0, named=True)
    assert (row["n"], row["ids"], row["amount"], row["big"]) == (3, 6, 4.0, 2**127 - 1)
    assert [type(row[name]) for name in ("n", "ids", "amount", "big", "u", "e", "i")] == [
        int,
        int,
        float,
        int,
        str,
        str,
        str,
    ]
    assert row["l"] == [1] and row["s"] == {"a": 1.5} and row["nothing"] is None
    assert row["t"].isoformat() == "2026-01-05T10:00:00+00:00"
    assert (row["one"], row["one_1"]) == (1, 2)


def test_query_at_an_earlier_version(shop: Path) -> None:
    here = workspace(shop)
    version = here.run()["steps"]["bronze.sales"]["version"]
    (shop / "landing/sales/c.csv").write_text("id,amount,email\n4,4.00,d@x\n")
    here.run()
    count = "select count(*) as n from bronze.sales"
    assert (here.query(count)["n"][0], here.query(count, at=version)["n"][0]) == (4, 3)
    with pytest.raises(RequestError, match="neither a version nor a time"):
        here.query(count, at="last week")


def test_query_errors_while_rows_are_read_are_four_lines_too(shop: Path) -> None:
    here = workspace(shop)
    here.run()
    with pytest.raises(RequestError, match="late"):
        here.query("select case when i = 900000 then error('late') else 'x' end as x from range(1000000) t(i)")


def test_plan_and_check(shop: Path) -> None:
    here = workspace(shop)
    assert [step["rule"] for step in here.plan()["steps"]] == ["new", "new"]
    assert here.check() == []
    (shop / "pipelines/gold/total.sql").write_text("select nope from {{ ref('bronze.sales') }}")
    problem = next(p for p in here.check() if "nope" in p["message"])
    assert (problem["path"], problem["line"]) == ("pipelines/gold/total.sql", 1)


def test_a_python_asset_joins_the_run_that_builds_it(shop: Path) -> None:
    (shop / "pipelines/silver").mkdir()
    (shop / "pipelines/silver/seen.py").write_text(
        "from ratatouille import query, run\n"
        "def build(context):\n"
        "    said = run('bronze.sales')\n"
        "    n = query('select count(*) as n from bronze.sales')['n'][0]\n"
        "    return [{'status': said['status'], 'run_id': said['run_id'], 'n': n}]\n"
    )
    (shop / "pipelines/silver/seen.yaml").write_text("depends_on: [bronze.sales]\n")
    here = workspace(shop)
    run_id = here.run("bronze.sales", "silver.seen")["run_id"]
    assert here.query("from silver.seen").row(0) == ("completed", run_id, 3)


def test_tools_look_around(shop: Path, code_in: CodeIn) -> None:
    code = code_in(
        shop,
        "def call(name, *args): return getattr(tools, name)(*args)\n",
    )
    assert code.call("tables") == [] and "not built yet" in code.call("tree")
    with pytest.raises(RequestError, match="never built"):
        code.call("preview", "gold.total")
    workspace(shop).run()
    assert code.call("tables") == ["bronze.sales", "gold.total"]
    assert code.call("layers") == ["bronze", "silver", "gold"]
    assert code.call("schema", "gold.total") == {"ids": "DECIMAL(38,0)", "amount": "DECIMAL(38,2)", "n": "BIGINT"}
    preview = code.call("preview", "bronze.sales", 2)
    assert preview.height == 2 and set(preview["email"]) == {"[hidden]"}
    info = code.call("info", "gold.total")
    assert (info["description"], info["rows"], info["upstream"], info["checks"]) == (
        "All of it.",
        1,
        ["bronze.sales"],
        ["n_positive"],
    )
    assert json.loads(json.dumps(info)) == info
    assert "total  (table, 1 row, version" in code.call("tree")
    with pytest.raises(RequestError, match=r"Did you mean 'gold\.total'"):
        code.call("info", "gold.totl")


def test_tools_ls_stays_inside_the_workspace(shop: Path, code_in: CodeIn, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    (shop / "landing/.hidden").write_text("x")
    (shop / "landing/out").symlink_to(tmp_path)
    (shop / "landing/link.txt").symlink_to(tmp_path / "secret.txt")
    code = code_in(shop, "def ls(*a): return tools.ls(*a)")
    assert code.ls() == ["landing/sales/b.csv"]
    assert code.ls("landing/sales/b.csv") == ["landing/sales/b.csv"]
    assert code.ls("nowhere") == []
    for path in ("..", "/etc", "landing/../..", "landing/out"):
        with pytest.raises(RequestError, match="leads out of the workspace"):
            code.ls(path)


def test_importing_loads_nothing_heavy() -> None:
    heavy = (
        "duckdb",
        "polars",
        "sqlglot",
        "dagster",
        "pandas",
        "pyarrow",
        "pydantic",
        "yaml",
        "jinja2",
        "rich",
        "typer",
    )
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; from ratatouille import run, query, workspace, tools; print(*sorted({heavy!r} & sys.modules.keys()))".replace("('", "{'", 1).replace("')", "'}", 1)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.strip() == ""


def test_the_public_names_are_these() -> None:
    import ratatouille

    assert {"run", "query", "workspace", "tools"} <= set(ratatouille.__all__)
    assert callable(run) and callable(query) and callable(workspace) and tools.__name__ == "ratatouille.tools"
    assert ratatouille.__version__
    with pytest.raises(AttributeError):
        ratatouille.nothing  # noqa: B018


def test_upkeep_and_tests_are_one_call_each(shop: Path, tmp_path: Path) -> None:
    here = workspace(shop)
    here.run()
    (shop / "landing/sales/c.csv").write_text("id,amount,email\n9,1.00,z@x\n", encoding="utf-8")
    here.run()
    found = here.diff("bronze.sales", key=["id"])
    assert (found["added"], found["examples"][0]["after"]["email"], found["same"]) == (1, "[hidden]", False)
    assert here.verify("bronze.sales", every_version=True)["whole"]
    cleaned = here.clean(dry_run=True)
    assert cleaned["dry_run"] and json.loads(json.dumps(cleaned)) == cleaned
    (written,) = here.export("gold.total", to=tmp_path / "out", format="csv")
    assert (tmp_path / "out/gold.total.csv").read_text(encoding="utf-8") == "ids,amount,n\n15,5.00,4\n"
    assert written["rows"] == 1
    tests = shop / "pipelines/tests/gold.total.yaml"
    tests.parent.mkdir()
    tests.write_text("tests: {sum: {given: {bronze.sales: [{id: 2}, {id: 3}]}, expect: {rows: [{ids: 5}]}}}")
    assert (here.test()["passed"], here.test("gold.total", like="sum")["failed"]) == (1, 0)
