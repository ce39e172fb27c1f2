"""Charts: SVG, made on the server. Each function takes plain values and gives markup that is safe to put into a page.

point     one value and what it belongs to (a run, a version); None: there was none
band      from where to where a value is usual
span      a stage of a step, from when to when

No colour, no style and no script stands in the markup: classes only, and static/charts.css gives them colours in light
and dark. Whoever cannot see a chart hears its title and one sentence that says what is in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

# User units; charts scale down to a phone with their letters readable, so they are not wider than one.
_WIDTH, _HEIGHT = 360, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 8, 20
_TICKS = 3
STAGES = ("wait", "render", "build", "gate", "seal", "publish", "other")
How = Callable[[float], str]
Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Point:
    label: str
    value: float | None
    level: str = ""  # '' | warn | fail: how it was judged


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    value: float
    level: str = ""
    href: str = ""
    text: str = ""  # instead of the value


@dataclass(frozen=True, slots=True)
class Span:
    stage: str  # one of STAGES
    start_s: float  # seconds since the run began
    end_s: float


@dataclass(frozen=True, slots=True)
class Line:
    """One step in a timeline."""

    label: str
    spans: tuple[Span, ...]
    status: str = ""
    text: str = ""  # beside the bar
    href: str = ""


def number(value: float) -> str:
    """A figure without a unit, in at most five characters or with commas."""
    if value == round(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


# Lines


def sparkline(values: Sequence[float | None], *, title: str, how: How = number) -> Markup:
    """The course of a value in the size of a word; the newest has a dot. Empty without two values."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < 2:
        return Markup("")
    width, height, edge = 96, 24, 3.0
    low, high = min(known), max(known)
    across = _scale(0, len(values) - 1, edge, width - edge)
    up = _scale(low, high, height - edge, edge) if high > low else lambda _: height / 2
    body = [_path(run, across, up, "line") for run in _runs(values)]
    last = max(i for i, value in enumerate(values) if value is not None and math.isfinite(value))
    body.append(_circle(across(last), up(values[last] or 0.0), 2.5, "dot"))
    return _svg("sparkline", width, height, title, _in_words(known, how), body)


