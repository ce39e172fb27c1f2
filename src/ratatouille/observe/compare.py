"""Comparing two runs, or two versions of an asset: how long, how many rows, what it took, what the checks said, what changed.

side      one of the two: a run, or a version
seen      what is known of an asset on one side: its step in the journal and its entry in the ledger, whichever is there
figure    a number on both sides; None where nobody wrote it down
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ratatouille.engine import look
from ratatouille.errors import RequestError
from ratatouille.lake import Entry, artifacts, ledger
from ratatouille.project.records import Project

Pair = tuple[float | None, float | None]
Answered = tuple[bool | None, float | None, int]  # passed, value, bad rows
# In the order in which a person wants to see them.
FIGURES = (
    "seconds",
    "rows_in",
    "rows_written",
    "rows_total",
    "rows_kept_out",
    "rows_per_second",
    "peak_memory_bytes",
    "cpu_s",
    "spill_bytes",
    "disk_left_bytes",
)
# What a person calls a figure, where it is not its name.
WORDS = {
    "rows_kept_out": "kept out",
    "rows_per_second": "rows/s",
    "peak_memory_bytes": "memory",
    "cpu_s": "CPU seconds",
}


@dataclass(frozen=True, slots=True)
class Side:
    name: str  # the run's id, or silver.sales@12
    status: str
    at: datetime | None  # UTC: when it was started, or published
    seconds: float | None
    request: str = ""


@dataclass(frozen=True, slots=True)
class CheckChange:
    """A check whose answer is not the same on both sides. `passed` is None where it was not asked."""

    name: str
    passed: tuple[bool | None, bool | None]
    value: Pair
    bad: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """A column that came, went, or has another type; '' where it is not there."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Compared:
    asset: str
    status: tuple[str, str]  # '' where it had no step
    figures: Mapping[str, Pair]  # by the names of FIGURES
    stages: Mapping[str, Pair]  # seconds
    checks: tuple[CheckChange, ...] = ()
    columns: tuple[ColumnChange, ...] = ()
    changed: tuple[str, ...] = ()  # of code, config, inputs, mode, profile
    inputs: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)  # that are not the same versions

    @property
    def same(self) -> bool:
        return not (self.checks or self.columns or self.changed) and self.status[0] == self.status[1]


@dataclass(frozen=True, slots=True)
class Comparison:
    before: Side
    after: Side
    assets: tuple[Compared, ...]
    figures: Mapping[str, Pair]  # of both sides as a whole: sums, and the largest peak


@dataclass(frozen=True, slots=True)
class _Seen:
    status: str
    record: Mapping[str, Any]
    entry: Entry | None = None

    def figures(self) -> dict[str, float | None]:
        """Those of FIGURES, in their order."""
        kept = [one for one in (self._said("rows_quarantined"), self._said("rows_rejected")) if one is not None]
        rows, seconds, measured = self._said("rows_written"), self._said("seconds"), self._measured
        own = {
            "rows_kept_out": sum(kept) if kept else None,
            "rows_per_second": rows / seconds if rows is not None and seconds else None,
            **{name: measured.get(name) for name in ("cpu_s", "spill_bytes", "disk_left_bytes")},
        }
        found = {name: own[name] if name in own else self._said(name) for name in FIGURES}
        return {name: None if value is None else float(value) for name, value in found.items()}

    def _said(self, name: str) -> float | None:
        if name in self.record:
            return float(self.record[name])
        return float(getattr(self.entry, name)) if self.entry is not None else None

    @property
    def _measured(self) -> Mapping[str, Any]:
        return self.record.get("measured") or (self.entry.measured if self.entry else {})

    @property
    def stages(self) -> Mapping[str, float]:
        return dict(self._measured.get("stages", {}))

    @property
    def checks(self) -> dict[str, Answered]:
        said: Sequence[Mapping[str, Any]] = self.record.get("checks") or (self.entry.checks if self.entry else ())
        return {one["name"]: (bool(one["passed"]), one.get("value"), int(one.get("bad", 0))) for one in said}

    @property
    def columns(self) -> dict[str, str]:
        return dict(self.entry.columns) if self.entry else {}

    @property
    def inputs(self) -> Mapping[str, int]:
        return self.record.get("inputs") or (self.entry.inputs if self.entry else {})

    def facts(self) -> dict[str, str]:
        """What was different if one of these is; without an entry little is known."""
        entry, measured = self.entry, self._measured
        return {
            "code": str(measured.get("code") or (entry.code_hash if entry else "")),
            "config": str(measured.get("config", "")),
            "mode": str(self.record.get("mode") or (entry.mode if entry else "")),
            "profile": str(measured.get("profile", "")),
        }


