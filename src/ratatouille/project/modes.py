"""Modes: the ways in which an asset's rows become its table, and what each of them asks of the files.

This is the one list of them. What a mode does with rows is in engine/modes.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratatouille.project.records import Asset
    from ratatouille.project.yaml_models import AssetModel

HISTORY = ("valid_from", "valid_to", "is_current")  # the columns that a snapshot adds


@dataclass(frozen=True, slots=True)
class Mode:
    """`grows`: a later run adds to what stands, or replaces a part of it. `always`: of a query that does not ask
    is_incremental() too."""

    doc: str
    grows: bool = False
    always: bool = True
    stores_rows: bool = True
    reads_landing: bool = True
    keeps_rows_out: bool = True  # on_fail: quarantine
    needs: tuple[str, ...] = ()  # keys of the sidecar
    knows: tuple[str, ...] = ()  # keys that no other mode has
    deletions: tuple[str, ...] = ()  # what `deletions` may say


MODES: Mapping[str, Mode] = {
    "table": Mode("all rows anew each time"),
    "view": Mode("no rows: the query runs when it is read", stores_rows=False, reads_landing=False, keeps_rows_out=False),
    "append": Mode("new rows are added", grows=True),
    "merge": Mode("rows with a known unique_key replace the old ones, others are added", grows=True, needs=("unique_key",), deletions=("keep", "remove")),
    "partition": Mode(
        "whole partitions are replaced: those that the query gives, or those that were asked for",
        grows=True, always=False, reads_landing=False, needs=("partition_by",),
    ),
    "snapshot": Mode(
        "every state of a row is kept, with the time from which and to which it was so",
        grows=True, reads_landing=False, keeps_rows_out=False,
        needs=("unique_key",), knows=("updated_at",), deletions=("keep", "close"),
    ),
}  # fmt: skip

_EXAMPLES = {
    "unique_key": "say which columns identify a row: unique_key: id",
    "partition_by": "say which column says the partition of a row: partition_by: day",
}


def stores_rows(asset: Asset) -> bool:
    return MODES[asset.materialize].stores_rows


def grows(asset: Asset) -> bool:
    """Whether a later run adds to what stands."""
    mode = MODES[asset.materialize]
    return mode.grows and (mode.always or asset.incremental)


def mistakes(model: AssetModel, kind: str) -> Iterator[tuple[str, str, str]]:
    """(key, what is wrong with it, hint) for every combination of keys that cannot be."""
    name, mode, given = model.materialize, MODES[model.materialize], model.model_fields_set
    for key in mode.needs:
        if not getattr(model, key):
            yield "materialize", f"{name} needs a {key}", _EXAMPLES[key]
    for other, its in MODES.items():
        for key in its.knows:
            if key in given and other != name:
                yield (
                    key,
                    f"only a {other} knows {key}, and this is a {name}",
                    f"use materialize: {other}, or remove it",
                )
    if "deletions" in given and model.deletions not in mode.deletions:
        others = ", ".join(f"{other}: {' or '.join(its.deletions)}" for other, its in MODES.items() if its.deletions)
        yield "deletions", f"a {name} knows no deletions: {model.deletions}", f"it is known by {others}"
    if model.deletions == "remove":
        if model.deduplicate:
            yield "deduplicate", "with deletions: remove the query gives each key once", "pick the row in the query"
        if model.on_fail == "quarantine":
            hint = "use on_fail: block, and keep bad rows out in the query"
            yield "on_fail", "with deletions: remove a row that is kept out would come again each time", hint
    if kind == "seed" and name != "table":
        yield "materialize", "seed data is always a table", "remove materialize"
    if not mode.stores_rows:
        for key in (key for key in ("partition_by", "sort_by") if getattr(model, key)):
            yield key, f"a {name} stores no rows, so it has no files to lay out", f"remove {key}"
    if model.on_fail == "quarantine" and not mode.keeps_rows_out:
        reason = "would have a hole in its history" if mode.stores_rows else "stores no rows, so none can be kept out"
        hint = "use on_fail: quarantine in the asset that it reads" if mode.stores_rows else "use on_fail: block"
        yield "on_fail", f"a {name} {reason}", hint
    if name == "snapshot" and model.deduplicate and not model.updated_at:
        yield "deduplicate", "a snapshot without updated_at has one row for each key", "say updated_at, or remove it"
    if "on_change" in given and not mode.grows:
        yield "on_change", f"a {name} is always built whole, so it has no history to keep", "remove on_change"
