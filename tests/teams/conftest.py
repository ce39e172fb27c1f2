"""One PostgreSQL for all tests of a team's lake; every lake has a schema of its own in it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ratatouille.cli.entry import run_command
from ratatouille.engine import Request, RunResult, open_workbench
from ratatouille.handle import run_request
from ratatouille.lake import Entry, ledger

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
sys.path.insert(0, str(Path(__file__).parent.parent / "crash"))
import kitchen
from postgres_server import Postgres, a_postgres, with_debian_binaries
from s3_server import BUCKET, S3, an_s3

PASSWORD = "LAKE_PASSWORD"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(need_tool: Callable[[str, str], str]) -> Iterator[Postgres]:
    before = os.environ["PATH"]
    os.environ["PATH"] = with_debian_binaries(before)
    try:
        with a_postgres(need_tool) as server:
            yield server
    finally:
        os.environ["PATH"] = before


@dataclass
class Team:
    """A lake for several workspaces, which stand for the machines of a team."""

    folder: Path
    catalog: str
    data: str
    env: dict[str, str] = field(default_factory=dict)

    def machine(self, name: str, more: str = "") -> Machine:
        root = kitchen.build(self.folder / name)
        lake = f"lake: {{catalog: '{self.catalog}', data: '{self.data}'}}\n"
        (root / "workspace.yaml").write_text(f"name: kitchen\nresources: {{memory: 1GB, threads: 1}}\n{lake}{more}")
        return Machine(root)


@dataclass
class Machine:
    root: Path

    def rat(self, *words: str) -> int:
        """A command, as a person on this machine types it."""
        return run_command([*words, "-w", str(self.root)])

    def land(self, name: str, rows: Any) -> None:
        kitchen.land(self.root, name, rows)

    def run(self, *selectors: str, **options: Any) -> RunResult:
        return run_request(self.root, Request(selectors, **options))

    def rows(self, sql: str, at: int | None = None) -> list[tuple[Any, ...]]:
        with open_workbench(self.root, at=at) as bench, bench.lake.session() as session:
            session.execute("use lake")
            return session.rows(sql)

    def entries(self, asset: str) -> list[Entry]:
        with open_workbench(self.root) as bench, bench.lake.session() as session:
            return ledger.entries(session, asset)


@pytest.fixture(scope="session")
def s3(need_tool: Callable[[str, str], str]) -> Iterator[S3]:
    with an_s3(need_tool) as server:
        yield server


def address(postgres: Postgres, schema: str) -> str:
    server = f"{postgres.user}:${{{PASSWORD}}}@{postgres.host}:{postgres.port}/{postgres.database}"
    return f"postgres://{server}?schema={schema}"


@pytest.fixture
def team(postgres: Postgres, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """A catalog on PostgreSQL, the data in a bucket."""
    for name, value in {PASSWORD: postgres.password, **s3.environment()}.items():
        monkeypatch.setenv(name, value)
    schema = f"lake_{next(_numbers)}"
    return Team(tmp_path, address(postgres, schema), f"s3://{BUCKET}/{schema}")


@pytest.fixture
def local_team(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """A catalog on PostgreSQL, the data in a folder."""
    monkeypatch.setenv(PASSWORD, postgres.password)
    return Team(tmp_path, address(postgres, f"lake_{next(_numbers)}"), str(tmp_path / "data"))
