"""The lineage as a picture: boxes from left (what is read) to right (what reads it), arrows between them.

A node's column is the longest way to it from what reads nothing; within a column nodes lie near what they are joined
to. As in charts.py: markup that is safe, classes instead of colours, and words for whoever cannot see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from markupsafe import Markup

_BOX_HEIGHT, _DOWN, _ACROSS = 36, 48, 48
_LETTER = 7.3  # of a monospaced letter of 12 units
_LONGEST = 26  # letters in a box; the rest is in its title
_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Node:
    name: str  # what edges call it
    label: str = ""  # what is shown; '': the name
    below: str = ""  # a small second line
    kind: str = ""  # a class: focus, failed, warn
    href: str = ""


def graph(nodes: Sequence[Node], edges: Iterable[tuple[str, str]], *, title: str) -> Markup:
    """The nodes joined by (from, to); edges from or to others are left out. Empty without nodes. No circles."""
    if not nodes:
        return Markup("")
    known = {node.name: node for node in nodes}
    arrows = sorted({(a, b) for a, b in edges if a in known and b in known and a != b})
    columns = _columns(list(known), arrows)
    wide = [max(_width(known[name]) for name in column) for column in columns]
    tall = max(len(column) for column in columns)
    places: dict[str, tuple[float, float]] = {}
    x = 4.0
    for column, width in zip(columns, wide, strict=True):
        free = (tall - len(column)) * _DOWN / 2
        places |= {name: (x, 4.0 + free + i * _DOWN) for i, name in enumerate(column)}
        x += width + _ACROSS
    sizes = {name: width for column, width in zip(columns, wide, strict=True) for name in column}
    body = [_edge(places[a], sizes[a], places[b]) for a, b in arrows]
    body += [_box(known[name], places[name], sizes[name]) for column in columns for name in column]
    width, height = x - _ACROSS + 4, tall * _DOWN - (_DOWN - _BOX_HEIGHT) + 8
    said = f"{len(nodes)} {'table' if len(nodes) == 1 else 'tables'}, {len(arrows)} {'arrow' if len(arrows) == 1 else 'arrows'}"
    words = "; ".join(f"{b} reads {a}" for a, b in arrows[:20])
    return Markup(
        '<div class="graph-box" tabindex="0" role="group" aria-label="{}">'
        '<svg class="graph" width="{:.0f}" height="{:.0f}" viewBox="0 0 {:.0f} {:.0f}"><title>{}</title><desc>{}</desc>{}</svg></div>'
    ).format(f"{title}: {said}", width, height, width, height, title, words or said, Markup("").join(body))


def joined(nodes: Sequence[Node], edges: Iterable[tuple[str, str]]) -> list[Node]:
    """The nodes that an edge begins or ends at: what stands alone tells nothing in a picture of all."""
    ends = {end for edge in edges for end in edge if edge[0] != edge[1]}
    return [node for node in nodes if node.name in ends]


def around(name: str, reads: Mapping[str, Sequence[str]], steps: int = 2) -> set[str]:
    """`name` and what is at most `steps` above or below it; `reads`: what each reads."""
    read_by: dict[str, list[str]] = {}
    for reader, above in reads.items():
        for one in above:
            read_by.setdefault(one, []).append(reader)
    found = {name}
    for neighbours in (reads, read_by):
        edge = {name}
        for _ in range(steps):
            edge = {other for one in edge for other in neighbours.get(one, ())} - found
            found |= edge
    return found


def _columns(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    above: dict[str, set[str]] = {name: set() for name in names}
    below: dict[str, set[str]] = {name: set() for name in names}
    for a, b in edges:
        above[b].add(a)
        below[a].add(b)
    depth: dict[str, int] = {}
    for name in TopologicalSorter(above).static_order():
        depth[name] = 1 + max((depth[one] for one in above[name]), default=-1)
    for name in names:  # what reads nothing lies beside what reads it, not far to the left
        if not above[name] and below[name]:
            depth[name] = min(depth[one] for one in below[name]) - 1
    columns: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in names:
        columns[depth[name]].append(name)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        place = {name: float(i) for column in columns for i, name in enumerate(column)}
        for column in columns if forward else reversed(columns):
            joined = above if forward else below
            column.sort(key=lambda name: (_middle([place[one] for one in joined[name]], place[name]), name))
            place |= {name: float(i) for i, name in enumerate(column)}
    return [column for column in columns if column]


def _middle(places: Sequence[float], otherwise: float) -> float:
    return sum(places) / len(places) if places else otherwise


def _width(node: Node) -> float:
    letters = max(len(_cut(node.label or node.name)), round(len(_cut(node.below)) * 0.85))
    return max(60.0, letters * _LETTER + 16)


def _cut(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


def _edge(a: tuple[float, float], width: float, b: tuple[float, float]) -> Markup:
    x1, y1 = a[0] + width, a[1] + _BOX_HEIGHT / 2
    x2, y2 = b[0], b[1] + _BOX_HEIGHT / 2
    bend = max(16.0, (x2 - x1) / 2)
    return Markup(
        '<path class="edge" d="M{:.1f} {:.1f} C{:.1f} {:.1f} {:.1f} {:.1f} {:.1f} {:.1f} m-5 -3 l5 3 l-5 3"/>'
    ).format(x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2)


def _box(node: Node, place: tuple[float, float], width: float) -> Markup:
    label = node.label or node.name
    x, y = place
    first = y + (15 if node.below else 22)
    inside = Markup(
        '<title>{}</title><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="4"/>'
        '<text x="{:.1f}" y="{:.1f}">{}</text>'
    ).format(label, x, y, width, _BOX_HEIGHT, x + 8, first, _cut(label))
    if node.below:
        inside += Markup('<text class="below" x="{:.1f}" y="{:.1f}">{}</text>').format(x + 8, y + 29, _cut(node.below))
    if node.href:
        inside = Markup('<a href="{}">{}</a>').format(node.href, inside)
    kind = node.kind if node.kind.isalpha() and node.kind.isascii() else ""
    return Markup('<g class="node {}">{}</g>').format(kind, inside)
