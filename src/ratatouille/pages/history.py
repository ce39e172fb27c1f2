"""Facts of an asset over time: its versions, what changed between two of them, its checks, its figures, what is kept out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ratatouille.engine import kept_out as quarantine
from ratatouille.engine.kept_out import KeptOut
from ratatouille.errors import RatError, RequestError
from ratatouille.lake import Entry, artifacts
from ratatouille.lake.care import upkeep
from ratatouille.lake.catalogs.lock import looking_back
from ratatouille.lake.ledger import Brief
from ratatouille.observe import findings
from ratatouille.pages.masking import told
from ratatouille.pages.reading import Reading
from ratatouille.upkeep.diff import Diff, diff, diff_on

VERSIONS, POINTS, ROWS, EXAMPLES = 50, 60, 50, 10


@dataclass(frozen=True, slots=True)
class VersionFact:
    entry: Brief | Entry
    current: bool
    readable: bool  # its rows are kept
    before: int | None  # the version that it is compared with
    rollback: str  # the command; '' where there is nothing to go back to
    changed: tuple[str, ...] = ()  # columns, code: in a few words


@dataclass(frozen=True, slots=True)
class CheckFact:
    """A check: as it is configured, and what it said in the last builds, oldest first."""

    name: str
    kind: str
    severity: str
    columns: tuple[str, ...]
    answers: tuple[tuple[str, str, bool, int, float | None], ...] = ()  # run, time (UTC), passed, bad rows, value

    @property
    def last(self) -> tuple[str, str, bool, int, float | None] | None:
        return self.answers[-1] if self.answers else None


@dataclass(frozen=True, slots=True)
class PointFact:
    """A finished step in figures."""

    run_id: str
    at: float
    status: str
    mode: str
    version: int
    seconds: float
    rows_written: int
    rows_total: int
    rows_kept_out: int
    peak_memory_bytes: int
    stages: Mapping[str, float]
    level: str = ""  # the worst that was found about it: '' | warn | fail


def versions(seen: Reading, name: str, *, limit: int = VERSIONS) -> list[VersionFact]:
    """Published versions, newest first."""
    entries, readable, is_files = _entries(seen, name, limit + 1)
    found = []
    for place, entry in enumerate(entries[:limit]):
        older = [one for one in entries[place + 1 :] if one.action != upkeep.COMPACT]
        can_read = is_files or entry.version in readable
        before = next((one for one in older if is_files or one.version in readable), None)
        goes_back = place > 0 and can_read and entry.materialize != "view" and entry.action != upkeep.COMPACT
        found.append(
            VersionFact(
                entry,
                place == 0,
                can_read,
                before.version if before and can_read and not is_files and entry.materialize != "view" else None,
                f"rat rollback {name} --to {entry.version}" if goes_back else "",
                tuple(_changes(entry, older[0])) if older else (),
            )
        )
    return found


def _entries(seen: Reading, name: str, limit: int) -> tuple[Sequence[Brief | Entry], set[int], bool]:
    """The entries, which versions can be read, and whether they are of an artifact."""
    if seen.session is None or seen.lake is None:
        return [], set(), False
    entries = seen.entries(name, limit)
    if not entries:
        of_files = [one.entry for one in artifacts.published(seen.lake.storage, name)]
        return sorted(of_files, key=lambda one: -one.version)[:limit], set(), True
    return entries, upkeep.versions(seen.session), False


def _changes(new: Brief | Entry, old: Brief | Entry) -> list[str]:
    found = []
    if new.action == "build" and new.code_hash and old.code_hash and new.code_hash != old.code_hash:
        found.append("code")
    if isinstance(new, Brief) and isinstance(old, Brief) and new.said_columns == old.said_columns:
        return found
    before, after = dict(old.columns), dict(new.columns)
    came = [name for name in after if name not in before]
    went = [name for name in before if name not in after]
    retyped = [name for name in after if name in before and after[name] != before[name]]
    for sign, names in (("+", came), ("−", went), ("~", retyped)):
        found += [f"{sign} {one}" for one in names[:3]] + ([f"{sign} {len(names) - 3} more"] if len(names) > 3 else [])
    return found


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two versions, or why nobody can tell."""

    found: Diff | None
    error: RatError | None = None


