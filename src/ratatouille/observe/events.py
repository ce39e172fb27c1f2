"""Events: what a step, a run or a table has to say of each thing that a rule may be about.

about      run_failed, gate_failed, ...: the conditions of `when:` in workspace.yaml
subject    the asset, or the request of a run that failed as a whole
wrong      an event says that something is wrong, or that it is all right (again)

An event of a moment that was looked at before changes nothing, so the same step may be looked at twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratatouille.lake import Entry, Journal
from ratatouille.observe.compare import asked
from ratatouille.observe.findings import Finding, Point
from ratatouille.project.records import Asset

RECOVERED = "recovered"
RUN_FAILED, GATE_FAILED, GATE_WARNED, QUARANTINE = "run_failed", "gate_failed", "gate_warned", "quarantine"
REGRESSION, ANOMALY, STALE = "regression", "anomaly", "stale"
MEMORY, DISK = "memory_pressure", "disk_low"
OVERDUE = "overdue"
_OF_FINDINGS = {REGRESSION: "regression", ANOMALY: "anomaly"}
_LEVELS = {"": 0, "suspect": 0, "warn": 1, "fail": 2}
_LONGEST = 500  # characters of an error: a message is no log


@dataclass(frozen=True, slots=True)
class Event:
    about: str
    subject: str
    at: float  # when it happened; seconds since 1970
    level: str  # '' (all right) | warn | fail
    said: str = ""
    run_id: str = ""
    share: float = 0.0  # of quarantine: of the rows
    next: str = ""  # the command that helps

    def reaches(self, level: str) -> bool:
        return _LEVELS[self.level] >= _LEVELS[level]


def of_step(point: Point, found: Sequence[Finding], error: Mapping[str, str]) -> Iterator[Event]:
    """What one finished step says. `found` is what is unusual about it, `error` the four lines if it failed."""
    asset, at, run_id = point["asset"], float(point["at"]), point["run_id"]
    failed = point["status"] == "failed"
    what = str(error.get("what") or "it failed")[:_LONGEST] if failed else ""
    then = error.get("next", "") or f"rat runs {run_id}"
    yield Event(OVERDUE, asset, at, "")  # whatever came of it, it has ended
    yield Event(RUN_FAILED, asset, at, "fail" if failed else "", what, run_id, next=then)
    bad = {name: severity for name, (passed, severity, *_) in point["checks"].items() if not passed}
    by_gate = failed and "error" in bad.values()
    if by_gate or not failed:
        yield Event(GATE_FAILED, asset, at, "fail" if by_gate else "", what, run_id, next=then)
    if not failed:
        names = [name for name, severity in bad.items() if severity == "warn"]
        said = f"{', '.join(names[:5])} failed, as a warning" if names else ""
        yield Event(GATE_WARNED, asset, at, "warn" if names else "", said, run_id, next=f"rat history {asset}")
        share = _kept_out_share(point)
        said = f"{point['rows_kept_out']:,} rows ({share:.1%}) were kept out" if share else ""
        yield Event(QUARANTINE, asset, at, "fail" if share else "", said, run_id, share, f"rat quarantine {asset}")
        for about, kind in _OF_FINDINGS.items():
            mine = [one for one in found if one.kind == kind and one.level in ("warn", "fail")]
            yield _worst(about, mine, asset, at, run_id, f"rat compare {asset}")
    for about, figure, known in (
        (MEMORY, "memory used", "memory_share" in point["measured"]),
        (DISK, "disk left", "disk_left_bytes" in point["measured"]),
    ):
        if known:
            mine = [one for one in found if one.kind == "pressure" and one.figure == figure]
            yield _worst(about, mine, asset, at, run_id, f"rat runs {run_id}")


def _kept_out_share(point: Point) -> float:
    seen = point["rows_in"] or (point["rows_written"] + point["rows_kept_out"])
    return float(point["rows_kept_out"] / seen) if seen else 0.0


def _worst(about: str, found: Sequence[Finding], asset: str, at: float, run_id: str, then: str) -> Event:
    level = max((one.level for one in found), key=_LEVELS.__getitem__, default="")
    said = "; ".join(one.said for one in sorted(found, key=lambda one: -_LEVELS[one.level])[:3])
    return Event(about, asset, at, level, said[:_LONGEST], run_id, next=then)


def of_runs(journal: Journal, since: float) -> Iterator[Event]:
    """Runs that ended as a whole: killed, or failed without an asset that did; and those that went well.

    A run that was killed ended at its last heartbeat, and may be found much later.
    """
    names = ("run_id", "status", "request", "ended_at", "error")
    rows = journal.do(
        f"select {', '.join(names)} from runs where ended_at > ? and status in ('done', 'failed', 'died')"
        " order by ended_at", [since],
    )  # fmt: skip
    for row in rows:
        run = dict(zip(names, row, strict=True))
        subject = f"run of {asked(json.loads(run['request'] or '{}'))}"
        died = run["status"] == "died"
        if run["status"] == "failed" and (not run["error"] or _has_failed_step(journal, run["run_id"])):
            continue  # its assets speak for themselves
        error: Mapping[str, Any] = json.loads(run["error"]) if run["error"] else {}
        said = _last_words(journal, run["run_id"]) if died else error.get("what", "")
        level = "" if run["status"] == "done" else "fail"
        then = "rat run goes on from where it was" if died else error.get("next", "")
        yield Event(RUN_FAILED, subject, float(run["ended_at"]), level, str(said)[:_LONGEST], run["run_id"], next=then)


def _has_failed_step(journal: Journal, run_id: str) -> bool:
    return bool(journal.do("select 1 from steps where run_id = ? and status = 'failed' limit 1", (run_id,)))


def _last_words(journal: Journal, run_id: str) -> str:
    """Of a run that was killed: what it used when it was last heard of."""
    said = "its process is gone: it was killed, or the machine was restarted"
    last = journal.samples(run_id)[-1:]
    return f"{said}; when last heard of it used {last[0]['memory_share']:.0%} of its memory" if last else said


def of_freshness(asset: Asset, head: Entry, now: float) -> Event:
    """How old the current version is, by the rule of the asset's YAML file. It happened when it crossed the line."""
    from datetime import UTC

    published = head.published_at.replace(tzinfo=UTC).timestamp() if head.published_at else now
    age, at, level = now - published, published, ""
    for name, word in (("warn_after_s", "warn"), ("error_after_s", "fail")):
        if (limit := asset.freshness.get(name)) is not None and age > limit:
            at, level = published + limit, word
    said = f"its version {head.version} is {in_words(age)} old" if level else ""
    return Event(STALE, asset.name, at, level, said, head.run_id, next=f"rat run +{asset.name}")


def in_words(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
