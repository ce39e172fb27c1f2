"""The rules of the architecture hold here, and each rule catches the violation it is there for."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_architecture", ROOT / "scripts" / "check_architecture.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = _script()


def test_this_repository_breaks_no_rule() -> None:
    assert check.violations(ROOT) == []


def plant(root: Path, files: dict[str, str]) -> list[str]:
    """A small tree in which every import is allowed, with `files` laid over it."""
    small = {
        "src/ratatouille/__init__.py": "from ratatouille.engine.run import run\n",
        "src/ratatouille/errors.py": "",
        "src/ratatouille/project/__init__.py": "from ratatouille import errors\n",
        "src/ratatouille/lake/__init__.py": "import sys\n",
        "src/ratatouille/lake/connect.py": "import duckdb\nfrom .. import errors\n",
        "src/ratatouille/engine/__init__.py": "",
        "src/ratatouille/engine/run.py": "from ..project import x\nfrom ratatouille.lake import y\n\nrun = 1\n",
        "src/ratatouille/upkeep/__init__.py": "from ratatouille.engine import run\n",
        "src/ratatouille/testing/__init__.py": "",
        "src/ratatouille/observe/__init__.py": "",
        "src/ratatouille/dagster/__init__.py": "import dagster\n",
        "src/ratatouille/definitions.py": "from ratatouille.dagster.definitions import defs\n",
        "src/ratatouille/cli/__init__.py": "from ratatouille import run\n\nprint(run)\n",
        "src/ratatouille/cli/template/assets.py": "import duckdb\n\nprint(1)\n",
        "pipelines/sales/checks.py": "from ratatouille import query\nfrom ratatouille.dagster import guard\n",
        "tests/engine/test_run.py": "",
    }
    for name, text in (small | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    # What `import ratatouille` loads has tests of its own: the small tree cannot be imported for real.
    return [line for line in check.violations(root) if "cannot be imported" not in line]


def test_the_small_tree_itself_is_clean(tmp_path: Path) -> None:
    assert plant(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("path", "text", "sentence"),
    [
        ("src/ratatouille/errors.py", "from .project import x\n", "errors may not import project"),
        ("src/ratatouille/project/a.py", "from ratatouille.lake import x\n", "project may not import lake"),
        ("src/ratatouille/project/a.py", "from ratatouille import lake\n", "project may not import lake"),
        ("src/ratatouille/project/a.py", "from ..engine import x\n", "project may not import engine"),
        ("src/ratatouille/lake/a.py", "import ratatouille.project\n", "lake may not import project"),
        ("src/ratatouille/lake/a.py", "from ratatouille import query\n", "lake may not import face"),
        ("src/ratatouille/engine/a.py", "from ratatouille.cli import x\n", "engine may not import cli"),
        ("src/ratatouille/engine/a.py", "from ratatouille.upkeep import x\n", "engine may not import upkeep"),
        ("src/ratatouille/upkeep/a.py", "from ratatouille.testing import x\n", "upkeep may not import testing"),
        ("src/ratatouille/engine/a.py", "def late():\n    from ..observe import x\n", "engine may not import observe"),
        ("src/ratatouille/observe/a.py", "from ratatouille.dagster import x\n", "observe may not import dagster"),
        ("src/ratatouille/tools.py", "from .cli import x\n", "face may not import cli"),
        ("src/ratatouille/definitions.py", "from .engine import x\n", "definitions may not import engine"),
        ("src/ratatouille/engine/a.py", "import duckdb\n", "only lake imports duckdb"),
        ("src/ratatouille/cli/a.py", "from duckdb import connect\n", "only lake imports duckdb"),
        ("src/ratatouille/engine/a.py", "import dagster.core\n", "only dagster imports dagster"),
        ("src/ratatouille/engine/a.py", "from pipelines.sales import x\n", "src never imports pipelines"),
        ("src/ratatouille/engine/a.py", "print(1)\n", "only cli prints"),
        ("src/ratatouille/lake/a.py", "import sys\n\nsys.stdout.write('x')\n", "only cli prints"),
        ("src/ratatouille/engine/utils.py", "", "'utils' says nothing"),
        ("src/ratatouille/lake/helpers/a.py", "", "'helpers' says nothing"),
        ("src/ratatouille/engine/a.py", "x = 1\n" * 501, "501 lines, 500 at most"),
        ("tests/engine/__init__.py", "", "no __init__.py below tests"),
        (
            "src/ratatouille/lake/a.py",
            "def f(x):\n    return f\"select * from t where a = '{x}'\"\n",
            "a value between quotes",
        ),
        ("src/ratatouille/engine/a.py", "def f(x):\n    return f'drop table \"{x}\"'\n", "a value between quotes"),
        (
            "src/ratatouille/engine/a.py",
            "def f(x):\n    return f\"delete from t where a = 'b-{x}'\"\n",
            "a value between",
        ),
        ("src/ratatouille/lake/a.py", "import pickle\n\nx = pickle.loads(b'')\n", "pickle.loads(...) runs"),
        ("src/ratatouille/lake/a.py", "import yaml\n\nx = yaml.load('')\n", "yaml.load(...) runs"),
        ("src/ratatouille/cli/a.py", "import subprocess\n\nsubprocess.run('x', shell=True)\n", "runs what it is given"),
        ("pipelines/f1/a.py", "x = eval('1')\n", "eval(...) runs"),
        ("pipelines/f1/a.py", "from pipelines.sales import x\n", "pipelines never import each other"),
        ("pipelines/f1/a.py", "from ratatouille.lake import x\n", "a pipeline uses the public names"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, path: str, text: str, sentence: str) -> None:
    found = plant(tmp_path, {path: text})
    assert len(found) == 1, found
    assert sentence in found[0]
    assert found[0].startswith(path.removesuffix("__init__.py"))


def test_two_modules_that_import_each_other_are_caught(tmp_path: Path) -> None:
    found = plant(
        tmp_path,
        {
            "src/ratatouille/engine/a.py": "from ratatouille.engine import b\n",
            "src/ratatouille/engine/b.py": "def late():\n    from ratatouille.engine.a import x\n",
        },
    )
    assert len(found) == 1 and "engine.a -> engine.b" in found[0], found


def test_constants_and_quoted_values_stand_in_sql(tmp_path: Path) -> None:
    allowed = "LAKE = 'lake'\n\n\ndef f(x):\n    return f\"select 1 from t where a = '{LAKE}' and b = {text(x)}\"\n"
    assert (
        plant(tmp_path, {"src/ratatouille/lake/a.py": allowed, "src/ratatouille/engine/a.py": "x = f\"it's '{1}'\"\n"})
        == []
    )


def test_a_generated_file_may_be_long(tmp_path: Path) -> None:
    assert plant(tmp_path, {"src/ratatouille/project/a.py": "# generated\n" + "x = 1\n" * 600}) == []


def test_a_heavy_import_at_the_door_is_caught(tmp_path: Path) -> None:
    package = tmp_path / "src" / "ratatouille"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import sqlglot\n", encoding="utf-8")
    assert check.loaded_early(tmp_path) == ["src/ratatouille/__init__.py:1: `import ratatouille` loads sqlglot"]


def test_a_package_that_cannot_be_imported_is_said_so(tmp_path: Path) -> None:
    package = tmp_path / "src" / "ratatouille"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    assert "cannot be imported: ModuleNotFoundError" in check.loaded_early(tmp_path)[0]


def test_every_error_says_where_and_what_next() -> None:
    """Four lines need four parts; what and state have no empty default."""
    kinds = {"RequestError", "LakeError", "StepFailed", "GateFailed", "TransientError", "Superseded", "UnknownOutcome"}
    poor = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                given = {keyword.arg for keyword in node.keywords}
                if not {"where", "next"} <= given:
                    poor.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert poor == []