class Books:
    """Where the two sides are looked up: the journal and the ledger, opened for each question."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def runs(self) -> Sequence[Mapping[str, Any]]:
        """The newest runs, newest first."""
        return look.runs(self.project.workspace, 1000)

    def run(self, name: str) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        """A run and its steps. RequestError when there is none that begins so."""
        return look.one_run(self.project.workspace, name)

    def published_in(self, run_id: str, of_files: Sequence[str]) -> Mapping[str, Entry]:
        """What a run published, by asset; `of_files` are artifacts."""
        return _published_in(self.project, run_id, of_files)

    def versions(self, asset: str) -> Sequence[Entry]:
        """Newest first."""
        return look.history(self.project, asset, 10_000)


def compare(project: Project, *what: str | int, books: Books | None = None) -> Comparison:
    """Two runs (`run`, `run`), two versions (`asset`, `version`, `version`), or one of them and the one before it.

    Without anything the newest run that has one before it that was asked for the same, and that one. A run is named by
    its id, or the beginning of it. RequestError when something is not there.
    """
    if what and isinstance(what[0], str) and ("." in what[0] or "/" in what[0]):
        return _versions(books or Books(project), what[0].replace("/", "."), [_number(one) for one in what[1:]])
    return _runs(books or Books(project), [str(one) for one in what])


def _number(said: str | int) -> int:
    try:
        return int(said)
    except ValueError as error:
        raise RequestError(f"'{said}' is not a version", where="rat compare ASSET A B", next="rat history") from error


# Runs


def _runs(books: Books, names: Sequence[str]) -> Comparison:
    if len(names) > 2:
        raise RequestError("Two runs are compared, not more", where="rat compare A B", next="rat compare --help")
    if len(names) == 2:
        before, after = (books.run(name)[0] for name in names)
    else:
        known = books.runs()
        if not known and not names:
            raise RequestError("Nothing has run yet", where=books.project.workspace.name, next="rat run")
        after = books.run(names[0])[0] if names else _newest_of_two(known)
        earlier = [r for r in known if r["started_at"] < after["started_at"] and r["request"] == after["request"]]
        if not earlier:
            raise RequestError(
                f"No run before {after['run_id']} was asked for the same",
                where="rat compare needs two",
                next="rat runs, then: rat compare RUN RUN",
            )
        before = earlier[0]
    sides = [_seen_in(books, run) for run in (before, after)]
    return _compared(_side_of(before), _side_of(after), *sides)


def _newest_of_two(known: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The newest run with one before it that was asked for the same; the newest of all where there is none."""
    asked_for = [json.dumps(run["request"], sort_keys=True) for run in known]
    often = Counter(asked_for)
    return next((run for run, what in zip(known, asked_for, strict=True) if often[what] > 1), known[0])


def _side_of(run: Mapping[str, Any]) -> Side:
    took = run["ended_at"] - run["started_at"] if run["ended_at"] else None
    at = datetime.fromtimestamp(run["started_at"], UTC).replace(tzinfo=None)
    return Side(run["run_id"], run["status"], at, took, asked(run["request"]))


def asked(request: Mapping[str, Any]) -> str:
    """A run's request in words."""
    if "label" in request:
        return str(request["label"])
    if "rollback" in request:
        return f"rollback {request['rollback']} to {request['to']}"
    words = [*request.get("selectors", ()), *(["-f"] if request.get("force") else [])]
    return " ".join(words) or "everything stale"


def _seen_in(books: Books, run: Mapping[str, Any]) -> dict[str, _Seen]:
    """The last attempt at each asset in a run."""
    run_id = run["run_id"]
    _, steps = books.run(run_id)
    published = books.published_in(run_id, [s["asset"] for s in steps if s["record"].get("mode") == "artifact"])
    found = {name: _Seen("built", {}, entry) for name, entry in published.items()}
    for step in sorted(steps, key=lambda one: int(one["attempt"])):
        found[step["asset"]] = _Seen(step["status"], step["record"], published.get(step["asset"]))
    return found


def _published_in(project: Project, run_id: str, of_files: Sequence[str]) -> dict[str, Entry]:
    with look.reading_lake(project.workspace) as lake:
        if lake is None:
            return {}
        with lake.session("reading the ledger") as session:
            found = ledger.published_in(session, run_id)
        for name in of_files:
            mine = [one.entry for one in artifacts.published(lake.storage, name) if one.entry.run_id == run_id]
            found |= {name: mine[-1]} if mine else {}
        return found


# Versions


def _versions(books: Books, asset: str, numbers: Sequence[int]) -> Comparison:
    if len(numbers) > 2:
        raise RequestError("Two versions are compared, not more", where=asset, next=f"rat history {asset}")
    found = books.versions(asset)
    known = [entry.version for entry in found]
    if not found or (len(found) < 2 and len(numbers) < 2):
        few = "was never published" if not found else f"has one version, {known[0]}, and nothing to compare it with"
        raise RequestError(f"{asset} {few}", where=asset, next=f"rat run {asset}")
    after = numbers[-1] if numbers else known[0]
    before = numbers[0] if len(numbers) == 2 else max((v for v in known if v < after), default=after)
    for version in (before, after):
        if version not in known:
            newest = ", ".join(map(str, known[:5]))
            raise RequestError(
                f"{asset} has no version {version}", where=f"its newest are {newest}", next=f"rat history {asset}"
            )
    one, other = (found[known.index(version)] for version in (before, after))
    sides = [{asset: _Seen("built" if e.action == "build" else e.action, {}, e)} for e in (one, other)]
    return _compared(_side_of_version(one), _side_of_version(other), *sides)


