"""Facts of lineage: the tables around an asset, and the way of one column from its sources to what is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from ratatouille.pages.asset import AssetFacts, Origin
from ratatouille.pages.graph import Node, around, graph
from ratatouille.pages.overview import health_of
from ratatouille.pages.reading import Reading
from ratatouille.pages.words import asset_href
from ratatouille.project.records import Asset, Project

MOST_NODES = 60  # of a picture that a person still reads
MOST_STEPS = 200  # columns above or below one
_KINDS = {"failed": "failed", "stale": "failed", "warning": "warn", "blocked": "warn", "behind": "warn"}


@dataclass(frozen=True, slots=True)
class ColumnStep:
    """A column on the way: how many steps away from the one that was asked for."""

    asset: str
    column: str
    away: int
    description: str = ""
    ends: bool = False  # nothing further is known: a landing file, a seed, a Python asset
    source: str = ""  # where that comes from, in words


@dataclass(frozen=True, slots=True)
class Lineage:
    picture: Markup
    shown: int
    total: int  # tables above and below, however far
    column: str = ""
    above: tuple[ColumnStep, ...] = ()  # farthest last
    below: tuple[ColumnStep, ...] = ()


def lineage(seen: Reading, facts: AssetFacts, column: str = "", *, steps: int = 2) -> Lineage:
    """`column`: its way up and down, and the picture of these tables only."""
    project, name = seen.project, facts.line.name
    reads = {one.name: tuple(one.depends_on) for one in project.assets.values()}
    everything = around(name, reads, len(reads) + 1)
    if column:
        above, below = _walk(project, (name, column), up=True), _walk(project, (name, column), up=False)
        picture = _picture_of_columns(project, (name, column), above, below)
        return Lineage(picture, len(above) + len(below) + 1, len(everything), column, tuple(above), tuple(below))
    names = around(name, reads, steps)
    while len(names) > MOST_NODES and steps > 1:
        steps -= 1
        names = around(name, reads, steps)
    if len(names) > MOST_NODES:
        names = {name, *sorted(names - {name})[: MOST_NODES - 1]}
    health = {line.name: line.health for line in health_of(seen, sorted(names)).values()}
    nodes = [
        Node(
            one,
            below=project.assets[one].materialize if one in project.assets else "",
            kind="focus" if one == name else _KINDS.get(health.get(one, ""), ""),
            href=asset_href(one, "lineage"),
        )
        for one in sorted(names)
    ]
    edges = [(above, one) for one in names for above in reads.get(one, ())]
    return Lineage(graph(nodes, edges, title=f"Tables around {name}"), len(names), len(everything))


def _walk(project: Project, start: Origin, *, up: bool) -> list[ColumnStep]:
    """The columns that `start` is made of, or that are made of it, nearest first."""
    below = {} if up else _read_by(project)
    seen, edge = {_key(start)}, [start]
    found: list[ColumnStep] = []
    away = 0
    while edge and len(found) < MOST_STEPS:
        away += 1
        further = [other for one in edge for other in (_made_of(project, one) if up else below.get(_key(one), ()))]
        edge = [one for one in dict.fromkeys(further) if _key(one) not in seen]
        seen |= {_key(one) for one in edge}
        found += [_column_step(project, one, away, up) for one in edge]
    return found[:MOST_STEPS]


def _key(origin: Origin) -> Origin:
    return origin[0], origin[1].lower()


def _made_of(project: Project, origin: Origin) -> tuple[Origin, ...]:
    asset = project.assets.get(origin[0])
    if asset is None:
        return ()
    return next((made for name, made in asset.lineage.items() if name.lower() == origin[1].lower()), ())


def _read_by(project: Project) -> Mapping[Origin, list[Origin]]:
    found: dict[Origin, list[Origin]] = {}
    for asset in project.assets.values():
        for made, origins in asset.lineage.items():
            for origin in origins:
                found.setdefault(_key(origin), []).append((asset.name, made))
    return found


def _column_step(project: Project, origin: Origin, away: int, up: bool) -> ColumnStep:
    asset = project.assets.get(origin[0])
    said = asset.column(origin[1]) if asset else None
    ends = up and not _made_of(project, origin)
    return ColumnStep(*origin, away, said.description if said else "", ends, _source(asset) if ends else "")


def _source(asset: Asset | None) -> str:
    """Where the rows of an asset come from that reads no other."""
    if asset is None:
        return "a table that no file of this workspace builds"
    places = [*(source.glob for source in asset.sources if source.glob), *asset.tables]
    if places:
        return ", ".join(places[:3])
    return {"seed": asset.path, "python": f"computed in {asset.path}"}.get(asset.kind, f"computed in {asset.path}")


def _picture_of_columns(project: Project, start: Origin, above: list[ColumnStep], below: list[ColumnStep]) -> Markup:
    """Columns as boxes: the ones on the way, as far as a picture holds them."""
    chosen = [start, *((one.asset, one.column) for one in [*above, *below][: MOST_NODES - 1])]
    keys = {_key(one): one for one in chosen}
    nodes = [
        Node(
            f"{asset}\0{column.lower()}",
            label=column,
            below=asset,
            kind="focus" if _key((asset, column)) == _key(start) else "",
            href=asset_href(asset, "lineage", column=column),
        )
        for asset, column in keys.values()
    ]
    edges = [
        ("\0".join(_key(origin)), "\0".join(_key(one)))
        for one in keys.values()
        for origin in _made_of(project, one)
        if _key(origin) in keys
    ]
    return graph(nodes, edges, title=f"The way of {start[0]}.{start[1]}")
