"""A small workspace as `rat init` makes it, and `rat` in the test's own process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ratatouille.cli.entry import run_command

SOURCE = Path(__file__).resolve().parents[2] / "src"


@dataclass
class Said:
    """What a command said. `out` and `err` are its two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Kitchen:
    """A workspace that a test changes, and `rat` in it."""

    root: Path
    capture: pytest.CaptureFixture[str]

    def rat(self, *words: str) -> Said:
        self.capture.readouterr()
        code = run_command(words)
        said = self.capture.readouterr()
        return Said(code, said.out, said.err)

    def rat_process(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(SOURCE), **options.pop("env", {})}
        return subprocess.run(
            [sys.executable, "-m", "ratatouille.cli", *words],
            cwd=options.pop("cwd", self.root),
            env=env,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
            **options,
        )

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def change(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        self.write(name, text.replace(old, new))

    def version(self, asset: str) -> int:
        return int(self.rat("history", asset, "-n", "1", "--json").json[0]["version"])


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("RATATOUILLE_WORKSPACE", "RATATOUILLE_DEBUG", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run_command(["init", "kitchen"]) == 0
        assert run_command(["-w", "kitchen", "run"]) == 0
    finally:
        os.chdir(before)
    return folder / "kitchen"


@pytest.fixture
def kitchen(
    _built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Kitchen]:
    """Three assets, built, with one row in the quarantine of silver.orders. The current folder is its root."""
    root = tmp_path / "kitchen"
    shutil.copytree(_built, root)
    monkeypatch.chdir(root)
    yield Kitchen(root, capsys)


@pytest.fixture
def new_kitchen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Kitchen]:
    """`new_kitchen({"pipelines/gold/x.sql": "select 1 as one"})`: a workspace in which nothing has run."""

    def make(files: dict[str, str], name: str = "small") -> Kitchen:
        kitchen = Kitchen(tmp_path / name, capsys)
        kitchen.write("workspace.yaml", f"name: {name}\n")
        for path, text in files.items():
            kitchen.write(path, text)
        monkeypatch.chdir(kitchen.root)
        return kitchen

    return make
