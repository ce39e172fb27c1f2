"""The graph of assets: an order in which each comes after what it reads, cycles, and who is above and below."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from ratatouille.errors import RequestError, near_miss
from ratatouille.project.records import Asset, Project


def in_order(inputs: Mapping[str, Iterable[str]]) -> list[str]:
    """Names so that each follows its inputs; of those that could come next the first by name.

    `inputs` maps a name to the names it reads; unknown names do not count. Names on a cycle, or below one, are
    left out.
    """
    waiting = {name: {i for i in above if i in inputs} for name, above in inputs.items()}
    below: dict[str, list[str]] = {name: [] for name in inputs}
    for name, above in waiting.items():
        for one in above:
            below[one].append(name)
    ready = [name for name, above in waiting.items() if not above]
    heapq.heapify(ready)
    order = []
    while ready:
        name = heapq.heappop(ready)
        order.append(name)
        for one in below[name]:
            waiting[one].discard(name)
            if not waiting[one]:
                heapq.heappush(ready, one)
    return order


def find_cycle(inputs: Mapping[str, Iterable[str]]) -> list[str]:
    """The names along one cycle, its first name again at the end; empty when there is none."""
    ordered = set(in_order(inputs))
    rest = {name: sorted(i for i in inputs[name] if i in inputs and i not in ordered) for name in inputs}
    name = min((n for n in inputs if n not in ordered), default="")
    if not name:
        return []
    path: list[str] = []
    while name not in path:  # everything that is left reads something that is left
        path.append(name)
        name = rest[name][0]
    cycle = path[path.index(name) :]
    start = cycle.index(min(cycle))
    cycle = cycle[start:] + cycle[:start]
    return [*cycle, cycle[0]]


def upstream(project: Project, name: str) -> tuple[str, ...]:
    """Every asset that `name` reads, directly or not, in dependency order. RequestError for an unknown name."""
    return _reach(project, name, {key: asset.depends_on for key, asset in project.assets.items()})


def downstream(project: Project, name: str) -> tuple[str, ...]:
    """Every asset that reads `name`, directly or not, in dependency order. RequestError for an unknown name."""
    below: dict[str, list[str]] = {key: [] for key in project.assets}
    for asset in project.assets.values():
        for above in asset.depends_on:
            below.setdefault(above, []).append(asset.name)
    return _reach(project, name, below)


def _reach(project: Project, name: str, edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    find_asset(project, name)
    seen: set[str] = set()
    waiting = list(edges[name])
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += edges.get(current, ())
    return tuple(key for key in project.assets if key in seen)


def find_asset(project: Project, name: str) -> Asset:
    """The asset called `name` (`silver.sales` or `silver/sales`). RequestError with the near miss."""
    name = name.strip().replace("/", ".")
    if name in project.assets:
        return project.assets[name]
    broken = next((p for p in project.problems if p.asset == name and p.severity == "error"), None)
    if broken:
        raise RequestError(f"{name} cannot be used: {broken.message}.", where=broken.path, next="See: rat check")
    raise RequestError(
        f"There is no asset called '{name}'.{near_miss(name, project.assets)}",
        where=f"selector {name}",
        next="List them: rat check",
    )
