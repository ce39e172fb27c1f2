"""`deduplicate:`: of the rows with one unique key, the first in the given order is kept.

A window over all rows is slow and hungry, and almost no key repeats. So: find the hashes that repeat, rank only
their rows, and leave out the losers. Measured on ten million rows: see benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratatouille.lake import Session
from ratatouille.lake.quoting import ident, idents, table
from ratatouille.project.records import Asset

# Below this many rows the plain window is faster than three scans.
FEW_ROWS = 100_000


def first_of_each_key(session: Session, asset: Asset, select: str, rows: int | None) -> str:
    """`select` without the rows that lose. `rows`: how many it reads, if known; its sources must be cheap to rescan."""
    if rows is None or rows < FEW_ROWS:
        return _by_window(asset, select)
    mark = f"cast(hash({idents(asset.unique_key)}) >> 32 as uinteger)"
    session.execute(
        f"create or replace temp table repeated as"
        f" select {mark} as mark from (\n{select}\n) group by 1 having count(*) > 1"
    )
    orders = order_terms(asset.deduplicate)
    named = ", ".join(f"{term} as o{number}" for number, term in enumerate(orders))
    # Thirty-two bits make small groups; two keys with one mark only send a few rows more to the exact ranking.
    session.execute(
        f"create or replace temp table ranked as select {idents(asset.unique_key)}, {named}, row_number() over"
        f" (partition by {idents(asset.unique_key)} order by {asset.deduplicate}) as place"
        f" from (\n{select}\n) where {mark} in (select mark from repeated)"
    )
    keys = [f"a.{ident(key)} is not distinct from b.{ident(key)}" for key in asset.unique_key]
    ranks = [f"a.o{number} is not distinct from b.o{number}" for number in range(len(orders))]
    ties = (
        f"select 1 from ranked a join ranked b on {' and '.join(keys + ranks)} and a.place = 1 and b.place > 1 limit 1"
    )
    if session.value(ties):
        return _by_window(asset, select)  # a winner and a loser look the same to the join below
    found = [f"{_of_a(term)} is not distinct from b.o{number}" for number, term in enumerate(orders)]
    return f"select a.* from (\n{select}\n) a anti join (from ranked where place > 1) b on {' and '.join(keys + found)}"


def without_late_losers(session: Session, asset: Asset, select: str, existing: Mapping[str, str]) -> str:
    """`select` without rows that sort after the published row of their key.

    A correction may be published before the row that it corrects arrives; the late row must not undo it, or the
    table would depend on the order in which files come. A row that sorts equal replaces the published one.
    """
    standing = {name.lower() for name in existing}
    if not _columns(asset.deduplicate) <= standing:
        return select  # the order needs columns that the table does not keep
    keys = idents(asset.unique_key)
    session.execute(f"create or replace temp table arriving as {select}")
    names = [name for name, _ in session.describe("from arriving") if name.lower() in standing]
    published = f"select {idents(names)}, false as _arriving from {table(asset.name)}"
    rivals = f"{published} where ({keys}) in (select {keys} from arriving)"
    return (
        f"select * exclude (_arriving) from (select *, true as _arriving from arriving union all by name {rivals})"
        f" qualify row_number() over (partition by {keys} order by {asset.deduplicate}, _arriving desc) = 1 and _arriving"
    )


def _columns(order: str) -> set[str]:
    import sqlglot
    from sqlglot import exp

    parsed = sqlglot.parse_one(f"select 1 order by {order}", read="duckdb")
    return {column.name.lower() for column in parsed.find_all(exp.Column)}


def _by_window(asset: Asset, select: str) -> str:
    return (
        f"select * from (\n{select}\n) qualify row_number() over"
        f" (partition by {idents(asset.unique_key)} order by {asset.deduplicate}) = 1"
    )


def order_terms(order: str) -> list[str]:
    """`updated_at desc, abs(x)` -> [`updated_at`, `abs(x)`], in DuckDB's SQL."""
    import sqlglot

    parsed = sqlglot.parse_one(f"select 1 order by {order}", read="duckdb")
    return [term.this.sql(dialect="duckdb") for term in parsed.args["order"].expressions]


def _of_a(term: str) -> str:
    """A term with its columns taken from `a`: the ranked side of the join has columns of the same name."""
    import sqlglot
    from sqlglot import exp

    parsed = sqlglot.parse_one(term, read="duckdb")
    for column in parsed.find_all(exp.Column):
        column.set("table", exp.to_identifier("a"))
    return parsed.sql(dialect="duckdb")