def line_chart(
    points: Sequence[Point], *, title: str, how: How = number, band: Sequence[tuple[float, float] | None] = ()
) -> Markup:
    """Values from left to right, oldest first, from zero up; each point tells its label and value when it is pointed at.

    `band`: for each point from where to where it is usual. Empty without a value.
    """
    values = [point.value for point in points]
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return Markup("")
    bands = [*band, *[None] * (len(points) - len(band))]
    top = max([*known, *(high for _, high in filter(None, bands))], default=0.0)
    ticks = _ticks(min(0.0, *known), top)
    across = _scale(0, max(1, len(points) - 1), _LEFT, _WIDTH - _RIGHT)
    up = _scale(ticks[0], ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    body = [*_grid(ticks, up, how), *_band(bands, across, up)]
    body += [_path(run, across, up, "line") for run in _runs(values)]
    for i, point in enumerate(points):
        if point.value is not None and math.isfinite(point.value):
            said = f"{point.label}: {how(point.value)}"
            body.append(_circle(across(i), up(point.value), 3.0, f"dot {_word(point.level)}".strip(), said))
    body.append(_text(_LEFT, _HEIGHT - 5, points[0].label, "start"))
    if len(points) > 1:
        body.append(_text(_WIDTH - _RIGHT, _HEIGHT - 5, points[-1].label, "end"))
    return _svg("line-chart", _WIDTH, _HEIGHT, title, _in_words(known, how), body)


def _runs(values: Sequence[float | None]) -> Iterable[list[tuple[int, float]]]:
    """Values that follow each other without a gap."""
    run: list[tuple[int, float]] = []
    for i, value in enumerate(values):
        if value is not None and math.isfinite(value):
            run.append((i, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _band(bands: Sequence[tuple[float, float] | None], across: Scale, up: Scale) -> Iterable[Markup]:
    edges: list[tuple[int, tuple[float, float]]] = []
    for i, one in enumerate([*bands, None]):
        if one is not None:
            edges.append((i, one))
            continue
        if len(edges) > 1:
            there = [(across(n), up(high)) for n, (_, high) in edges]
            back = [(across(n), up(low)) for n, (low, _) in reversed(edges)]
            corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*there, *back])
            yield Markup('<polygon class="band" points="{}"/>').format(corners)
        edges = []


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    step = (end - start) / ((high - low) or 1.0)
    return lambda value: start + (value - low) * step


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, about three steps, from `low` or below to `high` or above."""
    span = (high - low) or 1.0
    raw = span / _TICKS
    size = 10.0 ** math.floor(math.log10(raw))
    step = next((size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw), size * 10)
    first = math.floor(low / step)
    return [(first + i) * step for i in range(math.ceil(high / step - 1e-9) - first + 1)] or [low, high]


def _grid(ticks: Sequence[float], up: Scale, how: How) -> Iterable[Markup]:
    for tick in ticks:
        yield Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            _LEFT, _WIDTH - _RIGHT, up(tick), up(tick)
        )
        yield _text(_LEFT - 5, up(tick) + 3.5, how(tick), "end")


# Bars


def bars(items: Sequence[Bar], *, title: str, how: How = number) -> Markup:
    """Names with a bar each, as a table: the letters stay letters. Empty without items."""
    if not items:
        return Markup("")
    most = max((abs(item.value) for item in items if math.isfinite(item.value)), default=0.0) or 1.0
    body = Markup("").join(
        Markup(
            '<tr><th scope="row">{}</th><td class="plot">{}</td><td class="figure">{}</td></tr>'
        ).format(_linked(item.label, item.href), _bar(item, most), item.text or how(item.value))
        for item in items
    )  # fmt: skip
    return _table("bars", title, ("what", "share", "figure"), body)


def _bar(item: Bar, most: float) -> Markup:
    width = 1000 * abs(item.value) / most if math.isfinite(item.value) else 0.0
    body = Markup('<rect class="bar {}" x="0" y="0" width="{:.1f}" height="10"/>').format(_word(item.level), width)
    return _strip(body)


# A timeline


def timeline(lines: Sequence[Line], *, title: str, total_s: float = 0.0) -> Markup:
    """Steps below each other, each a bar of its stages, on one scale from the beginning of the run to its end."""
    if not lines:
        return Markup("")
    total = max([total_s, *(span.end_s for line in lines for span in line.spans)]) or 1.0
    body = Markup("").join(
        Markup('<tr class="{}"><th scope="row">{}</th><td class="plot">{}</td><td class="figure">{}</td></tr>').format(
            _word(line.status), _linked(line.label, line.href), _spans(line, total), line.text
        )
        for line in lines
    )
    there = {_stage(span) for line in lines for span in line.spans}
    legend = Markup("").join(
        Markup('<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true">{}</svg>{}</li>').format(
            Markup('<rect class="stage-{}" width="10" height="10"/>').format(stage), stage
        )
        for stage in STAGES
        if stage in there
    )
    scale = Markup('<p class="scale"><span>0 s</span><span>{}</span></p>').format(_seconds(total))
    shown = _table("timeline", title, ("asset", "when", "took"), body)
    return Markup('<div class="timeline-box">{}{}<ul class="legend">{}</ul></div>').format(shown, scale, legend)


def _spans(line: Line, total: float) -> Markup:
    body = Markup("")
    for span in line.spans:
        start, end = max(0.0, span.start_s), max(span.start_s, span.end_s)
        width = max(2.0, 1000 * (end - start) / total)  # a moment is still seen
        said = f"{line.label}: {_stage(span)}, {_seconds(end - start)}"
        body += Markup(
            '<rect class="stage-{}" x="{:.1f}" y="0" width="{:.1f}" height="10"><title>{}</title></rect>'
        ).format(_stage(span), min(998.0, 1000 * start / total), width, said)
    return _strip(body)


def _stage(span: Span) -> str:
    return span.stage if span.stage in STAGES else "other"


def _seconds(value: float) -> str:
    if value >= 90:
        return f"{value / 60:,.1f} min"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


# Markup


def _strip(body: Markup) -> Markup:
    """A row's bar: it is stretched to the width of its cell, so no letters are in it. The row says the figures."""
    return Markup(
        '<svg class="strip" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(body)


def _table(kind: str, title: str, names: Sequence[str], body: Markup) -> Markup:
    head = Markup("").join(Markup('<th scope="col"><span class="unseen">{}</span></th>').format(name) for name in names)
    return Markup(
        '<table class="{}"><caption>{}</caption><colgroup><col class="name"><col><col class="figure"></colgroup><thead><tr>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(kind, title, head, body)


def _svg(kind: str, width: int, height: int, title: str, words: str, body: Iterable[Markup]) -> Markup:
    return Markup(
        '<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>{}</svg>'
    ).format(kind, width, height, f"{title}: {words}", title, words, Markup("").join(body))


def _in_words(known: Sequence[float], how: How) -> str:
    if len(known) == 1:
        return f"one value, {how(known[0])}"
    return f"{len(known)} values from {how(min(known))} to {how(max(known))}, the newest {how(known[-1])}"


def _path(run: Sequence[tuple[int, float]], across: Scale, up: Scale, kind: str) -> Markup:
    corners = " ".join(f"{across(i):.1f},{up(value):.1f}" for i, value in run)
    return Markup('<polyline class="{}" points="{}"/>').format(kind, corners)


def _circle(x: float, y: float, r: float, kind: str, said: str = "") -> Markup:
    inside = Markup("<title>{}</title>").format(said) if said else Markup("")
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}">{}</circle>').format(kind, x, y, r, inside)


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, words)


def _linked(label: str, href: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(href, label) if href else Markup("{}").format(label)


def _word(level: str) -> str:
    """A class of our own, whatever the value says."""
    return level if level.isalpha() and level.isascii() else ""
