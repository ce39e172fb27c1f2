"""A small workspace of three layers, its landing files, and what its tables must hold, in plain Python.

bronze.sales    every line of every landing file (append)
silver.sales    for every id the line with the highest seq (merge)
gold.totals     rows and sum of silver (table)
gold.moment     reads the clock, so it is stale at every request
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from ratatouille.lake import Session

FILES = {
    "workspace.yaml": "name: kitchen\nresources: {memory: 1GB, threads: 1}\n",
    "pipelines/bronze/sales.yaml": "materialize: append\nsources:\n  landing/*.csv:\n"
    "    columns: {id: bigint, seq: bigint, amount: bigint}\n",
    "pipelines/bronze/sales.sql": "select id, seq, amount, _file, _loaded_at, _run_id"
    " from {{ source('landing/*.csv') }}\n",
    "pipelines/silver/sales.yaml": "materialize: merge\nunique_key: id\ndeduplicate: seq desc\n"
    "columns:\n  amount: {checks: [not_null, positive]}\n",
    "pipelines/silver/sales.sql": "select id, seq, amount, _loaded_at from {{ ref('bronze.sales') }}\n"
    "{% if is_incremental() %} where _loaded_at > {{ watermark('_loaded_at') }} {% endif %}\n",
    "pipelines/gold/totals.sql": "select count(*) as sales, sum(amount)::bigint as amount"
    " from {{ ref('silver.sales') }}\n",
    "pipelines/gold/moment.sql": "select now()::timestamp as at\n",
}
ASSETS = ("bronze.sales", "silver.sales", "gold.totals", "gold.moment")


def build(root: Path) -> Path:
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (root / "landing").mkdir()
    return root


def land(root: Path, name: str, rows: Iterable[Sequence[int]]) -> None:
    """A landing file, put in place whole: written aside and renamed."""
    path = root / "landing" / name
    aside = path.with_suffix(".csv.tmp")
    lines = ["id,seq,amount", *(",".join(map(str, row)) for row in rows)]
    aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    aside.rename(path)


def some_rows(random: Random, seq: int, count: int, ids: int) -> list[tuple[int, int, int]]:
    """`count` lines with ids below `ids`; seq grows from `seq`, so a later line is a correction of an earlier one."""
    return [(random.randrange(ids), seq + i, random.randrange(1, 1000)) for i in range(count)]


def own_rows(who: int, number: int, count: int) -> list[tuple[int, int, int]]:
    """Lines whose ids are in no other file."""
    first = (who * 1000 + number) * 1000
    return [(first + i, first + i, 1 + i) for i in range(count)]


def expected(root: Path) -> dict[str, Any]:
    """What the tables must hold, from the landing files alone."""
    lines = []
    for path in sorted((root / "landing").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as handle:
            lines += [(int(r["id"]), int(r["seq"]), int(r["amount"])) for r in csv.DictReader(handle)]
    newest: dict[int, tuple[int, int, int]] = {}
    for line in lines:
        if line[0] not in newest or newest[line[0]][1] < line[1]:
            newest[line[0]] = line
    silver = sorted(newest.values())
    return {
        "bronze.sales": sorted(lines),
        "silver.sales": silver,
        "gold.totals": [(len(silver), sum(amount for _, _, amount in silver))],
    }


def found(session: Session) -> dict[str, Any]:
    """What the tables hold; [] for one that is not there."""
    there = {row[0] for row in session.rows("select schema_name || '.' || table_name from duckdb_tables()")}
    tables = {}
    for name in ("bronze.sales", "silver.sales", "gold.totals"):
        columns = "sales, amount" if name == "gold.totals" else "id, seq, amount"
        tables[name] = session.rows(f"select {columns} from lake.{name} order by all") if name in there else []
    return tables
