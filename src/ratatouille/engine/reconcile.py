"""`deletions: remove` of a merge: the query gives all rows, and the table becomes those rows by as few changes as it takes.

mark   a hash over all columns of a row: rows of one key with one mark are taken for the same row
gone   the keys that stand and that the query gives no more

The query runs twice when something changed: once for the marks alone (no more than a key and a number of each row
are held), once for the rows of the keys that are new or have another mark. So the change feed of the table tells
what really changed, and what reads `changes()` of it works on that alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratatouille.lake import stage
from ratatouille.lake.quoting import ident, idents, literal, table
from ratatouille.lake.types import Columns

if TYPE_CHECKING:
    from ratatouille.engine.work import Work

_FEW = 20_000
_PLAIN = frozenset({"VARCHAR", "BIGINT", "INTEGER", "SMALLINT", "TINYINT"})  # whose constants are what they say


def changed_rows(work: Work, select: str, columns: Columns) -> str:
    """Those rows of `select` that are new or differ from what stands. Stages the keys that are gone as `work.gone`."""
    asset, session = work.asset, work.session
    keys = idents(asset.unique_key)
    names = [name for name, _ in columns]
    session.execute(
        f"create or replace temp table given as select {keys}, hash({idents(names)}) as _rat_mark from (\n{select}\n)"
    )
    work.rows_seen = int(session.value("select count(*) from given"))
    there = {name.lower() for name in work.existing}
    # A column that is new is null in what stands, so only rows that have a value there have changed.
    standing = ", ".join(ident(n) if n.lower() in there else f"cast(null as {k}) as {ident(n)}" for n, k in columns)
    session.execute(
        f"create or replace temp table stands as select {keys}, hash({idents(names)}) as _rat_mark"
        f" from (select {standing} from {table(asset.name)})"
    )
    gone = f"select {keys} from stands except select {keys} from given"
    if session.value(f"select count(*) from ({gone})"):
        work.gone = stage(session, gone, asset.name, work.folder("gone"))
    session.execute(
        f"create or replace temp table differs as select {keys} from given except all select {keys} from"
        f" (select {keys}, _rat_mark from given intersect select {keys}, _rat_mark from stands)"
    )
    if not session.value("select count(*) from differs"):
        return f"select * from (\n{select}\n) where false"
    # A row without a key is for the gates to refuse.
    asked = f"coalesce(({keys}) in (select {keys} from differs), true)"
    return f"select * from (\n{select}\n) where {_named(work, asset.unique_key[0], columns)}{asked}"


def _named(work: Work, key: str, columns: Columns) -> str:
    """The keys of few rows by name. DuckDB takes a list of constants, and nothing but a list, down to where the key is
    read, and computes nothing for the other rows; a join stays above all of it."""
    kind = next(kind for name, kind in columns if name.lower() == key.lower())
    if kind.upper() not in _PLAIN:
        return ""
    values = [one for (one,) in work.session.rows(f"select distinct {ident(key)} from differs limit {_FEW + 1}")]
    if len(values) > _FEW or None in values or any("\0" in str(value) for value in values):
        return ""  # a NUL character cannot stand in SQL
    return f"{ident(key)} in ({', '.join(map(literal, values))}) and "
