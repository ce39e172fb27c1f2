"""Verdicts: what gates say of a candidate, one after the other and perhaps each in a process of its own.

    judge -> built | waiting | failed | superseded | current

The last gate to pass publishes the candidate, before it is told that it passed. One that failed keeps it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ratatouille import project as files
from ratatouille.engine.artifacts import publish_artifact
from ratatouille.engine.lease import leased
from ratatouille.engine.native import ARTIFACT, candidate_of, step_result
from ratatouille.engine.native_tables import publish_table
from ratatouille.engine.plan import Outer
from ratatouille.engine.recorded import recorded
from ratatouille.engine.records import CheckResult, StepResult, as_json
from ratatouille.engine.workbench import Workbench, journal_path, open_workbench, storage_of
from ratatouille.errors import GateFailed
from ratatouille.lake import Superseded, artifacts, candidates, ledger, open_journal
from ratatouille.lake.candidates import Candidate


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate said of a candidate. `let_pass`: it passed, or only warns."""

    gate: str
    passed: bool
    severity: str = "error"  # error | warn
    said: str = ""  # one sentence for a person

    @property
    def let_pass(self) -> bool:
        return self.passed or self.severity == "warn"


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a candidate after a verdict. status: built | waiting | failed | superseded | current (none)."""

    status: str
    version: int | None = None
    waits_for: tuple[str, ...] = ()
    error: GateFailed | None = None


def judge(root: Path, name: str, runs: Sequence[str], verdict: Verdict, outer: Outer, *, only: bool = False) -> Judged:
    """Note what a gate said of the candidate of the first of `runs` that has one, else (but for `only`) of the newest
    that waits.

    When it was the last to pass, the candidate becomes current. Without a candidate the verdict is of the version
    that is current already, and changes nothing.
    """
    with open_workbench(root, write=True) as bench:
        found = candidates.find(bench.journal, name, runs) if only else candidate_of(bench.journal, name, runs)
        if found is None or verdict.gate not in found.gates:
            return Judged("current")
        judged = candidates.record(bench.journal, found, verdict.gate, _as_check(found, verdict))
        with recorded(bench.journal, {"label": outer.label}, outer.resumes, outer.run_id) as run:
            if judged.state == "rejected":
                return _rejected(bench, judged, outer)
            run.status = "done"
            if judged.state != "passed":
                return Judged(judged.state, judged.version or None, judged.missing)
            return _make_current(bench, judged, outer)


@contextmanager
def candidate_in_view(root: Path, name: str, runs: Sequence[str]) -> Iterator[None]:
    """While the block runs, `query()` sees the candidate that a check of these runs judges."""
    workspace = files.load(root).workspace
    path = journal_path(workspace)
    found = None
    if path.exists():
        with open_journal(path) as journal:
            found = candidate_of(journal, name, runs)
    if found is None or found.state == "published" or found.entry.materialize == ARTIFACT:
        yield
        return
    with candidates.in_view(storage_of(workspace).catalog, {name: found.staged.relation}):
        yield


def _make_current(bench: Workbench, passed: Candidate, outer: Outer) -> Judged:
    checks = tuple(_stored_check(passed.verdicts[gate]) for gate in passed.gates)
    entry = replace(passed.entry, checks=checks, published_at=None)
    with leased(bench.journal, passed.asset, passed.run_id) as token:
        try:
            if entry.materialize == ARTIFACT:
                published = publish_artifact(bench, entry, passed.staged)
            else:
                published = publish_table(bench, entry, passed.staged, token)
        except Superseded:
            candidates.mark(bench.journal, passed, "superseded")
            return Judged("superseded")
        candidates.mark(bench.journal, passed, "published", published.version)
    step = step_result(published, "built", "its checks passed", published.version, None, outer.attempt)
    bench.journal.record_step(outer.run_id, passed.asset, outer.attempt, "built", as_json(step))
    return Judged("built", published.version)


def _rejected(bench: Workbench, rejected: Candidate, outer: Outer) -> Judged:
    version, still_seen = _what_stands(bench, rejected)
    gate = rejected.failed[0]
    error = GateFailed(
        f"{rejected.asset}: the check {gate} failed: {rejected.verdicts[gate]['said']}",
        where=f"{rejected.asset}, candidate in {rejected.staged.folder}",
        state=still_seen,
        next="mend the asset or the check, then materialize it again",
    )
    checks = tuple(CheckResult(**_stored_check(verdict)) for verdict in rejected.verdicts.values())
    step = StepResult(
        asset=rejected.asset, status="failed", reason=error.what, version=version,
        rows_in=rejected.staged.rows, attempts=outer.attempt, checks=checks, error=error.as_record(),
    )  # fmt: skip
    bench.journal.record_step(outer.run_id, rejected.asset, outer.attempt, "failed", as_json(step))
    return Judged("failed", version, error=error)


def _what_stands(bench: Workbench, rejected: Candidate) -> tuple[int | None, str]:
    """The version that readers see, and that as a sentence."""
    if rejected.entry.materialize == ARTIFACT:
        newest = artifacts.current(bench.lake.storage, rejected.asset)
        head = newest[1] if newest else None
    else:
        with bench.lake.pinned("reading the ledger") as session:
            head = ledger.heads(session, [rejected.asset]).get(rejected.asset)
    if head is None:
        return None, "Readers see nothing: no version of it was ever published."
    since = f" of {head.published_at:%Y-%m-%d %H:%M} (UTC)" if head.published_at else ""
    return head.version, f"Readers still see version {head.version}{since}."


def _as_check(found: Candidate, verdict: Verdict) -> dict[str, Any]:
    result = CheckResult(verdict.gate, "native", verdict.severity, verdict.passed, 0, found.staged.rows)
    return as_json(result) | {"let_pass": verdict.let_pass, "said": verdict.said}


def _stored_check(verdict: Mapping[str, Any]) -> dict[str, Any]:
    return {name: verdict[name] for name in CheckResult.__slots__ if name in verdict}
