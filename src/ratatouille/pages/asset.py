"""Facts of one asset: what it is, its columns and where they come from, its first rows, its neighbours.

What is shown on a page of its own (versions, checks over time, what is kept out, code) is in history.py and code.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ratatouille import project as files
from ratatouille.engine import look
from ratatouille.engine.records import Answer
from ratatouille.errors import RatError, RequestError, near_miss
from ratatouille.lake import Entry
from ratatouille.lake.ledger import Brief
from ratatouille.observe.events import in_words
from ratatouille.pages.overview import AssetLine, health_of, with_trends
from ratatouille.pages.reading import Reading
from ratatouille.project.records import Asset, Project

SAMPLE_ROWS = 20
VIEW_S = 5.0
Origin = tuple[str, str]  # (asset, column)


@dataclass(frozen=True, slots=True)
class ColumnFact:
    name: str
    type: str
    description: str = ""
    sensitive: bool = False
    in_key: bool = False
    comes_from: tuple[Origin, ...] = ()
    read_by: tuple[Origin, ...] = ()  # columns below that are made of it
    checks: tuple[str, ...] = ()  # names of the checks about it


@dataclass(frozen=True, slots=True)
class Neighbour:
    name: str
    health: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class AssetFacts:
    """All about one asset that fits on one page. `asset` is None when no file of the workspace builds it."""

    line: AssetLine
    asset: Asset | None
    head: Brief | None
    columns: tuple[ColumnFact, ...]
    upstream: tuple[Neighbour, ...]
    downstream: tuple[Neighbour, ...]
    landing: tuple[str, ...]  # globs of landing files, tables of databases
    told: tuple[tuple[str, str], ...]  # what its files say of it, for people: (word, value)
    commands: tuple[tuple[str, str], ...]  # (what it does, the command)
    hold: int | None = None  # the version that it is held at
    set_aside: int = 0  # landing files


def asset_facts(seen: Reading, name: str) -> AssetFacts:
    """RequestError with the near miss for an unknown name."""
    project, asset = seen.project, seen.project.assets.get(name)
    head = seen.heads().get(name)
    above = asset.depends_on if asset else tuple(head.inputs) if head else ()
    below = sorted(one.name for one in project.assets.values() if name in one.depends_on)
    lines = health_of(seen, [name, *above, *below])
    if name not in lines:
        known = {*project.assets, *project.natives, *seen.heads()}
        raise RequestError(
            f"There is no asset called '{name}'.{near_miss(name, known)}", where=name, next="the overview lists them"
        )
    hold = seen.holds().get(name)
    (line,) = with_trends(seen, [lines[name]])
    return AssetFacts(
        line=line,
        asset=asset,
        head=head,
        columns=tuple(columns(project, name, head)),
        upstream=tuple(_neighbour(lines, one) for one in above),
        downstream=tuple(_neighbour(lines, one) for one in below),
        landing=(*(source.glob for source in asset.sources if source.glob), *asset.tables) if asset else (),
        told=tuple(_told(asset)) if asset else (),
        commands=tuple(_commands(line, hold.version if hold else None)),
        hold=hold.version if hold else None,
        set_aside=len(seen.journal.files_set_aside(name)) if seen.journal else 0,
    )


def columns(project: Project, name: str, head: Brief | Entry | None) -> Iterator[ColumnFact]:
    """The columns that stand, or of what was never built those that its query gives."""
    asset = project.assets.get(name)
    known = list(head.columns) if head else []
    if not known and asset:
        types = {column.name: column.type for column in asset.columns}
        known = [(one, types.get(one, "")) for one in asset.outputs or types]
    below = read_by(project, name)
    for column, kind in known:
        said = asset.column(column) if asset else None
        yield ColumnFact(
            column,
            kind,
            said.description if said else "",
            said.sensitive if said else False,
            bool(asset and column.lower() in {key.lower() for key in asset.unique_key}),
            _lineage(asset, column),
            below.get(column.lower(), ()),
            tuple(check.name for check in asset.checks if column.lower() in map(str.lower, check.columns))
            if asset
            else (),
        )


def _lineage(asset: Asset | None, column: str) -> tuple[Origin, ...]:
    if asset is None:
        return ()
    found = next((origins for name, origins in asset.lineage.items() if name.lower() == column.lower()), ())
    return tuple((above, of) for above, of in found)


def read_by(project: Project, name: str) -> Mapping[str, tuple[Origin, ...]]:
    """Column of `name`, in lower case -> the columns of other assets that are made of it."""
    found: dict[str, list[Origin]] = {}
    for other in project.assets.values():
        if name not in other.depends_on:
            continue
        for made, origins in other.lineage.items():
            for above, column in origins:
                if above == name:
                    found.setdefault(column.lower(), []).append((other.name, made))
    return {column: tuple(made) for column, made in found.items()}


@dataclass(frozen=True, slots=True)
class Sample:
    """The first rows as text, sensitive columns masked, or why there are none to be shown."""

    answer: Answer | None = None
    error: RatError | None = None


def sample(seen: Reading, name: str, rows: int = SAMPLE_ROWS) -> Sample:
    """Empty where no table or view stands. A view is asked for VIEW_S seconds at most: it may read anything."""
    if seen.session is None or name not in seen.standing():
        return Sample()
    session, stopped = seen.session, threading.Event()

    def stop() -> None:
        stopped.set()
        session.interrupt()

    timer = threading.Timer(VIEW_S, stop)
    timer.start()
    try:
        return Sample(look.first_rows(session, name, seen.project.assets.get(name), rows))
    except (RatError, KeyboardInterrupt) as failed:
        if stopped.is_set():
            return Sample(error=_took_too_long(name))
        if isinstance(failed, KeyboardInterrupt):
            raise
        return Sample(error=failed)
    finally:
        timer.cancel()
        timer.join()


def _took_too_long(name: str) -> RatError:
    return RequestError(
        f"The first rows of {name} took longer than {VIEW_S:.0f} seconds",
        where=name,
        state="The query was stopped.",
        next=f"rat show {name}",
    )


def _neighbour(lines: Mapping[str, AssetLine], name: str) -> Neighbour:
    return Neighbour(name, lines[name].health, lines[name].kind) if name in lines else Neighbour(name, "elsewhere")


def _told(asset: Asset) -> Iterator[tuple[str, str]]:
    yield "file", asset.path
    if asset.sidecar:
        yield "configured in", asset.sidecar
    yield "kept as", asset.materialize
    for word, values in (
        ("key", asset.unique_key),
        ("partitioned by", asset.partition_by),
        ("sorted by", asset.sort_by),
        ("owners", asset.owners),
        ("tags", asset.tags),
    ):
        if values:
            yield word, ", ".join(values)
    if asset.group:
        yield "group", asset.group
    if asset.pipeline:
        yield "pipeline", asset.pipeline
    if asset.checks:
        kept = "are kept apart" if asset.on_fail == "quarantine" else "stop the build"
        yield "rows that fail a check", kept
    limits = [(word, asset.freshness.get(key)) for word, key in (("warn", "warn_after_s"), ("error", "error_after_s"))]
    if any(limit for _, limit in limits):
        yield "freshness", ", ".join(f"{word} after {in_words(limit)}" for word, limit in limits if limit)


def _commands(line: AssetLine, hold: int | None) -> Iterator[tuple[str, str]]:
    if line.kind in ("sql", "python", "seed"):
        yield "Build it, and what it needs", f"rat run +{line.name}"
    if line.kept_out or line.health == "failed":
        yield "See the rows that are kept out", f"rat quarantine {line.name}"
    if hold is not None:
        yield "Let runs build it again", f"rat release {line.name}"


def upstream_of_all(project: Project, name: str) -> tuple[str, ...]:
    """Everything that `name` is made from, however far."""
    return tuple(files.upstream(project, name)) if name in project.assets else ()
