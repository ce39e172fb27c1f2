"""A report: a run, or the whole workspace, as one HTML file to mail or to keep with a release.

Its styles and charts are inside it; it has no script, loads nothing and links only within itself, so it looks in twenty
years as it does today. It holds no row of a table but those that an error of a gate shows, masked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ratatouille.errors import RatError, RequestError
from ratatouille.lake.faults import plainly
from ratatouille.lake.journal import glance
from ratatouille.observe import alerts
from ratatouille.observe.compare import compare
from ratatouille.pages import charts, drawings, html, words
from ratatouille.pages.dictionary import Table, dictionary, in_short
from ratatouille.pages.graph import Node, graph, joined
from ratatouille.pages.masking import told
from ratatouille.pages.overview import AssetLine, overview, run_lines
from ratatouille.pages.reading import Reading, reading
from ratatouille.pages.run import RunFacts, run_facts
from ratatouille.project.records import Project

LAST = "last"  # instead of a run's id: the newest
NEEDS_SOMEBODY = ("failed", "blocked", "stale", "warning", "held")
# More than this nobody reads, and a mail does not carry: what is left out is said.
MOST_ASSETS, MOST_DETAILS, MOST_STEPS, MOST_RUNS, MOST_IN_A_PICTURE = 2000, 300, 1000, 20, 120
_POINTS = 40  # of a chart
_LONGEST = 10  # bars


@dataclass(frozen=True, slots=True)
class Section:
    """Everything about one asset of a workspace's report."""

    line: AssetLine
    table: Table | None
    charts: tuple[tuple[str, Markup], ...]  # title, drawing


def report_of_workspace(project: Project) -> str:
    """The workspace as it is now: what stands, what needs somebody, what ran, every table."""
    with reading(project) as seen:
        view = overview(seen, assets=MOST_ASSETS, runs=MOST_RUNS)
        version = seen.session.snapshot if seen.session is not None else None
        trends = _trends(seen, [line.name for line in view.assets[:MOST_DETAILS]])
    found = dictionary(project)
    tables = {table.name: table for table in found.tables}
    known = sorted(view.assets, key=lambda line: (_layer_order(project, line.layer), line.name))
    anchors = {line.name: f"asset-{number}" for number, line in enumerate(known)}
    return _page(
        "workspace",
        project,
        view=view,
        version=version,
        assets=known,
        anchors=anchors,
        wrong=[line for line in view.assets if line.health in NEEDS_SOMEBODY],
        alerts=_alerts(project),
        picture=_picture(known, tables, anchors),
        sections=[
            Section(line, tables.get(line.name), trends.get(line.name, ()))
            for line in known
            if line.name in trends or line.name in tables
        ][:MOST_DETAILS],
        longest=_longest(view.assets, anchors),
        documented=in_short(found),
    )


def report_of_run(project: Project, run_id: str) -> tuple[str, str]:
    """A run, by its id, the beginning of it, or `last`: its steps, what failed and why, what changed since the one before.

    The text, and the run's whole id.
    """
    with reading(project) as seen:
        if run_id == LAST:
            newest = run_lines(seen, 1)
            if not newest:
                raise RequestError("Nothing has run yet", where=project.workspace.root, next="rat run")
            run_id = newest[0].run_id
        view = run_facts(seen, run_id, steps=MOST_STEPS)
    text = _page(
        "run",
        project,
        view=view,
        timeline=drawings.run_timeline(view, linked=False),
        memory=_memory(view),
        compared=_compared(project, view),
    )
    return text, view.line.run_id


def write_report(text: str, target: Path) -> int:
    """Whole or not at all; how many bytes. RequestError where there is no such folder."""
    if target.is_dir() or not target.parent.is_dir():
        what = f"{target} is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise RequestError(what, where=str(target), next="Name a file: rat report -o report.html")
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with plainly("writing the report"):
        try:
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)
    return target.stat().st_size


def usual_name(project: Project, run_id: str = "") -> str:
    """How the file is called where nobody says it."""
    moment = f"{datetime.now(UTC):%Y%m%d-%H%M}"
    said = f"{project.workspace.name}-{run_id or moment}"
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', said).strip('.-') or 'report'}.html"


