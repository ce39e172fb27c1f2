"""Facts of one run: what ran, when, and why; what failed, in four lines; what was not built, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratatouille.errors import RequestError
from ratatouille.lake import Journal
from ratatouille.lake.journal import glance
from ratatouille.observe import findings
from ratatouille.pages.masking import error_of, told
from ratatouille.pages.overview import RunLine, line_of
from ratatouille.pages.reading import Reading
from ratatouille.project.records import Project

STEPS = 200  # so many are on the page
# Stages in the order in which a step goes through them.
STAGES = ("wait", "render", "build", "gate", "seal", "publish")
_WORST_FIRST = ("failed", "died", "interrupted", "blocked", "running")


@dataclass(frozen=True, slots=True)
class StepFact:
    """One attempt at an asset. Times in seconds since the run began."""

    asset: str
    attempt: int
    status: str
    reason: str
    mode: str
    version: int | None
    starts_s: float
    ends_s: float
    seconds: float
    stages: tuple[tuple[str, float], ...]
    rows_in: int | None = None
    rows_written: int | None = None
    rows_kept_out: int = 0
    peak_memory_bytes: int | None = None
    cpu_s: float | None = None
    spill_bytes: int = 0
    failing: tuple[Mapping[str, Any], ...] = ()  # checks: name, severity, bad, rows, threshold
    warnings: tuple[str, ...] = ()
    error: Mapping[str, str] | None = None
    unusual: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Assets that the run did not build, for one reason."""

    status: str  # skipped | held
    reason: str
    count: int
    assets: tuple[str, ...]  # the first of them


@dataclass(frozen=True, slots=True)
class Used:
    """What the run used, by its samples."""

    samples: int
    peak_memory_bytes: float
    memory_share: float
    spill_bytes: float
    disk_left_bytes: float
    memory: tuple[tuple[float, float], ...]  # (seconds since it began, bytes)


@dataclass(frozen=True, slots=True)
class RunFacts:
    line: RunLine
    error: Mapping[str, str] | None
    steps: tuple[StepFact, ...]  # worst first, then as they began
    total: int  # of all steps
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
    log: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # asset -> what its code said
    used: Used | None = None
    before: str = ""  # the run before it that was asked for the same
    host: str = ""
    pid: int = 0
    resumes: tuple[str, ...] = ()

    @property
    def in_order(self) -> list[StepFact]:
        return sorted(self.steps, key=lambda step: step.starts_s)


def run_facts(seen: Reading, run_id: str, *, steps: int = STEPS) -> RunFacts:
    """By the id, or the beginning of it. RequestError when that means none or several."""
    run = one_run(seen.journal, run_id)
    journal = seen.journal
    if journal is None:  # one_run has said so
        raise AssertionError
    now = journal.now()
    attempts = glance.steps_of(journal.do, run["run_id"])
    attempts.sort(key=lambda one: _WORST_FIRST.index(one["status"]) if one["status"] in _WORST_FIRST else 9)
    shown = attempts[:steps]
    said = glance.records(journal.do, [(one["run_id"], one["asset"], one["attempt"]) for one in shown])
    strange: dict[str, list[str]] = {}
    for found in findings.kept(journal, run["run_id"]):
        if found.level in ("warn", "fail"):
            strange.setdefault(found.asset, []).append(f"{found.kind}: {found.said}")
    facts = [
        _step(
            seen.project,
            one | {"record": said.get((one["run_id"], one["asset"], one["attempt"]), {})},
            run,
            now,
            strange.get(one["asset"], ()),
        )
        for one in shown
    ]
    notes = glance.notes(journal.do, run["run_id"])
    return RunFacts(
        line=line_of(run, now),
        error=run["error"],
        steps=tuple(facts),
        total=len(attempts),
        left_out=tuple(LeftOut(**one | {"assets": tuple(one["assets"])}) for one in notes.get("left_out", ())),
        warnings=tuple(told(seen.project, said) for said in notes.get("warnings", ())),
        log={asset: tuple(lines) for asset, lines in notes.get("log", {}).items()},
        used=_used(journal, run),
        before=glance.run_before(journal.do, run["run_id"]),
        host=run["host"] or "",
        pid=run["pid"] or 0,
    )


def one_run(journal: Journal | None, run_id: str) -> dict[str, Any]:
    if journal is not None and run_id:
        journal.reap()
        found = journal.runs(100, prefix=run_id)
        exact = [run for run in found if run["run_id"] == run_id] or found
        if len(exact) == 1:
            return exact[0]
        if exact:
            raise RequestError(f"'{run_id}' begins {len(exact)} runs", where=exact[0]["run_id"], next="rat runs")
    raise RequestError(
        f"There is no run '{run_id}'",
        where="the journal; it lets old runs go after observe: keep_runs",
        next="rat runs",
    )


def _step(
    project: Project, one: Mapping[str, Any], run: Mapping[str, Any], now: float, strange: Sequence[str]
) -> StepFact:
    record: Mapping[str, Any] = one["record"]
    measured = record.get("measured") or {}
    began = float(one["started_at"]) - float(run["started_at"])
    ended = float(one["ended_at"] or (run["ended_at"] or now)) - float(run["started_at"])
    stages = measured.get("stages") or {}
    known = [(name, float(stages[name])) for name in STAGES if stages.get(name)]
    known += [(name, float(took)) for name, took in stages.items() if name not in STAGES and took]
    kept = [record.get("rows_quarantined") or 0, record.get("rows_rejected") or 0]
    return StepFact(
        asset=one["asset"],
        attempt=int(one["attempt"]),
        status=one["status"],
        reason=told(project, str(record.get("reason") or ""), one["asset"]),
        mode=str(record.get("mode") or ""),
        version=record.get("version"),
        starts_s=began,
        ends_s=max(began, ended),
        seconds=float(record.get("seconds") or max(0.0, ended - began)),
        stages=tuple(known),
        rows_in=record.get("rows_in"),
        rows_written=record.get("rows_written"),
        rows_kept_out=sum(kept),
        peak_memory_bytes=record.get("peak_memory_bytes") or None,
        cpu_s=measured.get("cpu_s"),
        spill_bytes=measured.get("spill_bytes") or 0,
        failing=tuple(check for check in record.get("checks") or () if not check["passed"]),
        warnings=tuple(told(project, said, one["asset"]) for said in record.get("warnings") or ()),
        error=error_of(project, one["asset"], record.get("error") or None),
        unusual=tuple(strange),
    )


def _used(journal: Journal, run: Mapping[str, Any]) -> Used | None:
    samples = journal.samples(run["run_id"])
    if not samples:
        return None
    began = float(run["started_at"])
    return Used(
        len(samples),
        max(one["memory_bytes"] for one in samples),
        max(one["memory_share"] for one in samples),
        max(one["spill_bytes"] for one in samples),
        min(one["disk_left_bytes"] for one in samples),
        tuple((float(one["at"]) - began, float(one["memory_bytes"])) for one in _thinned(samples)),
    )


def _thinned(samples: Sequence[Mapping[str, Any]], most: int = 120) -> Sequence[Mapping[str, Any]]:
    step = max(1, len(samples) // most)
    return [*samples[:-1:step], samples[-1]]
