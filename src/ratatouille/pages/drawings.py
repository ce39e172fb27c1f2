"""Drawings: facts of these pages as charts. charts.py draws; what is drawn, and in which words, is said here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ratatouille.observe.compare import WORDS, Compared, Pair, change
from ratatouille.pages import charts
from ratatouille.pages.history import PointFact
from ratatouille.pages.run import RunFacts, StepFact
from ratatouille.pages.words import asset_href, count, seconds, size, when

LINES = 60  # of a timeline that a person still reads
HOW: Mapping[str, Callable[[float | None], str]] = {"count": count, "seconds": seconds, "size": size}
_FIGURES: Mapping[str, Callable[[float | None], str]] = {
    "seconds": seconds,
    "cpu_s": seconds,
    **dict.fromkeys(("peak_memory_bytes", "spill_bytes", "disk_left_bytes"), size),
}


def spark(values: Sequence[float], label: str) -> Markup:
    """The course of a value in a cell of a table."""
    return charts.sparkline(values, title=label)


def figure_chart(figures: Sequence[PointFact], name: str, title: str, how: str) -> Markup:
    """One figure of the last builds, oldest on the left. What was found unusual about a build has a colour."""
    points = [
        charts.Point(when(one.at)[:16], float(getattr(one, name)), one.level)
        for one in figures
        if one.status == "built" or name == "seconds"
    ]
    return charts.line_chart(points, title=title, how=HOW[how])


def run_timeline(view: RunFacts, *, linked: bool = True) -> Markup:
    """The steps of a run on one scale. Where stages are known, they fill the step from its end backwards."""
    steps = sorted(view.in_order[:LINES] if len(view.steps) > LINES else view.in_order, key=lambda one: one.starts_s)
    lines = [
        charts.Line(
            step.asset,
            tuple(_spans(step)),
            step.status,
            seconds(step.seconds),
            asset_href(step.asset) if linked else "",
        )
        for step in steps
    ]
    return charts.timeline(lines, title="Timeline", total_s=view.line.seconds)


def _spans(step: StepFact) -> Iterator[charts.Span]:
    if not step.stages:
        yield charts.Span("other", step.starts_s, step.ends_s)
        return
    at = max(step.starts_s, step.ends_s - sum(took for _, took in step.stages))
    for stage, took in step.stages:
        yield charts.Span(stage, at, at + took)
        at += took


def compared_rows(
    figures: Mapping[str, Pair], stages: Mapping[str, Pair] | None = None
) -> list[tuple[str, str, str, str]]:
    """Figures of two sides as text: name, before, after, change. What neither side knows is left out."""
    found = []
    for name, pair in figures.items():
        if any(pair) and name != "disk_left_bytes":
            how: Callable[[Any], str] = _FIGURES.get(name, count)
            found.append((WORDS.get(name, name.replace("_", " ")), *_cells(how, pair)))
    for name, pair in (stages or {}).items():
        if max(value or 0.0 for value in pair) >= 0.01:
            found.append((f"· {name}", *_cells(seconds, pair)))
    return found


def _cells(how: Callable[[Any], str], pair: Pair) -> tuple[str, str, str]:
    return how(pair[0]), how(pair[1]), change(*pair)


def matters(asset: Compared) -> bool:
    """Whether more has changed than the versions of what it read."""
    moved = set(asset.changed) - {"inputs"}
    return bool(
        asset.columns
        or moved
        or asset.status[0] != asset.status[1]
        or [c for c in asset.checks if c.passed[0] != c.passed[1]]
    )


def most_changed_first(assets: Sequence[Compared]) -> list[Compared]:
    """A page shows the first of many: those in which something matters, then those that differ at all."""
    return sorted(assets, key=lambda one: (not matters(one), one.same))
