"""How a table's columns may change: added ones join, removed or retyped ones stop the step until accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ratatouille.errors import RequestError, StepFailed, near_miss
from ratatouille.lake.types import Columns, storable
from ratatouille.project.records import Asset

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


@dataclass(frozen=True, slots=True)
class Change:
    add: Columns = ()
    drop: tuple[str, ...] = ()  # removed, or removed and added again with another type


def wanted_types(asset: Asset, columns: Sequence[tuple[str, str]], existing: Mapping[str, str]) -> dict[str, str]:
    """The type that each column gets: the declared one, else a wider one that stands, else its own."""
    declared = {column.name.lower(): column.type for column in asset.columns if column.type}
    standing = {name.lower(): kind for name, kind in existing.items()}
    wanted = {}
    for name, kind in columns:
        stands = standing.get(name.lower(), "")
        wanted[name] = declared.get(name.lower()) or (stands if fits_into(kind, stands) else kind)
    return wanted


def fits_into(kind: str, wider: str) -> bool:
    """Whether every value of type `kind` is a value of type `wider`, so that a cast changes nothing."""
    if kind == wider or not wider:
        return bool(wider)
    if kind == '"NULL"':
        return True
    if kind in _WHOLE and wider in _WHOLE:
        return _WHOLE.index(kind) < _WHOLE.index(wider)
    return (kind, wider) == ("FLOAT", "DOUBLE") or (kind in _WHOLE[:3] and wider == "DOUBLE")


def column_change(
    asset: Asset, existing: Mapping[str, str], columns: Columns, incremental: bool, accepted: bool
) -> Change:
    """What the table gains and loses. Raises StepFailed for a loss that nobody accepted."""
    if not existing:
        return Change()
    new = {name.lower(): (name, storable(kind)) for name, kind in columns}
    old = {name.lower(): (name, kind) for name, kind in existing.items()}
    add = tuple(new[key] for key in new if key not in old)
    removed = [old[key][0] for key in old if key not in new]
    retyped = [key for key in new if key in old and _same_type(new[key][1], old[key][1]) is False]
    if not removed and not retyped:
        return Change(add)
    if accepted and not incremental:
        return Change(add + tuple(new[key] for key in retyped), (*removed, *(old[key][0] for key in retyped)))
    said = [f"column {name} is gone" for name in removed]
    said += [f"column {old[key][0]} was {old[key][1]} and is {new[key][1]} now" for key in retyped]
    raise StepFailed(
        f"{asset.name}: its columns changed: {'; '.join(said)}",
        where=asset.path,
        next=f"mend the query, or accept the change with a rebuild: rat run {asset.name} -f --accept-schema",
    )


def _same_type(new: str, old: str) -> bool:
    return new.upper().replace(" ", "") == old.upper().replace(" ", "")


def missing_column(asset: Asset, name: str, known: Iterable[str]) -> RequestError:
    if name == "_file":
        return RequestError(
            f"{asset.name} reads landing files but drops _file, so a rewritten file could not replace its rows",
            where=asset.path,
            next=f"keep _file in the select (select * does), then: rat run {asset.name}",
        )
    return RequestError(
        f"{asset.name}: its query gives no column {name}.{near_miss(name, known)}",
        where=f"{asset.sidecar or asset.path}, column {name}",
        next=f"mend the query or the YAML file, then: rat run {asset.name}",
    )
