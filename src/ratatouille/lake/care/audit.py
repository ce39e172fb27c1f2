"""The audit: every file of the lake against its size and checksum, and the catalog against the ledger.

The checksums are those of the ledger, taken when the files were published. Delete files are DuckLake's own and have
none: they are read, and their rows counted. What a killed compaction left without one is said, and is no damage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ratatouille.errors import RatError
from ratatouille.lake import artifacts, ledger
from ratatouille.lake.care.upkeep import TABLE_NAMES
from ratatouille.lake.connect import Lake, Storage
from ratatouille.lake.journal import Journal
from ratatouille.lake.quoting import METADATA, text
from ratatouille.lake.session import Session
from ratatouille.lake.stage import glob_safe
from ratatouille.lake.verify import what_is_wrong
from ratatouille.lake.versions import standing


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as the catalog has it. `path` is below the data folder; `rows` those in it, or those that it deletes."""

    asset: str
    path: str
    bytes: int
    rows: int
    current: bool
    deletes: bool
    sha256: str  # "" where the ledger knows none


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it was published. severity: error | warn."""

    asset: str
    where: str  # the file, or the table
    what: str
    current: bool = True  # whether readers of the current version meet it
    severity: str = "error"


def stored_files(session: Session, *, every_version: bool) -> list[StoredFile]:
    """The files of the current versions of all tables, or of all versions, in the order of assets."""
    now = session.snapshot
    parts = []
    for kind, rows in (("data", "record_count"), ("delete", "delete_count")):
        # Emptying a table ends its data files, and leaves their delete files as if they were in use.
        ended = (
            f"(select coalesce(max(coalesce(d.end_snapshot, {1 << 62})), 0) from {METADATA}.ducklake_data_file d"
            " where d.data_file_id = f.data_file_id)"
        )
        end = f"least(f.end_snapshot, {ended})" if kind == "delete" else "f.end_snapshot"
        parts.append(
            f"select n.name, case when f.path_is_relative then s.path || t.path || f.path else f.path end as path,"
            f" f.file_size_bytes as size, f.{rows} as n, f.begin_snapshot <= {now}"
            f" and coalesce({end}, {now + 1}) > {now} as live, {kind == 'delete'} as deletes"
            f" from {METADATA}.ducklake_{kind}_file f join {METADATA}.ducklake_table t using (table_id)"
            f" join {METADATA}.ducklake_schema s using (schema_id) join ({TABLE_NAMES}) n using (table_id)"
        )
    known = (
        f"select distinct file.path as path, file.sha256 as sha256 from (select unnest(from_json(manifest,"
        f' \'[{{"path": "VARCHAR", "sha256": "VARCHAR"}}]\')) as file from {ledger.LEDGER})'
    )
    some = "true" if every_version else "live"
    rows_ = session.rows(
        f"select distinct name, path, size, n, live, deletes, coalesce(sha256, '')"
        f" from ({' union all '.join(parts)}) left join ({known}) using (path) where {some} order by all"
    )
    return [StoredFile(*row) for row in rows_]


def damaged_files(
    lake: Lake,
    journal: Journal,
    found: Sequence[StoredFile],
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Damage]:
    """Every file that is gone, has another size or other bytes. `progress` is told the bytes read so far."""
    whole, done, files = [], 0, lake.storage.files
    there = files.sizes({file.asset.replace(".", "/", 1) for file in found}, [file.path for file in found])
    for file in found:
        said = what_is_wrong(files, file.path, file.bytes, there.get(file.path), file.sha256)
        if not said and file.deletes:
            said = _unreadable_deletes(lake, file)
        done += file.bytes
        progress(done)
        if said:
            yield Damage(file.asset, file.path, said, file.current)
        elif file.sha256:
            whole.append(file.path)
        elif not file.deletes and not file.asset.startswith(f"{ledger.SCHEMA}."):
            why = "the ledger has no checksum of it (a compaction was stopped); rat clean enters it"
            yield Damage(file.asset, file.path, why, file.current, "warn")
    journal.note_verified(whole)


def _unreadable_deletes(lake: Lake, file: StoredFile) -> str:
    path, rows = lake.storage.files.absolute(file.path), file.rows
    try:
        with lake.session("reading a delete file") as session:  # of its own: an error ends the transaction
            counted = session.value(f"select count(pos) from read_parquet({text(glob_safe(path))})")
    except RatError:
        return "it cannot be read"
    return "" if counted == rows else f"it deletes {counted:,} rows instead of {rows:,}"


def disagreements(session: Session, found: Sequence[StoredFile], assets: Sequence[str] | None) -> Iterator[Damage]:
    """Where the catalog and the ledger say different things of what is current."""
    kinds, heads = standing(session), ledger.heads(session)
    rows: dict[str, int] = {}
    for file in found:
        if file.current:
            rows[file.asset] = rows.get(file.asset, 0) + (-file.rows if file.deletes else file.rows)
    for name, head in sorted(heads.items()):
        if (assets is not None and name not in assets) or head.materialize == "artifact":
            continue
        kind = kinds.get(name)
        if kind is None:
            if assets is not None:
                yield Damage(name, name, f"the ledger has version {head.version} of it, and no table stands")
            continue
        if kind == "table" and head.materialize != "view" and rows.get(name, 0) != head.rows_total:
            yield Damage(name, name, f"it has {rows.get(name, 0):,} rows, and the ledger says {head.rows_total:,}")
    for name in sorted(set(kinds) - set(heads)):
        if not name.startswith((f"{ledger.SCHEMA}.", "main.")) and (assets is None or name in assets):
            yield Damage(name, name, "the catalog has it, and the ledger does not", severity="warn")


def damaged_artifacts(storage: Storage, assets: Sequence[str] | None, *, every_version: bool) -> Iterator[Damage | int]:
    """What is wrong with artifacts, and for each one that is whole its bytes."""
    for name in artifacts.names(storage):
        if assets is not None and name not in assets:
            continue
        try:
            known = artifacts.published(storage, name)
        except RatError as error:
            yield Damage(name, error.where, error.what)
            continue
        for folder in dict.fromkeys(one.folder for one in (known if every_version else known[-1:])):
            try:
                yield sum(file["bytes"] for file in artifacts.shelf_of(storage, name).check(folder)["files"])
            except RatError as error:
                yield Damage(
                    name, error.where.partition(": ")[0], error.where.partition(": ")[2], folder == known[-1].folder
                )