def _page(kind: str, project: Project, **facts: Any) -> str:
    from ratatouille import __version__

    sheets = [(html.STATIC / name).read_text(encoding="utf-8") for name in ("style.css", "charts.css")]
    if any("</" in sheet for sheet in sheets):
        raise AssertionError("a style sheet of ours would end its element")
    return html.page(
        f"report/{kind}.html",
        workspace=project.workspace,
        made_at=datetime.now(UTC),
        release=__version__,
        styles=Markup("\n").join(Markup(sheet) for sheet in sheets),  # noqa: S704  our own files
        **facts,
    )


def _layer_order(project: Project, layer: str) -> int:
    layers = project.workspace.layers
    return layers.index(layer) if layer in layers else len(layers)


def _trends(seen: Reading, names: Sequence[str]) -> Mapping[str, tuple[tuple[str, Markup], ...]]:
    """Charts of seconds, rows and memory of each asset that was built more than once."""
    if seen.journal is None:
        return {}
    drawn = {}
    for name, points in glance.trends(seen.journal.do, names, _POINTS).items():
        if len(points) > 1:
            drawn[name] = tuple(
                (title, _course(points, figure, f"{title} of {words.cell(name)}", how))
                for figure, title, how in (
                    ("seconds", "Seconds", words.seconds),
                    ("rows_total", "Rows", words.count),
                    ("peak_memory_bytes", "Memory", words.size),
                )
            )
    return drawn


def _alerts(project: Project) -> alerts.Overview:
    found = alerts.overview(project)
    return replace(found, wrong=tuple(replace(one, said=told(project, one.said, one.subject)) for one in found.wrong))


def _longest(lines: Sequence[AssetLine], anchors: Mapping[str, str]) -> Markup:
    """What took longest when it was built last; nothing where little took any time."""
    known = sorted((line for line in lines if line.seconds), key=lambda line: -(line.seconds or 0.0))[:_LONGEST]
    if len(known) < 2 or sum(line.seconds or 0.0 for line in known) < 1.0:
        return Markup("")
    items = [charts.Bar(words.cell(one.name), one.seconds or 0.0, href=f"#{anchors[one.name]}") for one in known]
    return charts.bars(items, title="What took longest, when it was last built", how=words.seconds)


def _course(points: Sequence[Mapping[str, Any]], figure: str, title: str, how: Callable[[float], str]) -> Markup:
    values = [charts.Point(words.when(point["at"])[:16], float(point[figure] or 0)) for point in points]
    return charts.line_chart(values, title=title, how=how) if any(point.value for point in values) else Markup("")


def _picture(lines: Sequence[AssetLine], tables: Mapping[str, Table], anchors: Mapping[str, str]) -> Markup:
    kinds = {"failed": "failed", "stale": "failed", "blocked": "warn", "warning": "warn", "behind": "warn"}
    nodes = [
        Node(line.name, words.cell(line.name), line.health, kinds.get(line.health, ""), f"#{anchors[line.name]}")
        for line in lines
    ]
    edges = [(above, name) for name, table in tables.items() for above in table.reads]
    nodes = joined(nodes, edges)
    return graph(nodes, edges, title="Lineage") if len(nodes) <= MOST_IN_A_PICTURE else Markup("")


def _memory(view: RunFacts) -> Markup:
    if view.used is None or len(view.used.memory) < 2:
        return Markup("")
    points = [charts.Point(words.seconds(after), value) for after, value in sorted(view.used.memory)]
    return charts.line_chart(points, title="Memory while it ran", how=words.size)


@dataclass(frozen=True, slots=True)
class Since:
    """What is not as it was in the run before that was asked for the same."""

    before: str
    figures: list[tuple[str, str, str, str]]
    lines: list[tuple[str, list[str]]]  # asset, what differs


def _compared(project: Project, view: RunFacts) -> Since | None:
    if not view.before:
        return None
    from ratatouille.observe.compare import differences

    try:
        found = compare(project, view.before, view.line.run_id)
    except RatError:  # the journal let the one before go meanwhile
        return None
    lines = [(one.asset, list(differences(one))) for one in found.assets if not one.same]
    return Since(view.before, drawings.compared_rows(found.figures), [one for one in lines if one[1]][:100])
