"""Facts of the overview: how every asset is, worst first, and the newest runs.

health   failed     its last attempt failed, or its process died; readers see the version before
         blocked    something above it failed, so it was not built
         stale      its version is older than `freshness: error_after` of its YAML file allows
         warning    a check of severity warn failed, rows were kept out, files were set aside, it is older than `warn_after`, or something about
                    its last step was unusual
         behind     its code, or the version of something that it reads, has changed since
         held       it was rolled back, and waits for a release
         running    it is being built
         new        it was never built
         elsewhere  no file of this workspace builds it
         ok         none of these
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ratatouille.lake.journal import glance
from ratatouille.lake.ledger import Brief, Hold
from ratatouille.observe.compare import asked
from ratatouille.observe.events import in_words
from ratatouille.pages.masking import error_of
from ratatouille.pages.reading import Reading
from ratatouille.project.modes import stores_rows
from ratatouille.project.records import Asset, Project

# In the order of a page: what needs somebody first.
HEALTH = ("failed", "blocked", "stale", "warning", "running", "behind", "held", "new", "ok", "elsewhere")
TREND = 20  # steps
ASSETS, RUNS = 60, 10  # so many are on the page; the others behind a link


@dataclass(frozen=True, slots=True)
class Gates:
    """The checks of the last attempt."""

    passed: int = 0
    warned: int = 0
    failed: int = 0

    @property
    def all(self) -> int:
        return self.passed + self.warned + self.failed


@dataclass(frozen=True, slots=True)
class AssetLine:
    name: str
    layer: str
    kind: str  # sql | python | seed | dbt | dagster | '' (its file is gone)
    materialize: str
    group: str
    description: str
    health: str
    why: str  # one sentence; '' where all is well
    version: int | None = None
    rows: int | None = None  # None of a view
    published_at: datetime | None = None
    run_id: str = ""  # of the last attempt
    last_status: str = ""
    last_at: float | None = None  # when the last attempt began; seconds since 1970
    seconds: float | None = None  # that it took
    gates: Gates = Gates()
    kept_out: int = 0  # rows, by the last build
    trend: tuple[float, ...] = ()  # rows of the last builds, oldest first


@dataclass(frozen=True, slots=True)
class RunLine:
    run_id: str
    status: str  # running | done | failed | interrupted | died
    asked: str
    started_at: float
    ended_at: float | None
    seconds: float
    steps: Mapping[str, int]  # by status


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something wrong in a file, or with an alert."""

    what: str
    where: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    workspace: str
    root: str
    environment: str
    layers: tuple[str, ...]
    counts: Mapping[str, int]  # of all assets, by health, in the order of HEALTH
    total: int
    matching: int  # assets that the filter leaves
    assets: tuple[AssetLine, ...]  # of these, worst first, at most as many as asked for
    runs: tuple[RunLine, ...]
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """What is left of the assets: a part of the name, a layer, a health; '' for any."""

    find: str = ""
    layer: str = ""
    health: str = ""

    def keeps(self, line: AssetLine) -> bool:
        said = self.find.lower()
        return (
            (not said or said in line.name.lower() or said in line.description.lower() or said == line.group.lower())
            and self.layer in ("", line.layer)
            and self.health in ("", line.health)
        )


def overview(seen: Reading, only: Filter = Filter(), *, assets: int = ASSETS, runs: int = RUNS) -> Overview:
    """A handful of statements, whatever the number of assets."""
    workspace = seen.project.workspace
    lines = health_of_all(seen)
    kept = [line for line in lines if only.keeps(line)]
    counts = Counter(line.health for line in lines)
    return Overview(
        workspace=workspace.name,
        root=workspace.root,
        environment=workspace.environment,
        layers=workspace.layers,
        counts={health: counts[health] for health in HEALTH if counts[health]},
        total=len(lines),
        matching=len(kept),
        assets=tuple(with_trends(seen, kept[:assets])),
        runs=tuple(run_lines(seen, runs)),
        troubles=tuple(Trouble(p.message, f"{p.path}:{p.line}", p.hint) for p in seen.project.errors),
    )


def run_lines(seen: Reading, limit: int, *, before: float | None = None, status: str = "") -> list[RunLine]:
    """Runs, newest first. Those whose process is gone are marked first."""
    if seen.journal is None:
        return []
    seen.journal.reap()
    now = seen.journal.now()
    return [line_of(run, now) for run in seen.journal.runs(limit, before=before, status=status)]


