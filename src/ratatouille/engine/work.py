"""One attempt at one asset: what every stage reads and adds to, and what the candidate looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ratatouille.engine import landing
from ratatouille.engine.evolve import Change
from ratatouille.engine.gates import Candidate, Verdict
from ratatouille.engine.plan import Request, State
from ratatouille.engine.records import Answer, PlannedStep
from ratatouille.engine.workbench import Workbench
from ratatouille.errors import RequestError, StepFailed, near_miss
from ratatouille.lake import Entry, Session, Staged, attempt_folder
from ratatouille.lake.quoting import ident, idents, literal, table
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
    n_kept_out: int = 0
    warnings: list[str] = field(default_factory=list)
    preview: Answer | None = None
    watermarks: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # that a test gives: column -> text, type

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
        return self.planned.mode == "incremental"

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


def others(work: Work) -> str:
    """The rows of the published table that stay, as a SELECT; '' for a full build."""
    if not work.incremental:
        return ""
    goes = []
    if work.replaced_files:
        goes.append(f'"_file" in ({", ".join(literal(file) for file in work.replaced_files)})')
    if work.asset.materialize == "merge" and work.built.files:
        goes.append(
            f"({idents(work.asset.unique_key)}) in (select {idents(work.asset.unique_key)} from ({work.built.relation}))"
        )
    stays = " and ".join(f"not coalesce({gone}, false)" for gone in goes) or "true"
    return f"select * from {table(work.asset.name)} where {stays}"


def candidate(work: Work) -> Candidate:
    """What gates look at; docs/decisions/0003 says why not the table inside the commit."""
    if work.staged is None:
        return Candidate(delta=work.select, whole=work.select)
    stay = others(work)
    whole = f"{stay} union all by name {work.staged.relation}" if stay else work.staged.relation
    return Candidate(work.staged.relation, whole, stay, work.staged)


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
