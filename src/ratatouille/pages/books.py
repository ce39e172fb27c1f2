"""The books of a page: what a comparison asks of journal and ledger, answered from what is open and known already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ratatouille.lake import Entry
from ratatouille.lake.journal import glance
from ratatouille.lake.ledger import Brief
from ratatouille.observe.compare import Books
from ratatouille.pages.reading import Reading
from ratatouille.pages.run import one_run

RUNS = 200  # among which the run before is looked for


class OpenBooks(Books):
    """Of a reading. What the ledger says of a version beyond its brief, the journal's short row of the step says too."""

    def __init__(self, seen: Reading) -> None:
        super().__init__(seen.project)
        self.seen = seen
        self._runs: dict[str, tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]] = {}

    def runs(self) -> Sequence[Mapping[str, Any]]:
        return self.seen.journal.runs(RUNS) if self.seen.journal else []

    def run(self, name: str) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        if name not in self._runs:
            run = one_run(self.seen.journal, name)
            self._runs[name] = run, self.seen.journal.steps(run["run_id"]) if self.seen.journal else []
        return self._runs[name]

    def published_in(self, run_id: str, of_files: Sequence[str]) -> Mapping[str, Entry]:
        found = {one.asset: _entry(one, {}) for one in self.seen.published_in(run_id)}
        return found if not of_files else {**found, **super().published_in(run_id, of_files)}

    def versions(self, asset: str) -> Sequence[Entry]:
        known = self.seen.entries(asset)
        if not known:
            return super().versions(asset)  # an artifact, or nothing
        journal = self.seen.journal
        points = glance.points_of(journal.do, asset, [one.version for one in known]) if journal else {}
        return [_entry(one, points.get(one.version, {})) for one in known]


def _entry(brief: Brief, point: Mapping[str, Any]) -> Entry:
    checks = [
        {"name": name, "passed": passed, "severity": severity, "bad": bad, "value": value}
        for name, (passed, severity, bad, value) in (point.get("checks") or {}).items()
    ]
    return Entry(
        asset=brief.asset,
        run_id=brief.run_id,
        version=brief.version,
        action=brief.action,
        materialize=brief.materialize,
        mode=brief.mode,
        code_hash=brief.code_hash,
        inputs=brief.inputs,
        columns=brief.columns,
        checks=tuple(checks),
        rows_in=point.get("rows_in") or 0,
        rows_written=brief.rows_written,
        rows_total=brief.rows_total,
        rows_rejected=point.get("rows_kept_out") or 0,
        seconds=brief.seconds,
        peak_memory_bytes=point.get("peak_memory_bytes") or 0,
        measured=point.get("measured") or {},
        published_at=brief.published_at,
    )
