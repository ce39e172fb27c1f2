"""What each mode does with rows: which ones the query's rows become, which of the published ones go, what must hold.

The list of modes is project/modes.py. Nothing else in the engine asks what an asset's `materialize` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ratatouille.engine import history, intake
from ratatouille.engine.deduplicate import first_of_each_key, newest_of_each_key, without_late_losers
from ratatouille.engine.gates import Candidate
from ratatouille.engine.partitions import in_quarantine, label_of
from ratatouille.engine.reconcile import changed_rows
from ratatouille.errors import RequestError
from ratatouille.lake import ledger
from ratatouille.lake.quoting import idents, table, text
from ratatouille.lake.types import Columns
from ratatouille.project.modes import stores_rows
from ratatouille.project.records import ORIGIN_COLUMNS, Asset

if TYPE_CHECKING:
    from ratatouille.engine.work import Work

_LISTED_PARTITIONS = 1000  # more in one version are one star in the ledger


@dataclass(frozen=True, slots=True)
class Leaving:
    """Published rows that go: those for which `where` is true, and those with the `key` of a new row.

    `apart`: no published row that stays has the same values in these columns as a new one.
    """

    where: str = ""
    key: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


def leaving(work: Work) -> Leaving:
    asset = work.asset
    if not work.incremental or work.only_adds:
        return Leaving()
    if work.partition is not None:
        return Leaving(work.partition.where, apart=asset.partition_by)
    if work.gone is not None:
        keys = asset.unique_key
        return Leaving(f"({idents(keys)}) in (select {idents(keys)} from ({work.gone.relation}))", keys, keys)
    files = f'"_file" in ({", ".join(map(text, work.replaced_files))})' if work.replaced_files else ""
    if work.emptied:
        files = f"{label_of(asset)} in ({', '.join(map(text, work.emptied))})"
    key = {"merge": asset.unique_key, "snapshot": asset.unique_key, "partition": asset.partition_by}
    going = key.get(asset.materialize, ())
    return Leaving(files, going, going)


def others(work: Work) -> str:
    """The rows of the published table that stay, as a SELECT; '' for a full build."""
    if not work.incremental:
        return ""
    gone = leaving(work)
    goes = [gone.where] if gone.where else []
    if gone.key and work.built.files:
        goes.append(f"({idents(gone.key)}) in (select {idents(gone.key)} from ({work.built.relation}))")
    stays = " and ".join(f"not coalesce({one}, false)" for one in goes) or "true"
    return f"select * from {table(work.asset.name)} where {stays}"


def candidate(work: Work) -> Candidate:
    """What gates look at; docs/decisions/0003 says why not the table inside the commit."""
    if work.staged is None:
        return Candidate(delta=work.select, whole=work.select)
    stay = others(work)
    whole = f"{stay} union all by name {work.staged.relation}" if stay else work.staged.relation
    return Candidate(work.staged.relation, whole, stay, work.staged, leaving(work).key)


def keys(asset: Asset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(columns that are never null, columns that are unique together), declared or not."""
    if not stores_rows(asset):
        return (), ()
    once = (*asset.unique_key, "valid_from") if asset.materialize == "snapshot" else asset.unique_key
    there = asset.partition_by if asset.materialize == "partition" else ()
    return tuple(dict.fromkeys((*once, *there))), once


def columns_of(asset: Asset, columns: Columns) -> Columns:
    """The columns of the table of a query with these."""
    return history.columns_of(asset, columns) if asset.materialize == "snapshot" else columns


def reshapes(work: Work) -> bool:
    """Whether the candidate has other rows than the query, or in another order."""
    return bool(changes_rows(work) or work.asset.partition_by or work.asset.sort_by)


def changes_rows(work: Work) -> bool:
    """Whether the candidate has other rows than the query."""
    asset = work.asset
    other = asset.deduplicate or work.partition or asset.materialize == "snapshot"
    return bool(other or asset.deletions == "remove")


def shaped(work: Work, select: str, columns: Columns) -> str:
    """The rows of the candidate, from those of the query."""
    asset = work.asset
    if work.partition is not None:
        select = f"select * from (\n{select}\n) where {work.partition.where}"
    if asset.materialize == "snapshot":
        return history.history(work, select, columns)
    if asset.deduplicate:
        # Landing files are parsed once, whatever it costs in memory.
        rows = None if work.landing.files or work.incremental else work.planned.rows
        select = first_of_each_key(work.session, asset, select, rows)
        if work.incremental and asset.materialize != "partition":
            select = without_late_losers(work.session, asset, select, work.existing)
    elif asset.deletions == "remove":
        return changed_rows(work, select, columns) if work.incremental else select
    elif asset.materialize == "merge" and "_loaded_at" in dict(columns):
        if asset.sources and "_file" in dict(columns):
            if len(work.landing.files) > 1:
                select = newest_of_each_key(asset, select, _loads(work))
        elif not work.incremental:
            select = newest_of_each_key(asset, select)
    return select


def _loads(work: Work) -> dict[str, str]:
    """Of landing files whose bytes were read before: which version brought them, so that it sorts by age."""
    known = intake.read_before(work)
    if not known:
        return {}
    versions = {entry.run_id: entry.version for entry in ledger.entries(work.session, work.asset.name)}
    return {file: f"{versions.get(run_id, 0):020}" for file, run_id in known.items()}


def refuse_loss(work: Work) -> None:
    """Before a table is replaced whose rows no query gives again."""
    if work.incremental or work.request.accept_loss:
        return
    if work.asset.materialize == "snapshot":
        history.refuse_loss(work)
    elif work.asset.materialize == "append" and (work.reads_changes or work.asset.tables):
        _refuse_lost_rows(work)


def _refuse_lost_rows(work: Work) -> None:
    """RequestError when the candidate lacks rows that were appended: what changed, and other databases, forget."""
    there = {name.lower() for name, _ in work.built.columns}
    both = [name for name in work.existing if name.lower() in there and name not in ORIGIN_COLUMNS]
    if not both:
        return
    published, given = (
        f"select {idents(both)} from {one}" for one in (table(work.asset.name), f"({work.built.relation})")
    )
    n_lost = int(work.session.value(f"select count(*) from ({published} except all {given})"))
    if n_lost:
        raise RequestError(
            f"{work.asset.name}: a rebuild would lose {n_lost:,} of its rows, which its inputs do not give any more",
            where=work.asset.path,
            next=f"keep them, and go on from here: on_change: forward in its YAML file; or let them go:"
            f" rat run {work.asset.name} -f --accept-loss",
        )


def partitions_of(work: Work, fingerprint: str) -> dict[str, str]:
    """The partitions that this candidate replaces, with what they are built from."""
    if work.partition is not None:
        return {work.partition.label: fingerprint}
    if work.asset.materialize != "partition" or not work.incremental:
        return {}
    labels = f"select distinct {label_of(work.asset)} from ({work.built.relation}) limit {_LISTED_PARTITIONS + 1}"
    found = sorted({*(row[0] for row in work.session.rows(labels)), *work.emptied})
    return dict.fromkeys(found if len(found) <= _LISTED_PARTITIONS else ["*"], fingerprint)


def quarantine_goes(work: Work) -> str:
    """Which of the asset's rows in the quarantine go with the rows that are replaced; '' for none."""
    asset = work.asset
    if asset.on_fail != "quarantine" and not asset.sources:
        return ""
    if not work.incremental:
        return "true"
    goes = f"file in ({', '.join(map(text, work.replaced_files))})" if work.replaced_files else ""
    if asset.materialize != "partition":
        return goes
    return in_quarantine(asset, list(partitions_of(work, "")), dict(work.built.columns))