def difference(seen: Reading, name: str, before: int | None, after: int | None) -> Difference:
    """Without numbers: of the current version and the one before it."""
    try:
        known = seen.entries(name)
        if seen.session is None or seen.lake is None or not known or known[0].materialize == "view":
            return Difference(diff(seen.project, name, before, after, examples=EXAMPLES))  # which says why not
        with looking_back(seen.lake.storage.catalog):
            readable = upkeep.versions(seen.session)
            old, new = _pair(name, known, readable, before, after)
            return Difference(diff_on(seen.session, seen.project, name, old, new, examples=EXAMPLES))
    except RatError as error:
        return Difference(None, error)


def _pair(
    name: str, known: Sequence[Brief], readable: set[int], before: int | None, after: int | None
) -> tuple[int, int]:
    there = [one.version for one in known if one.version in readable and one.action != upkeep.COMPACT]
    new = after if after is not None else known[0].version
    old = before if before is not None else next((version for version in there if version < new), None)
    for version in (old, new):
        if version is None or version not in {one.version for one in known} or version not in readable:
            raise RequestError(
                f"version {version} of {name} cannot be read" if version else f"{name} has no version before {new}",
                where=f"versions that can be read: {', '.join(map(str, there[:10])) or 'none'}",
                next=f"rat history {name}",
            )
    return old or new, new


# Checks and figures


def checks(seen: Reading, name: str, *, last: int = 30) -> list[CheckFact]:
    """Every check that is configured, or was asked in the last builds."""
    asset = seen.project.assets.get(name)
    points = list(reversed(_points(seen, name, last)))
    said = {check.name: check for check in asset.checks} if asset else {}
    names = dict.fromkeys([*said, *(check for point in points for check in point["checks"])])
    found = []
    for one in names:
        answers, severity = [], said[one].severity if one in said else ""
        for point in points:
            if one in point["checks"]:
                passed, severity, bad, value = point["checks"][one]
                answers.append((point["run_id"], point["at"], bool(passed), int(bad), value))
        asked = bool(points) and one in points[-1]["checks"]
        kind = said[one].kind if one in said else "asked of every asset like it" if asked else "not configured any more"
        columns = said[one].columns if one in said else ()
        found.append(CheckFact(one, kind, severity or "error", columns, tuple(answers)))
    return sorted(found, key=lambda one: (one.last is None or one.last[2], one.name))


def figures(seen: Reading, name: str, *, last: int = POINTS) -> list[PointFact]:
    """The last steps that ended, oldest first, with what was found about them."""
    if seen.journal is None:
        return []
    levels: dict[str, str] = {}
    for (run_id, _), level in findings.flagged(seen.journal, name).items():
        if level in ("warn", "fail") and levels.get(run_id) != "fail":
            levels[run_id] = level
    return [
        PointFact(
            one["run_id"],
            one["at"],
            one["status"],
            one["mode"],
            one["version"],
            one["seconds"],
            one["rows_written"],
            one["rows_total"],
            one["rows_kept_out"],
            one["peak_memory_bytes"],
            one["measured"].get("stages") or {},
            "fail" if one["status"] == "failed" else levels.get(one["run_id"], ""),
        )
        for one in reversed(_points(seen, name, last))
    ]


def _points(seen: Reading, name: str, last: int) -> Sequence[Mapping[str, Any]]:
    return seen.journal.last_points(name, last) if seen.journal else []


# What readers do not see


def kept_out(seen: Reading, name: str, *, check: str = "", run: str = "", skip: int = 0, rows: int = ROWS) -> KeptOut:
    """Rows in the quarantine, newest first; where a gate stopped the last attempt also the rows that failed it."""
    files = seen.journal.files_set_aside(name) if seen.journal else []
    aside = tuple(one | {"reason": told(seen.project, one["reason"], name)} for one in files)
    blocked = quarantine.why_blocked(seen.journal.last_steps(name, 1)) if seen.journal else ""
    known = KeptOut(name, (), (), blocked, (), aside)
    if seen.session is None:
        return known
    found = quarantine.kept_out_of(seen.session, seen.project, known, run=run, check=check, limit=rows, skip=skip)
    return replace(found, failing=tuple(one for one in found.failing if check in ("", one.check)))
