"""The model as a picture (SVG): python -m pipelines.sbir.graph.picture > docs/pictures/sbir-graph.svg"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html import escape

from pipelines.sbir.graph.model import NODES, RELATIONS, Node, Relation

WIDTH, HEIGHT = 1075, 400
BOX_WIDTH, BOX_HEIGHT = 150, 46
PLACES = {
    "Award": (380, 80),
    "Company": (110, 215),
    "CETArea": (720, 215),
    "Patent": (380, 350),
    "PatentAssignment": (680, 350),
    "PatentEntity": (980, 350),
}
BENDS = {"ASSIGNED_FROM": -34, "ASSIGNED_TO": 34}  # pixels: two types between the same labels
LABEL_AT = {"SPECIALIZES_IN": 0.3, "FUNDED": 0.72}  # of the way: where no other line crosses
STYLE = (
    "text{font:12px sans-serif;fill:#222}.key{fill:#777;font-size:11px}.node{fill:#f4efe6;stroke:#8a6d3b}"
    ".line{fill:none;stroke:#777}.type{font-size:11px}.paper{fill:white}"
)


def picture() -> str:
    """The whole SVG. KeyError for a label without a place in it."""
    drawn = "\n".join(
        [*(line for kind in RELATIONS for line in _relation(kind)), *(line for node in NODES for line in _node(node))]
    )
    arrow = '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0,0L8,4L0,8z" fill="#777"/></marker>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">\n'
        f"<style>{STYLE}</style><defs>{arrow}</defs>\n"
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>\n{drawn}\n</svg>\n'
    )


def _node(node: Node) -> Iterator[str]:
    x, y = PLACES[node.label]
    yield f'<rect class="node" x="{x - BOX_WIDTH // 2}" y="{y - BOX_HEIGHT // 2}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="10"/>'
    yield f'<text x="{x}" y="{y - 3}" text-anchor="middle">{escape(node.label)}</text>'
    yield f'<text class="key" x="{x}" y="{y + 14}" text-anchor="middle">{escape(node.key)}</text>'


def _relation(kind: Relation) -> Iterator[str]:
    (x, y), (to_x, to_y) = PLACES[kind.start.label], PLACES[kind.end.label]
    if kind.start is kind.end:
        top = y - BOX_HEIGHT // 2
        yield f'<path class="line" marker-end="url(#a)" d="M{x - 30},{top} C{x - 50},{top - 46} {x + 50},{top - 46} {x + 30},{top}"/>'
        yield from _label(kind.type, x, top - 37)
        return
    bend = BENDS.get(kind.type, 0)
    (x, y), (to_x, to_y) = _border(x, y, to_x, to_y), _border(to_x, to_y, x, y)
    middle_x, middle_y = (x + to_x) / 2, (y + to_y) / 2 + bend
    yield f'<path class="line" marker-end="url(#a)" d="M{x:.0f},{y:.0f} Q{middle_x:.0f},{middle_y:.0f} {to_x:.0f},{to_y:.0f}"/>'
    at = LABEL_AT.get(kind.type, 0.5)
    yield from _label(kind.type, x + (to_x - x) * at, y + (to_y - y) * at + bend / 2)


def _border(x: float, y: float, to_x: float, to_y: float) -> tuple[float, float]:
    """Where the line from a box's middle leaves it."""
    across, down = to_x - x, to_y - y
    share = min(BOX_WIDTH / 2 / abs(across) if across else 9, BOX_HEIGHT / 2 / abs(down) if down else 9)
    return x + across * share, y + down * share


def _label(said: str, x: float, y: float) -> Iterator[str]:
    width = 7 * len(said) + 6
    yield f'<rect class="paper" x="{x - width / 2:.0f}" y="{y - 8:.0f}" width="{width}" height="15"/>'
    yield f'<text class="type" x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{escape(said)}</text>'


if __name__ == "__main__":
    sys.stdout.write(picture())
