"""A workspace in a temporary folder: written as files, run, and asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ratatouille.engine import Plan, Request, RunResult, StepResult, open_workbench, plan
from ratatouille.handle import run_request
from ratatouille.lake import Entry, ledger


@dataclass
class Shop:
    """A workspace whose files a test writes and whose tables it reads."""

    root: Path

    def write(self, files: dict[str, str | bytes]) -> Shop:
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self

    def remove(self, name: str) -> None:
        os.unlink(self.root / name)

    def run(self, *selectors: str, **options: Any) -> RunResult:
        return run_request(self.root, Request(selectors, **options))

    def step(self, asset: str, *selectors: str, **options: Any) -> StepResult:
        return self.run(*(selectors or (asset,)), **options).step(asset)

    def plan(self, *selectors: str, **options: Any) -> Plan:
        with open_workbench(self.root, write=True) as bench:
            return plan(bench, Request(selectors, **options))

    def rows(self, sql: str, at: int | None = None) -> list[tuple[Any, ...]]:
        with open_workbench(self.root, at=at) as bench, bench.lake.session() as session:
            session.execute("use lake")
            return session.rows(sql)

    def value(self, sql: str, at: int | None = None) -> Any:
        return self.rows(sql, at)[0][0]

    def entries(self, asset: str) -> list[Entry]:
        with open_workbench(self.root) as bench, bench.lake.session() as session:
            return ledger.entries(session, asset)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    yield Shop(tmp_path / "shop").write({"workspace.yaml": "name: shop\nresources: {memory: 1GB, threads: 2}\n"})


@pytest.fixture
def new_shop(tmp_path: Path) -> Callable[[str], Shop]:
    return lambda name: Shop(tmp_path / name).write({"workspace.yaml": f"name: {name}\n"})
