"""A lake for several workspaces, which stand for the machines of a team."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kitchen

from ratatouille.cli.entry import run_command
from ratatouille.engine import Request, RunResult, open_workbench
from ratatouille.handle import run_request
from ratatouille.lake import Entry, ledger


@dataclass
class Team:
    """A lake for several workspaces, which stand for the machines of a team."""

    folder: Path
    catalog: str
    data: str

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