def _side_of_version(entry: Entry) -> Side:
    return Side(f"{entry.asset}@{entry.version}", entry.action, entry.published_at, entry.seconds, entry.run_id)


# Both


def _compared(before: Side, after: Side, one: Mapping[str, _Seen], other: Mapping[str, _Seen]) -> Comparison:
    names = dict.fromkeys([*one, *other])
    assets = tuple(_asset(name, one.get(name), other.get(name)) for name in names)
    whole = {name: _summed(name, [asset.figures[name] for asset in assets]) for name in FIGURES}
    whole["seconds"] = (before.seconds, after.seconds)
    for place in (0, 1):
        rows, seconds = whole["rows_written"][place], whole["seconds"][place]
        both = list(whole["rows_per_second"])
        both[place] = rows / seconds if rows is not None and seconds else None
        whole["rows_per_second"] = (both[0], both[1])
    return Comparison(before, after, assets, whole)


def _summed(name: str, pairs: Sequence[Pair]) -> Pair:
    if not pairs:
        return None, None
    one, other = ([value for value in side if value is not None] for side in zip(*pairs, strict=True))
    return _as_one(name, one), _as_one(name, other)


def _as_one(name: str, values: Sequence[float]) -> float | None:
    if not values:
        return None
    return max(values) if name == "peak_memory_bytes" else min(values) if name == "disk_left_bytes" else sum(values)


def _asset(name: str, one: _Seen | None, other: _Seen | None) -> Compared:
    sides = (one, other)
    numbers = [side.figures() if side else {} for side in sides]
    figures = {n: (numbers[0].get(n), numbers[1].get(n)) for n in FIGURES}
    stages = [dict(side.stages) if side else {} for side in sides]
    facts = [side.facts() if side else {} for side in sides]
    checks = [side.checks if side else {} for side in sides]
    columns = [side.columns if side else {} for side in sides]
    inputs = [dict(side.inputs) if side else {} for side in sides]
    changed = [n for n in ("code", "config", "mode", "profile") if _differ(facts[0].get(n), facts[1].get(n))]
    moved = {n: (inputs[0].get(n), inputs[1].get(n)) for n in dict.fromkeys([*inputs[0], *inputs[1]])}
    moved = {n: pair for n, pair in moved.items() if pair[0] != pair[1] and one and other}
    return Compared(
        asset=name,
        status=(one.status if one else "", other.status if other else ""),
        figures=figures,
        stages={n: (stages[0].get(n), stages[1].get(n)) for n in dict.fromkeys([*stages[0], *stages[1]])},
        checks=tuple(_check_changes(checks[0], checks[1])) if one and other else (),
        columns=tuple(
            ColumnChange(n, columns[0].get(n, ""), columns[1].get(n, ""))
            for n in dict.fromkeys([*columns[0], *columns[1]])
            if columns[0] and columns[1] and columns[0].get(n) != columns[1].get(n)
        ),
        changed=(*changed, *(["inputs"] if moved else [])),
        inputs=moved,
    )


def _differ(one: str | None, other: str | None) -> bool:
    """Both are known, and not the same."""
    return bool(one and other and one != other)


def _check_changes(one: Mapping[str, Answered], other: Mapping[str, Answered]) -> list[CheckChange]:
    found = []
    for name in dict.fromkeys([*one, *other]):
        before, after = one.get(name, (None, None, 0)), other.get(name, (None, None, 0))
        if before != after:
            found.append(CheckChange(name, (before[0], after[0]), (before[1], after[1]), (before[2], after[2])))
    return found


# In words


def change(before: float | None, after: float | None) -> str:
    """+12 %, or the factor where it is large; nothing where there is nothing to compare with."""
    if before is None or after is None or not before:
        return ""
    ratio = after / before
    if ratio >= 10:
        return f"x{ratio:,.0f}"
    return f"{ratio - 1:+.0%}" if round(ratio, 2) != 1 else "="


def differences(asset: Compared) -> Iterator[str]:
    """What is not the same on both sides, beside the figures, a sentence for each."""
    if asset.status[0] != asset.status[1]:
        yield f"{asset.status[0] or 'no step'}, then {asset.status[1] or 'no step'}"
    if asset.changed:
        yield f"changed: {', '.join(asset.changed)}"
    for name, (before, after) in asset.inputs.items():
        yield f"read {name} in version {before or 'none'}, then {after or 'none'}"
    for column in asset.columns:
        yield f"column {column.name}: {column.before.lower() or 'not there'}, then {column.after.lower() or 'not there'}"
    words = {True: "passed", False: "failed", None: "not asked"}
    for check in asset.checks:
        said = [
            _answer(words[passed], value, bad)
            for passed, value, bad in zip(check.passed, check.value, check.bad, strict=True)
        ]
        yield f"check {check.name}: {said[0]}, then {said[1]}"


def _answer(word: str, value: float | None, bad: int) -> str:
    more = f"{value:.4g}" if value is not None else f"{bad:,} bad row{'' if bad == 1 else 's'}" if bad else ""
    return f"{word} ({more})" if more else word
