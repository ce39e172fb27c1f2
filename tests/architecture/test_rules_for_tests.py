"""The rules that tests/conftest.py makes: no quiet skip where everything can be installed, real rows only on request."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
TESTS = """
import pytest

def test_plain():
    pass

def test_needs(need_tool):
    need_tool("no-such-program", "apt-get install no-such-package")

@pytest.mark.real_data
def test_real(real_data):
    assert real_data.is_dir()
"""


def _pytest(folder: Path, **variables: str) -> str:
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "test_it.py").write_text(TESTS, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = real_data: x\n", encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RATATOUILLE_")}
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", str(folder)]
    ran = subprocess.run(
        command, cwd=folder, env=kept | variables, capture_output=True, text=True, timeout=60, check=False
    )
    return ran.stdout


def test_a_missing_tool_is_a_skip_that_says_what_helps(tmp_path: Path) -> None:
    said = _pytest(tmp_path)
    assert "1 passed, 1 skipped, 1 deselected" in said
    assert "no-such-program is not installed. Get it with: apt-get install no-such-package" in said


def test_where_no_skip_is_allowed_it_is_a_failure(tmp_path: Path) -> None:
    said = _pytest(tmp_path, RATATOUILLE_NO_SKIPS="1")
    assert "1 failed, 1 passed, 1 deselected" in said
    assert "Get it with: apt-get install no-such-package" in said


@pytest.mark.parametrize(("there", "counted"), [(True, "2 passed"), (False, "1 error")])
def test_real_rows_are_read_on_request(tmp_path: Path, there: bool, counted: str) -> None:
    folder = tmp_path / "rows"
    if there:
        folder.mkdir()
    assert counted in _pytest(tmp_path, RATATOUILLE_REAL_DATA=str(folder))
