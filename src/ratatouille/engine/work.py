"""One attempt at one asset: what every stage reads and adds to, and what the candidate looks like."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ratatouille.engine import landing
from ratatouille.engine.evolve import Change
from ratatouille.engine.gates import Verdict
from ratatouille.engine.memory import MemoryGauge
from ratatouille.engine.partitions import Partition
from ratatouille.engine.plan import Request, State
from ratatouille.engine.records import Answer, PlannedStep
from ratatouille.engine.workbench import Workbench
from ratatouille.errors import RequestError, StepFailed, near_miss
from ratatouille.lake import Checkpoint, Entry, Layout, Session, Staged, attempt_folder
from ratatouille.lake.quoting import BASE, ident, table
from ratatouille.project.records import Asset


class UnreadableFiles(Exception):
    """Landing files that must be set aside before the step can go on: file -> reason."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = dict(reasons)


@dataclass(slots=True)
class Work:
    """One attempt at one asset."""

    bench: Workbench
    asset: Asset
    planned: PlannedStep
    request: Request
    run_id: str
    started_at: datetime
    session: Session
    state: State
    token: int  # of the lease
    attempt: int = 1
    version_token: str = ""
    aside: dict[str, str] = field(default_factory=dict)  # landing files set aside by earlier tries
    landing: landing.Landing = field(default_factory=landing.Landing)
    select: str = ""  # what is built, as one SELECT
    existing: dict[str, str] = field(default_factory=dict)  # columns that stand: name -> type
    change: Change = field(default_factory=Change)
    staged: Staged | None = None
    rejects: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    kept_out: Staged | None = None  # rows for the quarantine
    gone: Staged | None = None  # keys of published rows that the query gives no more, where those go
    n_kept_out: int = 0
    warnings: list[str] = field(default_factory=list)
    preview: Answer | None = None
    partition: Partition | None = None  # the one that this attempt builds, where partitions were asked for
    emptied: tuple[str, ...] = ()  # partitions that have no rows any more, as the code says
    reads_changes: bool = False  # it has asked what changed in an input
    only_adds: bool = False  # whatever its mode says: no published row goes
    rows_seen: int | None = None  # rows that the query gave, where the candidate has others
    watermarks: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # that a test gives: column -> text, type
    gauge: MemoryGauge | None = None
    runs: Collection[str] = ()  # this run and those that it goes on from
    tell: Callable[[str, str], None] = lambda stage, text: None
    note: Callable[[str, Mapping[str, Any]], None] = lambda text, record: None
    checkpoint: Checkpoint | None = None  # of a Python asset
    n_chunks: int = 0  # that this attempt worked through
    stage_s: dict[str, float] = field(default_factory=dict)  # seconds of each stage
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the candidate's columns, as its footers say
    stand_ins: Mapping[str, str] = field(default_factory=dict)  # that a test gives: a database's table -> a relation

    @property
    def head(self) -> Entry | None:
        return self.state.heads.get(self.asset.name)

    @property
    def built(self) -> Staged:
        """The staged rows; there are some from the build stage on, but for a view."""
        if self.staged is None:
            raise ValueError(f"{self.asset.name} has not been built")
        return self.staged

    @property
    def incremental(self) -> bool:
        """Whether some of the rows that stand may stay."""
        return self.planned.mode != "full"

    @property
    def layout(self) -> Layout:
        return Layout(self.asset.partition_by, self.asset.sort_by)

    @property
    def root(self) -> Path:
        return self.bench.root

    @property
    def replaced_files(self) -> tuple[str, ...]:
        """Files whose earlier rows this step replaces."""
        remembered = {file.file for file in self.state.landing.get(self.asset.name, ())}
        return tuple(file for file in self.landing.files if file in remembered)

    def folder(self, what: str) -> Path:
        return attempt_folder(
            self.bench.lake.storage, self.asset.name, self.run_id, f"{self.token}.{self.attempt}{what}"
        )


def table_read(state: State, name: str) -> str:
    """The table in which an input stands: in an environment perhaps that of the default lake."""
    return table(name, BASE) if name not in state.standing and name in state.borrowed else table(name)


def with_borrowed(asset: Asset, state: State) -> Asset:
    """The asset with gates that find the tables that they look into."""
    if not state.borrowed or not any("to" in check.arguments for check in asset.checks):
        return asset
    checks = (
        replace(check, arguments={**check.arguments, "in": table_read(state, check.arguments["to"])})
        if "to" in check.arguments
        else check
        for check in asset.checks
    )
    return replace(asset, checks=tuple(checks))


def watermark(work: Work, column: str) -> tuple[str, str]:
    """The largest value of `column` in the current version, as text, and its type."""
    if column in work.watermarks:
        return work.watermarks[column]
    known = {name.lower() for name in work.existing}
    if column.lower() not in known:
        raise RequestError(
            f"{work.asset.name}: watermark('{column}'): its table has no such column.{near_miss(column, work.existing)}",
            where=work.asset.path,
            next=f"keep {column} in the select, then: rat run {work.asset.name} -f",
        )
    found = work.session.row(
        f"select max({ident(column)})::varchar, any_value(typeof({ident(column)})) from {table(work.asset.name)}"
    )
    if found is None or found[0] is None:
        raise StepFailed(
            f"{work.asset.name}: watermark('{column}'): all its values are null",
            where=work.asset.path,
            next=f"choose another column, or rebuild: rat run {work.asset.name} -f",
        )
    return found[0], found[1]
