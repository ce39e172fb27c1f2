"""Partitions that a person asks for: which ones a range means, and which of them are built already.

range       2026-11-01..2026-11-30, 2026-11-21, 2026-11-01.. or ..2026-11-30: values of the first column of partition_by
partition   one combination of values of partition_by; replaced as a whole, in a commit of its own
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ratatouille.errors import RequestError
from ratatouille.lake import Entry, QueryFailed, Session
from ratatouille.lake.quoting import ident, idents, member, table, text
from ratatouille.lake.types import Columns
from ratatouille.project.records import Asset


@dataclass(frozen=True, slots=True)
class Partition:
    """`label` as a person reads it; `where` is true for its rows."""

    label: str
    where: str


def label_of(asset: Asset) -> str:
    """An expression over a row: the label of its partition."""
    return _label([f"{ident(column)}::varchar" for column in asset.partition_by])


def _label(values: Sequence[str]) -> str:
    """Values as one label. Of several a / is written %2F: a/b and c are another partition than a and b/c."""
    plain = values if len(values) == 1 else [f"replace(replace({v}, '%', '%25'), '/', '%2F')" for v in values]
    return f"concat_ws('/', {', '.join(plain)})"


def in_quarantine(asset: Asset, labels: Sequence[str], kinds: Mapping[str, str]) -> str:
    """An expression over a row of the quarantine: whether it was kept out of one of these partitions.

    `kinds` are the types of the columns: JSON writes 1.50 as 1.5.
    """
    values = (f"json_extract_string(row, {member(column)})" for column in asset.partition_by)
    each = zip(asset.partition_by, values, strict=True)
    found = _label([f"try_cast({value} as {kinds.get(column, 'varchar')})::varchar" for column, value in each])
    return f"origin = 'gate' and {found} in ({', '.join(map(text, labels)) or 'null'})"


def asked_for(
    session: Session, asset: Asset, ranges: Sequence[str], select: str, columns: Columns, stands: bool
) -> list[Partition]:
    """Every partition in the ranges that the query gives rows of, or that the table has rows of, in order.

    Without a query (a Python asset) the days of a range, or the values themselves.
    """
    kinds = {name.lower(): kind for name, kind in columns}
    first = asset.partition_by[0]
    kind = kinds.get(first.lower(), "VARCHAR")
    for one in ranges:
        _refuse_backwards(session, asset, one, kind)
    wanted = " or ".join(_between(session, asset, one, kind) for one in ranges)
    try:
        if not select:
            return _spelled_out(session, asset, ranges, kind)
        names = idents(asset.partition_by)
        both = f"select {names} from (\n{select}\n) where {wanted}"
        both += f" union select {names} from {table(asset.name)} where {wanted}" if stands else ""
        shown = ", ".join(f"{ident(name)}::varchar" for name in asset.partition_by)
        label = label_of(asset)
        rows = session.rows(f"select {label}, {shown} from (select distinct {names} from ({both})) order by {names}")
    except QueryFailed as error:
        raise RequestError(
            f"{asset.name}: its partitions cannot be listed: {error.message}", where=asset.path, next="rat check"
        ) from error
    kinds_of = [kinds.get(name.lower(), "VARCHAR") for name in asset.partition_by]
    for label, *row in rows:
        if None in row:  # no condition below would find such a row, so no gate would see it
            raise RequestError(
                f"{asset.name}: there are rows without a {asset.partition_by[row.index(None)]}, so in no partition",
                where=f"{asset.path}, among those of {label}",
                next=f"mend the query, then the same again; rows that stand go with: rat run {asset.name} -f",
            )
    return [_partition(label, asset.partition_by, kinds_of, row) for label, *row in rows]


def _partition(label: str, columns: Sequence[str], kinds: Sequence[str], values: Sequence[str]) -> Partition:
    each = zip(columns, kinds, values, strict=True)
    where = " and ".join(f"{ident(column)} = {text(value)}::{kind}" for column, kind, value in each)
    return Partition(label, where)


def _between(session: Session, asset: Asset, said: str, kind: str) -> str:
    low, dots, high = said.partition("..")
    column, bounds = ident(asset.partition_by[0]), []
    for value, sign in ((low.strip(), ">=" if dots else "="), (high.strip(), "<=")):
        if not value:
            continue
        if session.value(f"select try_cast({text(value)} as {kind})") is None:
            raise RequestError(
                f"'{value}' is no value of {asset.partition_by[0]}, which is {kind}",
                where=f"{asset.name}, --partition {said}",
                next=f"rat run {asset.name} --partition A..B, with values like those of"
                f" rat query 'select distinct {asset.partition_by[0]} from {asset.name}'",
            )
        bounds.append(f"{column} {sign} {text(value)}::{kind}")
    if not bounds:
        raise RequestError(
            "'..' names no partition", where=f"{asset.name}, --partition {said}", next=f"rat run {asset.name} -f"
        )
    return f"({' and '.join(bounds)})"


def _refuse_backwards(session: Session, asset: Asset, said: str, kind: str) -> None:
    low, _, high = (part.strip() for part in said.partition(".."))
    if low and high and session.value(f"select try_cast({text(low)} as {kind}) > try_cast({text(high)} as {kind})"):
        raise RequestError(
            f"'{said}' ends before it begins",
            where=f"{asset.name}, --partition {said}",
            next=f"rat run {asset.name} --partition {high}..{low}",
        )


def _spelled_out(session: Session, asset: Asset, ranges: Sequence[str], kind: str) -> list[Partition]:
    first = asset.partition_by[:1]
    found: dict[str, Partition] = {}
    for said in ranges:
        low, dots, high = said.partition("..")
        if dots and not (kind == "DATE" and low.strip() and high.strip()):
            raise RequestError(
                f"{asset.name} is Python: which partitions lie in '{said}' only a day's type tells",
                where=f"{asset.path}, partition_by: {first[0]}",
                next=f"name them one by one, or declare columns: {{{first[0]}: date}} in its YAML file",
            )
        days = f"select unnest(generate_series({text(low)}::date, {text(high)}::date, interval 1 day))::date::varchar"
        values = [row[0] for row in session.rows(days)] if dots else [low.strip()]
        found |= {value: _partition(value, first, [kind], [value]) for value in values}
    return list(found.values())


def built_already(
    entries: Sequence[Entry], fingerprint: str, runs: Collection[str], *, any_run: bool
) -> Mapping[str, bool]:
    """Label -> whether that partition stands as it would be built now; '' for those that are not named.

    `entries` are the asset's, newest first. Unless `any_run` only what these `runs` built counts.
    """
    found: dict[str, bool] = {}
    for entry in entries:
        if entry.action in ("replay", "discard"):
            continue  # what it is built from is as it was
        counts = any_run or entry.run_id in runs
        if entry.action == "rollback" or "*" in entry.partitions:
            break
        if not entry.partitions:
            found[""] = counts and entry.fingerprint == fingerprint
            break
        for label, mark in entry.partitions.items():
            found.setdefault(label, counts and mark == fingerprint)
    return found
