"""The graph of SBIR: companies, awards, patents and technologies, in Neo4j or in a file (ladybug).

node, relation   a kind of thing in the graph, and where its rows come from (model.py)
graph            the place where they are kept: a server or a file; both behind one interface (interface.py)
delta            what of a kind is new, changed, the same, or gone, against what the graph holds (delta.py)
mark             a token that each load leaves in the graph. While it is the one that the lake remembers, the graph is
                 as the lake says; if not (a kill, a restored backup, an emptied server), the graph itself is asked
dead letter      a row that the graph does not take, with the reason

Nothing here knows Ratatouille or Dagster: frames come in, counts and frames go out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.sbir.graph.settings import GraphSettings, file_of, server_of_environment

if TYPE_CHECKING:
    from pipelines.sbir.graph.interface import Graph
    from pipelines.sbir.graph.model import Kind


def open_graph(settings: GraphSettings, root: Path, *, reading: bool = False) -> Graph:
    """The graph that the settings choose; `root` is the workspace. It opens in a `with`."""
    if settings.backend == "neo4j":
        from pipelines.sbir.graph.in_neo4j import InNeo4j

        return InNeo4j(server_of_environment(), settings.loading)
    from pipelines.sbir.graph.in_ladybug import InLadybug

    return InLadybug(file_of(settings, root), settings.loading, buffer_mb=settings.buffer_mb, reading=reading)


def standing_mark(settings: GraphSettings, root: Path, load: str, kinds: Sequence[Kind]) -> str:
    """What `Graph.standing` says; '' where there is no graph yet, or it does not answer.

    A file that nobody touched since it was closed is not opened for it.
    """
    from pipelines.sbir.graph.interface import GraphError

    if settings.backend == "ladybug":
        from pipelines.sbir.graph.marks import marks_noted

        if not file_of(settings, root).exists():
            return ""
        noted = marks_noted(file_of(settings, root))
        return noted.get(load, "") if noted is not None else "the file has changed"
    try:
        with open_graph(settings, root, reading=True) as graph:
            return graph.standing(load, kinds)
    except GraphError:
        return ""
