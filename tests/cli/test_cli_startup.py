"""Starting fast is a feature: a run that has nothing to do loads no parser, no frames, no tables for the screen."""

from __future__ import annotations

from typing import Any

import pytest

HEAVY = (
    "duckdb",
    "sqlglot",
    "polars",
    "pyarrow",
    "pydantic",
    "jinja2",
    "yaml",
    "rich",
    "typer",
    "stamina",
    "pandas",
    "numpy",
    "dagster",
    "starlette",
    "uvicorn",
)
_ASK = """
import sys
from ratatouille.cli.entry import run_command
code = run_command(sys.argv[2:])
print("loaded:", *sorted(set(sys.argv[1].split(",")) & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def _loaded_by(kitchen: Any, *words: str) -> set[str]:
    import os
    import subprocess
    import sys
    from pathlib import Path

    source = Path(__file__).resolve().parents[2] / "src"
    ran = subprocess.run(
        [sys.executable, "-c", _ASK, ",".join(HEAVY), *words],
        cwd=kitchen.root, env={**os.environ, "PYTHONPATH": str(source)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return set(ran.stderr.splitlines()[-1].removeprefix("loaded:").split())


@pytest.mark.parametrize("words", [("run",), ("run", "gold.revenue"), ("run", "--json"), ("-w", ".", "run")])
def test_a_run_with_nothing_to_do_loads_nothing_heavy(kitchen: Any, words: tuple[str, ...]) -> None:
    assert kitchen.rat("run").code == 0  # the project cache is warm
    assert _loaded_by(kitchen, *words) == set()


def test_a_run_that_builds_loads_neither_a_parser_nor_frames(kitchen: Any) -> None:
    kitchen.rat("run")
    heavy = {"sqlglot", "polars", "pyarrow", "pydantic", "yaml", "typer", "pandas", "numpy"}
    assert not _loaded_by(kitchen, "run", "-f") & heavy


def test_other_commands_load_no_frames(kitchen: Any) -> None:
    kitchen.rat("check")
    for words in (("plan",), ("show",), ("history",), ("runs",), ("check",)):
        assert not _loaded_by(kitchen, *words) & {"polars", "pyarrow", "pandas", "numpy", "sqlglot", "jinja2"}, words
