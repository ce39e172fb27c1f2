"""What the runner asks of a system under test.

stage   one measured command: `full`, `noop`, `delta`, `noop_cold` (an empty project cache), `ingest`
folder  a fresh project of that system for one run; landing files lie in `landing/events/`
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from measure import Command
from workload import Job, Tables

HERE = Path(__file__).resolve().parent.parent
WORKER = HERE / "worker.py"


class System(Protocol):
    name: str
    stages: frozenset[str]  # stages of the pipeline it has: `full`, `noop`, `delta`
    trivial_stages: frozenset[str]  # `full`, `noop`, `noop_cold`
    ingests: bool

    def prepare(self) -> str:
        """Make the system's own environment if it is missing; return its version."""

    def start(self, folder: Path, job: Job) -> None:
        """Write the project of the pipeline scenario. Not measured."""

    def start_trivial(self, folder: Path, count: int, job: Job) -> None:
        """Write a project of `count` tables: one of a single row, the others reading it. Not measured."""

    def start_ingest(self, folder: Path, job: Job) -> None:
        """Write a project that loads `landing/events/*.csv` with explicit columns. Not measured."""

    def command(self, folder: Path, stage: str) -> Command: ...

    def tables(self, folder: Path) -> Tables: ...


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The bin folder of an environment of its own for a peer, made by uv once per set of requirements."""
    home = HERE / ".envs" / name
    stamp = home / "requirements.txt"
    wanted = "\n".join(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        uv = _uv()
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(home)], check=True)
        install = ["pip", "install", "-q", "--compile-bytecode", "-p", str(home / "bin" / "python")]
        subprocess.run([*uv, *install, *requirements], check=True)
        stamp.write_text(wanted)
    return home / "bin"


def _uv() -> list[str]:
    """uv from PATH, from `make setup`, or as a module of this interpreter."""
    found = shutil.which("uv") or shutil.which("uv", path=str(HERE.parent / ".tools" / "bin"))
    return [found] if found else [sys.executable, "-m", "uv"]


def plain_env(**extra: str) -> dict[str, str]:
    """The caller's environment without what could change a system's behaviour."""
    dropped = ("PYTHON", "DBT_", "SQLMESH", "RATATOUILLE", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"NO_COLOR": "1"} | extra


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.strip() + "\n")
