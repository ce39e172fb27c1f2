"""A workspace in a temporary folder, Dagster on a disk of its own, and the definitions that it would load."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ratatouille.cli.entry import run_command
from ratatouille.dagster.code_location import definitions

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Kitchen:
    """A workspace whose files a test writes."""

    root: Path
    capture: pytest.CaptureFixture[str]

    def write(self, files: dict[str, str | bytes]) -> Kitchen:
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self

    def rat(self, *words: str) -> tuple[int, str, str]:
        """`rat` in this workspace: exit code, output, errors."""
        self.capture.readouterr()
        code = run_command(("-w", str(self.root), *words))
        said = self.capture.readouterr()
        return code, said.out, said.err

    def defs(self) -> dg.Definitions:
        return definitions(self.root)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        from ratatouille.handle import Workspace

        return Workspace(self.root).query(sql).rows()


@pytest.fixture(autouse=True)
def own_pipelines() -> Iterator[None]:
    """Workspaces of several tests have a package called `pipelines`, and so has this repository: each finds its own."""
    aside = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "pipelines"}
    path = list(sys.path)
    for name in aside:
        del sys.modules[name]
    sys.path[:] = [folder for folder in path if folder not in ("", str(ROOT))]
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "pipelines"]:
        del sys.modules[name]
    sys.modules.update(aside)
    sys.path[:] = path


@pytest.fixture
def kitchen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Kitchen]:
    root = tmp_path / "kitchen"
    before = list(sys.path), set(sys.modules)
    yield Kitchen(root, capsys).write({"workspace.yaml": "name: kitchen\nresources: {memory: 1GB, threads: 2}\n"})
    # Workspaces of several tests have a package called `pipelines`: each must find its own.
    sys.path[:] = before[0]
    for name in set(sys.modules) - before[1]:
        if name.split(".")[0] == "pipelines" or name.startswith("_workspace_"):
            del sys.modules[name]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster-home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster-home")) as made:
        yield made
