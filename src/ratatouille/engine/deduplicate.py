"""`deduplicate:`: of the rows with one unique key, the first in the given order is kept.

A window over all rows is slow and hungry, and almost no key repeats. So: find the hashes that repeat, rank only
their rows, and leave out the losers. Measured on ten million rows: see benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratatouille.lake import Session
from ratatouille.lake.quoting import ident, idents, table, texts
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
    # Thirty-two bits make small groups; two keys with one mark only send a few rows more to the exact ranking.
    session.execute(
        f"create or replace temp table ranked as select {idents(asset.unique_key)}, {_numbered(asset)}, row_number() over"
        f" (partition by {idents(asset.unique_key)} order by {asset.deduplicate}) as place"
        f" from (\n{select}\n) where {mark} in (select mark from repeated)"
    )
    numbers = [f"_order_{number}" for number in range(len(asset.order))]
    same = " and ".join(f"a.{name} is not distinct from b.{name}" for name in [*map(ident, asset.unique_key), *numbers])
    ties = f"select 1 from ranked a join ranked b on {same} and a.place = 1 and b.place > 1 limit 1"
    if session.value(ties):
        return _by_window(asset, select)  # a winner and a loser look the same to the join below
    named = f"select *, {_numbered(asset)} from (\n{select}\n)"
    return (
        f"select a.* exclude ({', '.join(numbers)}) from ({named}) a"
        f" anti join (from ranked where place > 1) b on {same}"
    )


def newest_of_each_key(asset: Asset, select: str, loads: Mapping[str, str] | None = None) -> str:
    """`select` with those rows of each key that were loaded last, as runs one after the other would have left them.

    A rebuild loads all landing files at once: then `loads` has a text for each that was read before, which sorts as
    they came; of those that came together, or come only now, the later name counts. Rows of one file stay, and so do those without a key or
    a time: whether they may is for the gates to say.
    """
    if loads is not None:
        files, ages = texts(loads), texts(loads.values())
        load = f"coalesce(map({files}::varchar[], {ages}::varchar[])[_file], '~')"
        last = f"(_loaded_at, {load}, _file)"
        keys = " or ".join(f"{ident(column)} is null" for column in asset.unique_key)
        return (
            f"select * from (\n{select}\n) qualify {keys} or _loaded_at is null or _file is null"
            f" or {last} = max({last}) over (partition by {idents(asset.unique_key)})"
        )
    keyless = " or ".join(f"{ident(column)} is null" for column in asset.unique_key)
    return (
        f"select * from (\n{select}\n) qualify {keyless} or _loaded_at is null"
        f" or _loaded_at = max(_loaded_at) over (partition by {idents(asset.unique_key)})"
    )


def _numbered(asset: Asset) -> str:
    return ", ".join(f"{term.sql} as _order_{number}" for number, term in enumerate(asset.order))


def without_late_losers(session: Session, asset: Asset, select: str, existing: Mapping[str, str]) -> str:
    """`select` without rows that sort after the published row of their key.

    A correction may be published before the row that it corrects arrives; the late row must not undo it, or the
    table would depend on the order in which files come. A row that sorts equal replaces the published one.
    """
    standing = {name.lower() for name in existing}
    if not {column.lower() for term in asset.order for column in term.columns} <= standing:
        return select  # the order needs columns that the table does not keep
    keys = idents(asset.unique_key)
    session.execute(f"create or replace temp table arriving as {select}")
    # Of the published rows only what is compared: the rest of them is not read.
    compared = dict.fromkeys([*asset.unique_key, *(column for term in asset.order for column in term.columns)])
    published = f"select {idents(compared)}, false as _arriving from {table(asset.name)}"
    rivals = f"{published} where ({keys}) in (select {keys} from arriving)"
    return (
        f"select * exclude (_arriving) from (select *, true as _arriving from arriving union all by name {rivals})"
        f" qualify row_number() over (partition by {keys} order by {asset.deduplicate}, _arriving desc) = 1 and _arriving"
    )


def _by_window(asset: Asset, select: str) -> str:
    return (
        f"select * from (\n{select}\n) qualify row_number() over"
        f" (partition by {idents(asset.unique_key)} order by {asset.deduplicate}) = 1"
    )
