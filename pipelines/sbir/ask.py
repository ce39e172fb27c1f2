"""A question to the graph, in Cypher; it only reads.

python -m pipelines.sbir.ask "MATCH (c:Company) RETURN c.name AS name, c.award_count AS awards ORDER BY awards DESC LIMIT 10"
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from pipelines.sbir.graph import open_graph
from pipelines.sbir.graph.interface import GraphError
from pipelines.sbir.graph.settings import graph_settings
from ratatouille import RatError, workspace

USAGE = 'python -m pipelines.sbir.ask [--json] "MATCH (c:Company) RETURN c.name AS name LIMIT 10"'
WIDEST = 60  # characters of a column


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code: 0 done, 1 the graph has no answer, 2 the request is wrong."""
    asked = [one for one in (sys.argv[1:] if arguments is None else arguments) if one != "--json"]
    as_json = len(asked) < len(sys.argv[1:] if arguments is None else arguments)
    if len(asked) != 1 or asked[0].startswith("-"):
        sys.stderr.write(f"{USAGE}\n")
        return 2
    try:
        here = workspace()
        with open_graph(graph_settings(here.vars.get("sbir")), here.root, reading=True) as graph:
            rows = graph.ask(asked[0])
    except (GraphError, RatError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(_lines(rows) if not as_json else "".join(json.dumps(row, default=str) + "\n" for row in rows))
    return 0


def _lines(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no rows\n"
    names = list(rows[0])
    table = [names, *([_text(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[n]) for line in table) for n in range(len(names))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    shown.insert(1, "─" * max(len(line) for line in shown))
    return "\n".join([*shown, f"{len(rows)} row{'s' * (len(rows) != 1)}", ""])


def _text(value: Any) -> str:
    said = "" if value is None else " ".join(str(value).split())
    return said if len(said) <= WIDEST else said[: WIDEST - 3] + "..."


if __name__ == "__main__":
    sys.exit(main())
