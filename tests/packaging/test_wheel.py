"""The wheel works where nothing else is: core dependencies only, outside the repository, no network, no environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _uv() -> str:
    beside = ROOT / ".tools" / "bin" / "uv"
    found = (
        str(beside) if beside.exists() else shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)
    )
    if not found:
        pytest.skip("uv is not installed. Get it with: make setup")
    return found


def _run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    ran = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source archive, so that the archive is proved too."""
    out = tmp_path_factory.mktemp("dist")
    _run(_uv(), "build", "--quiet", "--out-dir", out, ROOT, cwd=ROOT)
    assert len(list(out.glob("ratatouille_lakehouse-*.tar.gz"))) == 1
    (built,) = out.glob("ratatouille_lakehouse-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel and the locked core dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    locked = folder / "locked.txt"
    _run(
        _uv(), "export", "--quiet", "--locked", "--no-dev", "--no-emit-project", "--no-hashes", "-o", locked, cwd=ROOT
    )  # fmt: skip
    environment = folder / "env"
    _run(_uv(), "venv", "--quiet", "--python", sys.executable, environment, cwd=folder)
    _run(
        _uv(), "pip", "install", "--quiet", "--python", environment / "bin" / "python", wheel, "-c", locked, cwd=folder
    )  # fmt: skip
    return environment / "bin"


def _bare(installed: Path, home: Path) -> dict[str, str]:
    return {"PATH": f"{installed}:{os.defpath}", "HOME": str(home), "NO_COLOR": "1", "COLUMNS": "100"}


def _without_network() -> list[str]:
    """A command prefix that takes the network away, where the machine lets us."""
    if not shutil.which("unshare"):
        return []
    tried = subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False)
    return ["unshare", "-rn"] if tried.returncode == 0 else []


def test_the_wheel_holds_what_init_copies_and_nothing_private(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    template = ROOT / "src" / "ratatouille" / "cli" / "template"
    wanted = {f"ratatouille/cli/template/{p.relative_to(template)}" for p in template.rglob("*") if p.is_file()}
    assert wanted
    assert wanted <= names
    strangers = {n for n in names if not n.startswith(("ratatouille/", "ratatouille_lakehouse-"))}
    assert strangers == set()
    assert [n for n in names if ".rat/" in n or "__pycache__" in n] == []


def test_a_new_workspace_runs_at_once(installed: Path, tmp_path: Path) -> None:
    env = _bare(installed, tmp_path)
    prefix = _without_network()
    _run(*prefix, "rat", "init", "x", cwd=tmp_path, env=env)
    x = tmp_path / "x"
    assert (x / ".gitignore").exists()
    assert not (x / "gitignore").exists()
    _run(*prefix, "rat", "run", cwd=x, env=env)
    asked = _run(
        *prefix, "rat", "query", "select date, order_count, revenue from gold.revenue order by date", "--json",
        cwd=x, env=env,
    )  # fmt: skip
    for value in ("2026-01-05", "108.0", "2026-01-06", "58.5"):
        assert value in asked


def test_the_version_is_one(installed: Path, wheel: Path, tmp_path: Path) -> None:
    shown = _run("rat", "--version", cwd=tmp_path, env=_bare(installed, tmp_path))
    assert wheel.name.split("-")[1] in shown


def test_core_dependencies_stay_few(installed: Path, tmp_path: Path) -> None:
    listed = _run(_uv(), "pip", "list", "--quiet", "--python", installed / "python", cwd=tmp_path)
    names = {line.split()[0].lower() for line in listed.splitlines()[2:]}
    assert "duckdb" in names
    assert not names & {"dagster", "pandas", "numpy", "torch", "scikit-learn", "mlflow"}, names
