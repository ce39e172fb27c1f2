"""History: what a snapshot keeps (SCD2). Every state of a row, with the time from which and to which it was so.

observation   a row of the query: its key was so from `updated_at` on, or from the run that saw it first
closing       a key that is no longer in the source: its last state ends at the run that saw that

A history is a fold over observations and closings in the order of their times, not of their arrival, so late rows
find their place, and the same rows in any split and order give the same table. Observations are never thrown
away, even when nothing changed: a late one may fall between them. What a step writes is the whole history of the
keys that it touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ratatouille.engine.deduplicate import first_of_each_key, without_late_losers
from ratatouille.errors import RequestError
from ratatouille.lake import Session
from ratatouille.lake.quoting import ident, idents, literal, table
from ratatouille.lake.types import Columns
from ratatouille.project.modes import HISTORY
from ratatouille.project.records import ORIGIN_COLUMNS, Asset

if TYPE_CHECKING:
    from ratatouille.engine.work import Work


def columns_of(asset: Asset, columns: Columns) -> Columns:
    """The columns of a query, and those of its history. RequestError where they cannot be."""
    names = {name.lower(): kind for name, kind in columns}
    for column in HISTORY:
        if column in names:
            raise RequestError(
                f"{asset.name}: its query gives a column {column}, and a snapshot adds one of that name",
                where=f"{asset.path}, column {column}",
                next=f"rename it in the query, then: rat run {asset.name}",
            )
    kind = names.get(asset.updated_at.lower(), "TIMESTAMP")
    if asset.updated_at and kind != "DATE" and not kind.startswith("TIMESTAMP"):
        raise RequestError(
            f"{asset.name}: updated_at names {asset.updated_at}, which is {kind} and neither a day nor a time",
            where=f"{asset.sidecar}, updated_at",
            next=f"cast it in the query, e.g. {asset.updated_at}::timestamp, then: rat run {asset.name}",
        )
    kind = kind if kind == "TIMESTAMP WITH TIME ZONE" else "TIMESTAMP"
    return (*columns, ("valid_from", kind), ("valid_to", kind), ("is_current", "BOOLEAN"))


def history(work: Work, select: str, columns: Columns) -> str:
    """The history of every key that this step touches, as a SELECT."""
    asset, session = work.asset, work.session
    names, keys = [name for name, _ in columns], idents(asset.unique_key)
    kind = dict(columns_of(asset, columns))["valid_from"]
    now = f"{literal(work.started_at)}::{kind}"
    known = set(HISTORY) <= {name.lower() for name in work.existing} if work.incremental else False
    common = [name for name in names if name.lower() in {n.lower() for n in work.existing}] if known else names
    _put_standing(session, asset, columns_of(asset, columns), common if known else [])
    said = [name for name in names if name.lower() not in ORIGIN_COLUMNS]
    shared = [name for name in said if name in common]
    work.rows_seen = _put_observed(work, select, kind, now, shared)
    _put_arrived(session, asset, names, said, shared)
    _put_closing(session, asset, now)
    session.execute(
        f"create or replace temp table kept as select * from standing where ({keys}) in"
        f" (select {keys} from arrived union select {keys} from closing)"
    )
    replaced = asset.deduplicate or common != names
    stay = f" where ({keys}, valid_from) not in (select {keys}, valid_from from arrived)" if replaced else ""
    ended = (
        f"select {keys}, valid_to as valid_from from kept k where valid_to is not null and not exists"
        f" (select 1 from kept n where {_same('k', 'n', asset.unique_key)} and n.valid_from = k.valid_to)"
    )
    events = [
        f"select {idents(names)}, valid_from, false as _rat_gone from kept{stay}",
        f"select {idents(names)}, valid_from, false as _rat_gone from arrived",
        f"select *, true as _rat_gone from ({ended})",
        f"select {keys}, ended_at as valid_from, true as _rat_gone from closing",
    ]
    # What is gone ends a state and is none: it comes before a state that begins at the same moment.
    folded = f"select *, lead(valid_from) over (partition by {keys} order by valid_from, _rat_gone desc) as valid_to"
    return (
        f"select {idents(names)}, valid_from, valid_to, valid_to is null as is_current"
        f" from ({folded} from ({' union all by name '.join(events)})) where not _rat_gone"
    )


def _put_standing(session: Session, asset: Asset, columns: Columns, common: Sequence[str]) -> None:
    """`standing`: the published history, in the columns that the query gives now; none of it without `common` ones."""
    there = {*common, *(HISTORY if common else ())}
    listed = ", ".join(
        ident(name) if name in there else f"cast(null as {kind}) as {ident(name)}" for name, kind in columns
    )
    rows = f"from {table(asset.name)}" if common else "where false"
    session.execute(f"create or replace temp view standing as select {listed} {rows}")


def _put_observed(work: Work, select: str, kind: str, now: str, shared: Sequence[str]) -> int:
    """`observed`: the rows of the query with their time; how many they are."""
    asset, session, keys = work.asset, work.session, idents(work.asset.unique_key)
    if asset.deduplicate:
        moments = replace(asset, unique_key=(*asset.unique_key, asset.updated_at))
        select = first_of_each_key(session, moments, select, None)
        if work.incremental:
            select = without_late_losers(session, moments, select, work.existing)
    at = f"{ident(asset.updated_at)}::{kind}" if asset.updated_at else now
    rows = f"select *, {at} as valid_from from (\n{select}\n)"
    if asset.deletions == "close":
        # All rows are here, so the last one of a key is what is so now, however old it says it is: after the key was
        # gone, or when it was changed without a new time, it is so from this run on.
        since = "coalesce(max(valid_from) filter (valid_to is null), max(valid_to))"
        stood = f"select {keys}, {since} as _rat_since from standing group by all"
        is_so = "select *, true as _rat_so from standing where valid_to is null"
        last = f"o.valid_from = max(o.valid_from) over (partition by {', '.join(f'o.{ident(k)}' for k in asset.unique_key)})"
        again = f"coalesce(o.valid_from <= g._rat_since and s._rat_so is null and {last}, false)"
        rows = (
            f"select o.* replace (case when {again} then {now} else o.valid_from end as valid_from), {again} as _rat_again"
            f" from ({rows}) o left join ({stood}) g on {_same('o', 'g', asset.unique_key)}"
            f" left join ({is_so}) s on {_same('o', 's', shared)}"
        )
    else:
        rows = f"select *, false as _rat_again from ({rows})"
    session.execute(f"create or replace temp table observed as {rows}")
    return int(session.value("select count(*) from observed"))


def _put_arrived(
    session: Session, asset: Asset, names: Sequence[str], said: Sequence[str], shared: Sequence[str]
) -> None:
    """`arrived`: observations that the history does not hold yet, each once. Where a row came from is no difference."""
    rivals = "select * from standing" if asset.updated_at else "select * from standing where valid_to is null"
    # Its time is among what is said, and the same state may have begun later than that: the key was gone meanwhile.
    told = not asset.updated_at or asset.updated_at.lower() in (name.lower() for name in shared)
    same = _same("o", "s", shared if told else [*shared, "valid_from"])
    session.execute(
        "create or replace temp table arrived as"
        # Not one condition of the join more: an anti join with any other is a nested loop.
        f" select o.* exclude (_rat_again) from (select * from observed where not _rat_again) o anti join ({rivals}) s on {same}"
        " union all select * exclude (_rat_again) from observed where _rat_again"
    )
    if len(shared) < len(said):
        # A column is new: states that the query still gives get its value, and stay the states that they were.
        fuller = " or ".join(f"o.{ident(name)} is not null" for name in said if name not in shared)
        session.execute(
            f"insert into arrived by name select o.* exclude (_rat_again) replace (s.valid_from as valid_from)"
            f" from observed o join ({rivals}) s on {same} where {fuller}"
        )
    moments = f"hash({idents((*asset.unique_key, 'valid_from'))})"
    if session.value(f"select count(*) = count(distinct {moments}) from arrived"):
        return
    origin = ", ".join(ident(name) for name in names if name.lower() in ORIGIN_COLUMNS)
    session.execute(
        f"create or replace temp table again as select * from arrived qualify row_number() over"
        f" (partition by {idents([*said, 'valid_from'])}{' order by ' + origin if origin else ''}) = 1"
    )
    session.execute("create or replace temp table arrived as select * from again")


def _put_closing(session: Session, asset: Asset, now: str) -> None:
    """`closing`: keys that the history says are there and the query does not give, with the time of their end."""
    keys = idents(asset.unique_key)
    gone = f"select {keys}, greatest({now}, valid_from + interval 1 microsecond) as ended_at from standing s"
    gone += f" anti join observed o on {_same('o', 's', asset.unique_key)} where s.valid_to is null"
    where = "" if asset.deletions == "close" else " and false"
    session.execute(f"create or replace temp table closing as {gone}{where}")


def _same(left: str, right: str, columns: Sequence[str]) -> str:
    return " and ".join(f"{left}.{ident(c)} is not distinct from {right}.{ident(c)}" for c in columns)


def refuse_loss(work: Work) -> None:
    """RequestError when the candidate lacks states of the published history: its inputs do not tell them any more."""
    asset = work.asset
    known = {name.lower() for name in work.existing}
    if not set(HISTORY) <= known:
        return
    lost = f"select count(*) from {table(asset.name)} p"
    if {key.lower() for key in asset.unique_key} <= known:
        lost += f" anti join ({work.built.relation}) c on {_same('p', 'c', (*asset.unique_key, 'valid_from'))}"
    n_lost = int(work.session.value(lost))
    if n_lost:
        raise RequestError(
            f"{asset.name}: a rebuild would lose {n_lost:,} states of its history, which its inputs do not tell any more",
            where=asset.path,
            next=f"keep them, and go on from here: on_change: forward in its YAML file; or let them go:"
            f" rat run {asset.name} -f --accept-loss",
        )
