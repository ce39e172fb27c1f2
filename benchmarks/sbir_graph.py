"""The SBIR graph: our loader against writing row by row (Neo4j), and against bare COPY (ladybug).

    python benchmarks/sbir_graph.py [--nodes 100000] [--relations 300000] [--rounds 3] [--single 2000] [neo4j] [ladybug]

Rows are made beforehand; what is measured is from an open, empty graph with its constraints to the last commit. The
rounds of both sides take turns. Row by row is measured on `--single` rows of each kind, and given as rows a second.
It needs `make neo4j-server`. It writes benchmarks/results/sbir_graph.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT / "tests" / "pipelines", ROOT):
    sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
from pipelines.sbir.graph.interface import columns_of, keys_of  # noqa: E402
from pipelines.sbir.graph.model import AREA, AWARD, AWARD_APPLICABLE_TO, AWARDED_TO, COMPANY, FOLLOWS, Kind, Node  # noqa: E402

KINDS = (AREA, COMPANY, AWARD, AWARDED_TO, AWARD_APPLICABLE_TO, FOLLOWS)
ARROW = {"text": pa.string(), "number": pa.float64(), "whole": pa.int64(), "flag": pa.bool_(), "day": pa.date32(),
         "moment": pa.timestamp("us"), "texts": pa.list_(pa.string())}  # fmt: skip
TEXT_CHARACTERS = {"abstract": 1200, "definition": 200, "evidence": 150, "title": 80, "name": 30}
AREAS = 21
MEMORY = Path("/dev/shm")  # noqa: S108
Rows = dict[str, pa.Table]


def made(n_nodes: int, n_relations: int, seed: int = 7) -> Rows:
    """Rows of each kind: a sixth of the nodes are companies; a third of the relations are of each type."""
    chance = np.random.default_rng(seed)
    n_companies, n_each = n_nodes // 6, n_relations // 3
    n_awards = n_nodes - n_companies - AREAS
    sizes = {AREA.name: AREAS, COMPANY.name: n_companies, AWARD.name: n_awards}
    found = {
        kind.name: _rows(kind, {"key": _names(kind.label, np.arange(sizes[kind.name]))}, chance)
        for kind in KINDS
        if isinstance(kind, Node)
    }
    awards = np.arange(n_each) % n_awards
    earlier = (awards + 1 + np.arange(n_each) // n_awards) % n_awards
    ends = {
        AWARDED_TO.name: chance.integers(0, n_companies, n_each),
        AWARD_APPLICABLE_TO.name: (awards * 7 + np.arange(n_each) // n_awards) % AREAS,
        FOLLOWS.name: earlier,
    }
    for kind in (AWARDED_TO, AWARD_APPLICABLE_TO, FOLLOWS):
        keys = {"start_key": _names(kind.start.label, awards), "end_key": _names(kind.end.label, ends[kind.name])}
        found[kind.name] = _rows(kind, keys, chance)
    return found


def _names(label: str, numbers: Any) -> pa.Array:
    return pa.array([f"{label.lower()}-{n:08}" for n in numbers.tolist()])


def _rows(kind: Kind, keys: dict[str, pa.Array], chance: Any) -> pa.Table:
    n = len(next(iter(keys.values())))
    columns: dict[str, Any] = {**keys, "content_hash": pa.array([f"{i:032x}" for i in range(n)])}
    for one in kind.properties:
        if one.kind == "text":
            filler = "lorem ipsum " * (TEXT_CHARACTERS.get(one.name, 12) // 12)
            values: Any = [f"{filler}{i}" for i in range(n)]
        elif one.kind == "texts":
            values = [["one", "two"]] * n
        elif one.kind == "number":
            values = chance.random(n)
        elif one.kind == "flag":
            values = chance.random(n) < 0.5
        else:
            values = chance.integers(8_000, 20_000, n)
        array = (
            pa.array(values, pa.int32()).cast(pa.date32())
            if one.kind == "day"
            else pa.array(values, ARROW[one.kind], safe=False)
        )
        columns[one.name] = array
    return pa.table({**columns, "before": pa.nulls(n, pa.string())})


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def neo4j_side(rows: Rows, rounds: int, single: int) -> list[str]:
    import neo4j
    from pipelines.sbir.graph.in_neo4j import InNeo4j
    from pipelines.sbir.graph.settings import Server

    batched: list[dict[str, float]] = []
    by_row: list[dict[str, float]] = []
    for _ in range(rounds):
        # A server of its own for each side: emptying one takes longer than starting one.
        with _a_server() as server, InNeo4j(Server(server.uri, server.user, server.password)) as graph:
            graph.prepare(KINDS)
            batched.append({kind.name: timed(lambda kind=kind: _write(graph, kind, rows[kind.name])) for kind in KINDS})
        with _a_server() as server:
            with InNeo4j(Server(server.uri, server.user, server.password)) as graph:
                graph.prepare(KINDS)
            with neo4j.GraphDatabase.driver(server.uri, auth=(server.user, server.password)) as driver:
                by_row.append({kind.name: _one_by_one(driver, kind, rows, single) for kind in KINDS})
    total = sum(one.num_rows for one in rows.values())
    ours = _rate(total, [sum(one.values()) for one in batched])
    lines = ["| Neo4j 5.26 | rows | ours, rows/s | row by row, rows/s | times |", "|---|---:|---:|---:|---:|"]
    for kind in KINDS:
        n = rows[kind.name].num_rows
        fast, slow = (
            _rate(n, [one[kind.name] for one in batched]),
            _rate(min(single, n), [one[kind.name] for one in by_row]),
        )
        lines.append(f"| {kind.name} | {n:,} | {fast:,.0f} | {slow:,.0f} | {fast / slow:.1f} |")
    slow = _rate(sum(min(single, rows[k.name].num_rows) for k in KINDS), [sum(one.values()) for one in by_row])
    lines.append(f"| all | {total:,} | {ours:,.0f} | {slow:,.0f} | {ours / slow:.1f} |")
    return lines


def _write(graph: Any, kind: Kind, rows: pa.Table) -> None:
    """As the assets do it: in chunks of a thirty-second of 1 GB, or of 10,000 rows."""
    size = int(2**30 / 32 / (rows.nbytes / rows.num_rows)) if graph.by_memory else 10_000
    for start in range(0, rows.num_rows, size):
        written = graph.write(kind, rows.slice(start, size))
        if written.dead:
            sys.exit(f"{kind.name}: {written.dead[:3]}")


def _a_server() -> Any:
    from neo4j_server import a_neo4j

    return a_neo4j(_program, java="-Xms1g -Xmx1g -XX:+UseParallelGC")


def _one_by_one(driver: Any, kind: Kind, rows: Rows, single: int) -> float:
    """One MERGE, one transaction for each row, as loaders without batches do it; ends are there before."""
    table = rows[kind.name].slice(0, single)
    if isinstance(kind, Node):
        said = f"MERGE (x:{kind.label} {{{kind.key}: $key}}) SET x += $properties"
    else:
        for node in (kind.start, kind.end):
            keys = table["start_key" if node is kind.start else "end_key"].to_pylist()
            driver.execute_query(f"UNWIND $keys AS key MERGE (:{node.label} {{{node.key}: key}})", keys=keys)
        said = (
            f"MATCH (a:{kind.start.label} {{{kind.start.key}: $start_key}}) MATCH (b:{kind.end.label} {{{kind.end.key}: $end_key}})"
            f" MERGE (a)-[x:{kind.type}]->(b) SET x += $properties"
        )
    given = [
        {**{name: row[name] for name in keys_of(kind)}, "properties": {p.name: row[p.name] for p in kind.properties}}
        for row in table.to_pylist()
    ]

    def work() -> None:
        with driver.session() as session:
            for one in given:
                session.run(said, one).consume()

    return timed(work)


def ladybug_side(rows: Rows, rounds: int) -> list[str]:
    import ladybug
    from pipelines.sbir.graph.in_ladybug import InLadybug, _ends

    ours: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    for _ in range(rounds):
        with _folder() as folder:
            with InLadybug(folder / "ours.lbug", buffer_mb=2048) as graph:
                graph.prepare(KINDS)
                ours.append(
                    {kind.name: timed(lambda kind=kind: _write(graph, kind, rows[kind.name])) for kind in KINDS}
                )
            with InLadybug(folder / "bare.lbug") as graph:
                graph.prepare(KINDS)
            times = {}
            with (
                ladybug.Database(folder / "bare.lbug", buffer_pool_size=2048 << 20, max_db_size=1 << 38) as database,
                ladybug.Connection(database) as connection,
            ):
                for kind in KINDS:
                    table = rows[kind.name].select(list(columns_of(kind)))
                    said = (
                        f"COPY {kind.label} FROM $rows"
                        if isinstance(kind, Node)
                        else f"COPY {kind.type} FROM $rows{_ends(kind)}"
                    )
                    times[kind.name] = timed(lambda said=said, table=table: connection.execute(said, {"rows": table}))
            bare.append(times)
    lines = ["| ladybug | rows | ours, rows/s | one COPY, rows/s | ours / COPY, time |", "|---|---:|---:|---:|---:|"]
    for kind in KINDS:
        n = rows[kind.name].num_rows
        mine, copy = _rate(n, [one[kind.name] for one in ours]), _rate(n, [one[kind.name] for one in bare])
        lines.append(f"| {kind.name} | {n:,} | {mine:,.0f} | {copy:,.0f} | {copy / mine:.2f} |")
    total = sum(one.num_rows for one in rows.values())
    mine, copy = (_rate(total, [sum(one.values()) for one in side]) for side in (ours, bare))
    lines.append(f"| all | {total:,} | {mine:,.0f} | {copy:,.0f} | {copy / mine:.2f} |")
    return lines


def _rate(rows: int, seconds: list[float]) -> float:
    return rows / statistics.median(seconds)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sbir-graph-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str, install: str) -> str:
    return shutil.which(name) or sys.exit(f"{name} is not installed. Get it with: {install}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs="*", default=["neo4j", "ladybug"])
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--relations", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--single", type=int, default=2_000)
    asked = parser.parse_args()
    rows = made(asked.nodes, asked.relations)
    size = sum(one.nbytes for one in rows.values()) >> 20
    how = (
        f"{asked.nodes:,} nodes and {asked.relations:,} relations, {size} MB of rows; medians of {asked.rounds} rounds"
    )
    where = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
    said = ["# The SBIR graph", "", f"{how}; {where}. `python benchmarks/sbir_graph.py` makes it anew.", ""]
    if "ladybug" in asked.sides:
        said += [*ladybug_side(rows, asked.rounds), ""]
        print("\n".join(said), flush=True)
    if "neo4j" in asked.sides:
        said += [*neo4j_side(rows, asked.rounds, asked.single), ""]
        said.append(f"Row by row: the first {asked.single:,} rows of each kind, one transaction each.\n")
    print("\n".join(said))
    target = ROOT / "benchmarks" / "results" / "sbir_graph.md"
    target.write_text("\n".join(said), encoding="utf-8")


if __name__ == "__main__":
    main()