def line_of(run: Mapping[str, Any], now: float) -> RunLine:
    """A run as the journal has it, in a line."""
    return RunLine(
        run["run_id"],
        run["status"],
        asked(run["request"]),
        run["started_at"],
        run["ended_at"],
        (run["ended_at"] or now) - run["started_at"],
        run["steps"],
    )


# Health


@dataclass(frozen=True, slots=True)
class _Known:
    """What all assets are judged by."""

    heads: Mapping[str, Brief] = field(default_factory=dict)
    standing: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    points: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)  # why the last attempt failed
    unusual: Mapping[str, str] = field(default_factory=dict)
    aside: Mapping[str, int] = field(default_factory=dict)  # landing files that were set aside
    now: float = 0.0


def health_of_all(seen: Reading) -> list[AssetLine]:
    """Every asset and every published table, worst first, then by layer and name; without trends."""
    project = seen.project
    lines = list(health_of(seen).values())
    order = {layer: number for number, layer in enumerate(project.workspace.layers)}
    return sorted(lines, key=lambda one: (HEALTH.index(one.health), order.get(one.layer, len(order)), one.name))


def health_of(seen: Reading, names: Sequence[str] | None = None) -> dict[str, AssetLine]:
    """The same of `names`, of all without it. What there is not is left out."""
    known, project = _known(seen, names), seen.project
    wanted = (
        names if names is not None else [*project.assets, *({*known.heads, *project.natives} - set(project.assets))]
    )
    lines = {
        name: _line(project, known, name) if name in project.assets else _line_of_elsewhere(project, known, name)
        for name in wanted
    }
    return {name: line for name, line in lines.items() if line is not None}


def with_trends(seen: Reading, lines: Sequence[AssetLine]) -> list[AssetLine]:
    if seen.journal is None:
        return list(lines)
    found = glance.trends(seen.journal.do, [line.name for line in lines], TREND)
    return [replace(line, trend=tuple(float(p["rows_total"]) for p in found[line.name])) for line in lines]


def _known(seen: Reading, names: Sequence[str] | None) -> _Known:
    steps: Mapping[str, Mapping[str, Any]] = {}
    points: Mapping[str, Mapping[str, Any]] = {}
    reasons: Mapping[str, str] = {}
    unusual: Mapping[str, str] = {}
    aside: Mapping[str, int] = {}
    now = time.time()
    if seen.journal is not None:
        now = seen.journal.now()
        steps = glance.newest_steps(seen.journal.do, names)
        points = glance.newest_points(seen.journal.do, names)
        failed = [(s["run_id"], n, s["attempt"]) for n, s in steps.items() if s["status"] in ("failed", "blocked")]
        said = glance.records(seen.journal.do, failed)
        reasons = {name: _reason(seen.project, name, record) for (_, name, _), record in said.items()}
        aside = Counter(row["asset"] for row in seen.journal.files_set_aside())
        strange = glance.unusual(seen.journal.do)
        unusual = {n: said for n, (run, said) in strange.items() if points.get(n, {}).get("run_id") == run}
    if seen.session is None:
        return _Known(steps=steps, points=points, reasons=reasons, unusual=unusual, aside=aside, now=now)
    return _Known(
        heads=seen.heads(),
        standing=seen.standing(),
        holds=seen.holds(),
        steps=steps,
        points=points,
        reasons=reasons,
        unusual=unusual,
        aside=aside,
        now=now,
    )


def _reason(project: Project, asset: str, record: Mapping[str, Any]) -> str:
    error = error_of(project, asset, record.get("error")) or {}
    return str(error.get("what") or record.get("reason") or "")


def _line(project: Project, known: _Known, name: str) -> AssetLine:
    asset, head = project.assets[name], known.heads.get(name)
    step, point = known.steps.get(name, {}), known.points.get(name, {})
    gates = _gates(point)
    health, why = _health(asset, head, known, step, point, gates)
    return AssetLine(
        name=name,
        layer=asset.layer,
        kind=asset.kind,
        materialize=asset.materialize,
        group=asset.group,
        description=asset.description,
        health=health,
        why=why.removeprefix(f"{name}: "),
        version=head.version if head else None,
        rows=head.rows_total if head and stores_rows(asset) else None,
        published_at=head.published_at if head else None,
        run_id=step.get("run_id", ""),
        last_status=step.get("status", ""),
        last_at=step.get("started_at"),
        seconds=point.get("seconds"),
        gates=gates,
        kept_out=point.get("rows_kept_out", 0) if point.get("status") == "built" else 0,
    )


