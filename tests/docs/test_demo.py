"""`make demo` tells its story on an empty folder, and a sensible one when it is run again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _demo(folder: Path) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1", "COLUMNS": "120"}
    env.pop("RATATOUILLE_WORKSPACE", None)
    ran = subprocess.run(
        [sys.executable, "scripts/demo.py"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def test_the_demo_twice(tmp_path: Path) -> None:
    shutil.copy(ROOT / "workspace.yaml", tmp_path)
    shutil.copytree(ROOT / "pipelines" / "sales", tmp_path / "pipelines" / "sales")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "demo.py", tmp_path / "scripts")

    first = _demo(tmp_path)
    assert first.count("$ rat run pipeline:sales") == 2
    assert first.count("gold.sales_summary   built") == 2
    assert "quantity_positive" in first
    assert "2026-03-03   Station" in first
    assert "Try next" in first

    second = _demo(tmp_path)
    assert "has run here before" in second
    assert second.count("Nothing to do: 4 assets up to date.") == 2
    assert first.split("$ rat query")[1] == second.split("$ rat query")[1]


def test_a_command_that_fails_stops_the_demo(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "demo.py", tmp_path / "scripts")
    ran = subprocess.run(
        [sys.executable, "scripts/demo.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode != 0
    assert "The demo stops here" in ran.stdout