def _gates(point: Mapping[str, Any]) -> Gates:
    answers = [(bool(passed), severity) for passed, severity, *_ in (point.get("checks") or {}).values()]
    failed = sum(1 for passed, severity in answers if not passed and severity != "warn")
    warned = sum(1 for passed, severity in answers if not passed and severity == "warn")
    return Gates(len(answers) - failed - warned, warned, failed)


def _health(
    asset: Asset,
    head: Brief | None,
    known: _Known,
    step: Mapping[str, Any],
    point: Mapping[str, Any],
    gates: Gates,
) -> tuple[str, str]:
    status, name = step.get("status", ""), asset.name
    if status in ("failed", "died", "interrupted"):
        said = {"died": "its process died", "interrupted": "it was interrupted"}.get(status, "")
        return "failed", known.reasons.get(name) or said or "its last attempt failed"
    if status == "blocked":
        return "blocked", known.reasons.get(name) or "something that it reads failed"
    if status == "running":
        return "running", ""
    if head is None:
        return "new", "it was never built"
    age = known.now - _seconds(head.published_at)
    limits = asset.freshness
    old = f"its version {head.version} is {in_words(age)} old"
    if (limit := limits.get("error_after_s")) is not None and age > limit:
        return "stale", old
    if name in known.holds:
        return "held", f"it was rolled back to version {known.holds[name].version} and waits for rat release {name}"
    warnings = _warnings(asset, point, gates, known)
    if (limit := limits.get("warn_after_s")) is not None and age > limit:
        warnings.append(old)
    if warnings:
        return "warning", "; ".join(warnings)
    if head.code_hash and head.code_hash != asset.code_hash and not head.token.startswith("dbt"):
        return "behind", "its code has changed since it was built"
    moved = [above for above in head.inputs if _moved(known.heads.get(above), head.inputs[above])]
    if moved:
        more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
        return "behind", f"{moved[0]}{more} changed since it was built"
    return "ok", ""


def _warnings(asset: Asset, point: Mapping[str, Any], gates: Gates, known: _Known) -> list[str]:
    found = []
    if gates.warned:
        names = [name for name, (passed, *_) in point["checks"].items() if not passed]
        found.append(f"{', '.join(names[:3])} failed, as a warning")
    if point.get("rows_kept_out"):
        number = point["rows_kept_out"]
        found.append(f"{number:,} row{' was' if number == 1 else 's were'} kept out")
    if number := known.aside.get(asset.name, 0):
        found.append(f"{number:,} landing file{' was' if number == 1 else 's were'} set aside")
    if asset.name in known.unusual:
        found.append(known.unusual[asset.name])
    return found


def _moved(head: Brief | None, read: int) -> bool:
    return head is not None and head.data_version > read


def _seconds(moment: datetime | None) -> float:
    return moment.replace(tzinfo=UTC).timestamp() if moment is not None else 0.0


def _line_of_elsewhere(project: Project, known: _Known, name: str) -> AssetLine | None:
    """A table that no file of ours builds: of Dagster, of dbt, or left by a file that is gone."""
    head, native = known.heads.get(name), project.natives.get(name)
    step, point = known.steps.get(name, {}), known.points.get(name, {})
    if head is None and native is None:
        return None
    if (
        head is not None
        and native is None
        and head.materialize not in ("native", "artifact")
        and name not in known.standing
    ):
        return None
    kind, why = _elsewhere(head)
    status = step.get("status", "")
    failed = status in ("failed", "died", "interrupted")
    return AssetLine(
        name=name,
        layer=name.partition(".")[0],
        kind=kind,
        materialize=head.materialize if head else "native",
        group="",
        description="",
        health="failed" if failed else "elsewhere",
        why=(known.reasons.get(name) or "its last attempt failed") if failed else why,
        version=head.version if head else None,
        rows=head.rows_total if head else None,
        published_at=head.published_at if head else None,
        run_id=step.get("run_id", ""),
        last_status=status,
        last_at=step.get("started_at"),
        seconds=point.get("seconds"),
        gates=_gates(point),
    )


def _elsewhere(head: Brief | None) -> tuple[str, str]:
    if head is None or head.materialize == "native":
        return "dagster", "a Dagster asset in Python"
    if head.materialize == "dbt" or head.token == "dbt":  # noqa: S105  no secret
        return "dbt", "a model of a dbt project"
    return "", "its file is gone; the table stays until it is dropped"
