"""Upkeep of the catalog: take old versions out of it, delete the files that nothing names any more, merge small ones.

expired     a version that the catalog no longer has: it cannot be read or brought back; the ledger still tells of it
scheduled   a file that no version needs any more. It stays on the disk for a while: somebody may be reading it
compacted   small files of a table made into one, in a commit of its own. The rows stay the same, and so do its
            earlier versions: a merged file knows which of its rows each of them had
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ratatouille.errors import LakeError
from ratatouille.lake import ledger
from ratatouille.lake.catalogs.lock import exclusive
from ratatouille.lake.connect import Lake, Storage
from ratatouille.lake.faults import explain
from ratatouille.lake.journal import Journal
from ratatouille.lake.layout import Layout, layout_of
from ratatouille.lake.places import Files
from ratatouille.lake.places.durable import make_private
from ratatouille.lake.publish import Publication, Superseded, commit_and_prove, publish, say_who
from ratatouille.lake.quoting import LAKE, METADATA, literal, table, text
from ratatouille.lake.session import Session
from ratatouille.lake.stage import attempt_folder, discard, seal, stage
from ratatouille.lake.versions import table_columns

# Files below this size are worth merging, from so many on.
SMALL_FILE_BYTES = 16 << 20
MANY_FILES = 8
# Rewriting a file for a few deleted rows costs more than reading around them, unless all of it is small.
_REWRITE_FREELY_BYTES = 256 << 20
_REWRITE_SHARE = 0.25
COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Freed:
    """Files that a table would lose."""

    asset: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Crowded:
    """A table whose current version is in many small files, or whose files have many deleted rows."""

    asset: str
    files: int  # that are small
    bytes: int
    deletes: int  # delete files
    deletes_bytes: int  # of the files that they belong to


def versions(session: Session) -> set[int]:
    """Every version that can be read."""
    return {row[0] for row in session.rows(f"select snapshot_id from {METADATA}.ducklake_snapshot")}


def current_since(session: Session, moment: datetime) -> set[int]:
    """Versions that were the lake's newest at some time after `moment` (UTC): somebody may be reading them still."""
    rows = session.rows(
        f"select snapshot_id from (select snapshot_id, lead(snapshot_time::timestamptz) over (order by snapshot_id)"
        f" as until from {METADATA}.ducklake_snapshot) where until is null or until > {literal(moment)} at time zone 'UTC'"
    )
    return {row[0] for row in rows}


def kept_by_rule(
    session: Session, default: tuple[int, float], rules: Mapping[str, tuple[int, float]], now: datetime
) -> set[int]:
    """Versions that are among the newest so many of their asset, or younger than so many days: (versions, days)."""
    listed = ", ".join(f"({text(asset)}, {n}, {literal(float(days))})" for asset, (n, days) in rules.items())
    rows = session.rows(
        f"with rules(asset, n, days) as (values {listed or '(null, null, null)'}),"
        f" ranked as (select asset, snapshot_id, published_at,"
        f" row_number() over (partition by asset order by snapshot_id desc) as place"
        f" from {ledger.LEDGER} where materialize <> 'view' and action <> '{COMPACT}')"
        f" select distinct snapshot_id from ranked left join rules using (asset)"
        f" where place <= coalesce(n, {int(default[0])})"
        f" or published_at > {literal(now)} - to_seconds(86400 * coalesce(days, {literal(float(default[1]))}))"
    )
    return {row[0] for row in rows}


def dropped_since(session: Session, moment: datetime) -> set[str]:
    """Tables that a commit after `moment` (UTC) has ended. One whose end has expired itself is not among them."""
    rows = session.rows(
        f"select distinct s.schema_name || '.' || t.table_name from {METADATA}.ducklake_table t"
        f" join {METADATA}.ducklake_schema s using (schema_id)"
        f" join {METADATA}.ducklake_snapshot e on e.snapshot_id = t.end_snapshot"
        f" where e.snapshot_time::timestamptz > {literal(moment)} at time zone 'UTC'"
    )
    return {row[0] for row in rows}


def freed_by(session: Session, gone: Collection[int]) -> list[Freed]:
    """What the tables would lose if the versions `gone` expired."""
    left = f"select snapshot_id from {METADATA}.ducklake_snapshot where snapshot_id not in ({_numbers(gone)})"
    files = " union all ".join(
        f"select table_id, file_size_bytes from {METADATA}.ducklake_{kind}_file f where end_snapshot is not null"
        f" and not exists (select 1 from ({left}) s where s.snapshot_id >= f.begin_snapshot"
        f" and s.snapshot_id < f.end_snapshot)"
        for kind in ("data", "delete")
    )
    rows = session.rows(
        f"select n.name, count(*), sum(file_size_bytes)::bigint from ({files}) join ({TABLE_NAMES}) n using (table_id)"
        f" group by all order by all"
    )
    return [Freed(*row) for row in rows]


def published_at(session: Session, gone: Collection[int]) -> dict[str, list[int]]:
    """asset -> which of the versions `gone` are its own."""
    rows = session.rows(
        f"select asset, list(snapshot_id order by snapshot_id) from {ledger.LEDGER}"
        f" where snapshot_id in ({_numbers(gone)}) group by asset order by asset"
    )
    return dict(rows)


# A table has one row for each shape it had.
TABLE_NAMES = (
    f"select t.table_id, arg_max(s.schema_name || '.' || t.table_name, t.begin_snapshot) as name"
    f" from {METADATA}.ducklake_table t join {METADATA}.ducklake_schema s using (schema_id) group by t.table_id"
)


def expire(lake: Lake, gone: Collection[int]) -> None:
    """Take versions out of the catalog, in one commit. The newest one is refused."""
    with exclusive(lake.storage.catalog, "expiring versions"), lake.session("expiring versions") as session:
        session.execute("begin transaction")
        if session.snapshot in gone:
            raise LakeError("the newest version never expires", where=f"version {session.snapshot}", next="rat clean")
        session.execute(f"call ducklake_expire_snapshots({text(LAKE)}, versions => [{_numbers(gone)}])")
        session.execute("commit")
        left = versions(session) & set(gone)
    if left:
        raise LakeError(f"{len(left)} versions did not expire", where=str(sorted(left)[:5]), next="rat clean")


def scheduled(session: Session, storage: Storage) -> list[tuple[str, int, datetime]]:
    """Files that no version needs: path below the data folder, bytes (0: gone already), since when (UTC)."""
    rows = session.rows(
        f"select path, path_is_relative, schedule_start::timestamptz::timestamp"
        f" from {METADATA}.ducklake_files_scheduled_for_deletion order by path"
    )
    files = storage.files
    found = [(path if relative else files.relative(path), since) for path, relative, since in rows]
    folders = {"/".join(path.split("/")[:2]) for path, _ in found}
    there = files.sizes(folders, [path for path, _ in found])
    return [(path, there.get(path, 0), since) for path, since in found]


def delete_scheduled(lake: Lake, before: datetime) -> None:
    """Delete the files that no version has needed since `before` (UTC), and the folders that are empty then."""
    storage = lake.storage
    with exclusive(storage.catalog, "deleting old files"), lake.session("deleting old files") as session:
        folders = {os.path.dirname(path) for path, _, since in scheduled(session, storage) if since < before}
        until = f"{literal(before)} at time zone 'UTC'"
        session.execute(f"call ducklake_cleanup_old_files({text(LAKE)}, older_than => {until})")
    for folder in folders:
        if len(folder.split("/")) > 2:
            storage.files.remove_folder(folder)  # an attempt's own, if it is empty; a table's stays


def named_files(session: Session, storage: Storage) -> set[str]:
    """Every file that the catalog knows of, by its whole path: of all versions, and those that wait for their end."""
    inside = " union all ".join(
        f"select case when f.path_is_relative then s.path || t.path || f.path else f.path end"
        f" from {METADATA}.ducklake_{kind}_file f join {METADATA}.ducklake_table t using (table_id)"
        f" join {METADATA}.ducklake_schema s using (schema_id)"
        for kind in ("data", "delete")
    )
    waiting = f"select path from {METADATA}.ducklake_files_scheduled_for_deletion"
    return {storage.files.absolute(path) for (path,) in session.rows(f"{inside} union all {waiting}")}


# Compaction


def crowded(session: Session, assets: Collection[str]) -> list[Crowded]:
    """The tables of `assets` that are worth compacting."""
    now = session.snapshot
    live = f"f.begin_snapshot <= {now} and coalesce(f.end_snapshot, {now + 1}) > {now}"
    names = ", ".join(text(asset) for asset in assets) or "null"
    rows = session.rows(
        f"with deleting as (select f.data_file_id from {METADATA}.ducklake_delete_file f where {live}),"
        f" parts as (select data_file_id, string_agg(coalesce(partition_value, ''), '/' order by partition_key_index)"
        f" as part from {METADATA}.ducklake_file_partition_value group by 1),"
        f" files as (select n.name, f.file_size_bytes as size, f.data_file_id in (from deleting) as deletes, part"
        f" from {METADATA}.ducklake_data_file f join ({TABLE_NAMES}) n using (table_id)"
        f" left join parts using (data_file_id) where {live} and n.name in ({names}))"
        # A table that is cut by partitions has a file for each of them: those are not too many.
        f" select name, count(*) filter (size < {SMALL_FILE_BYTES}) - count(distinct part),"
        f" coalesce(sum(size) filter (size < {SMALL_FILE_BYTES}), 0)::bigint, count(*) filter (deletes),"
        f" coalesce(sum(size) filter (deletes), 0)::bigint from files group by name order by name"
    )
    found = [Crowded(*row) for row in rows]
    return [one for one in found if max(one.files, one.deletes) >= MANY_FILES]


def compact(lake: Lake, journal: Journal, run_id: str, one: Crowded, token: int) -> None:
    """Merge the small files of a table, under its lease.

    Files with deleted rows are rewritten first: DuckLake merges only whole ones. It makes no other change in such a
    commit, so the checksums of the new files come in one of their own; `unsealed` finds what a kill left without.
    """
    with lake.session(f"compacting {one.asset}") as session:
        layout = layout_of(session, one.asset)
    if layout.partition_by:
        _lay_out_anew(lake, journal, run_id, one.asset, layout, token)
        return
    place = f"{text(LAKE)}, {text(one.asset.partition('.')[2])}, schema => {text(one.asset.partition('.')[0])}"
    if one.deletes >= MANY_FILES:
        share = 0.0 if one.deletes_bytes < _REWRITE_FREELY_BYTES else _REWRITE_SHARE
        call = f"call ducklake_rewrite_data_files({place}, delete_threshold => {share})"
        _rewrite(lake, journal, run_id, one.asset, token, call)
    call = f"call ducklake_merge_adjacent_files({place}, max_file_size => {SMALL_FILE_BYTES})"
    _rewrite(lake, journal, run_id, one.asset, token, call)
    write_checksums(lake, journal, run_id, one.asset, token)


def _lay_out_anew(lake: Lake, journal: Journal, run_id: str, asset: str, layout: Layout, token: int) -> None:
    """Write all rows of a table that is cut by partitions anew, and publish them as the same rows.

    DuckLake merges files of one partition only if they lie in one folder, and meets an internal error otherwise; each
    attempt of ours has a folder of its own.
    """
    started = time.time()
    with lake.pinned(f"compacting {asset}") as session:
        head, columns = ledger.heads(session, [asset])[asset], table_columns(session, asset)
        folder = attempt_folder(lake.storage, asset, run_id, f"{token}c")
        staged = stage(session, f"select * from {table(asset)}", asset, folder, columns, layout)
    try:
        staged = seal(staged, lake.storage.data)
        entry = replace(
            head, run_id=run_id, action=COMPACT, base_version=head.version, unchanged_since=head.data_version, rows_in=0,
            seconds=time.time() - started, version=0,
        )  # fmt: skip
        same = Publication(
            entry=entry, how="replace", token=token, columns=columns, staged=staged, layout=layout, was="table"
        )
        outcome = publish(lake, journal, run_id, [same])[0]
    except BaseException:
        discard(staged)
        raise
    if outcome.error is not None:
        discard(staged)
        raise outcome.error


def _rewrite(lake: Lake, journal: Journal, run_id: str, asset: str, token: int, call: str) -> None:
    """One commit in which DuckLake writes files of a table anew; they are durable before it."""
    storage, doing = lake.storage, f"compacting {asset}"
    with exclusive(storage.catalog, doing), lake.session(doing) as session:
        started = time.time()
        before = session.value(f"select id from {LAKE}.last_committed_snapshot()")
        session.execute("begin transaction")
        _refuse_without_lease(journal, asset, token)
        rows, known = session.value(f"select count(*) from {table(asset)}"), named_files(session, storage)
        if not session.rows(call):
            return
        if session.value(f"select count(*) from {table(asset)}") != rows:
            raise LakeError(f"compacting {asset} would have changed its rows", where=asset, next="rat verify")
        try:
            files = storage.files
            fresh = files.written([asset.replace(".", "/", 1)], started, deep=True)
            written = [path for path in fresh if files.absolute(path) not in known]
            if isinstance(storage.data, Path):
                make_private([storage.data / path for path in written])
            kept = files.keep(run_id, written)
        except OSError as error:
            raise explain(error, doing) from error
        about = say_who(session, f"{run_id}-{before}", [asset])
        commit_and_prove(storage, session, about, before, kept)


def _refuse_without_lease(journal: Journal, asset: str, token: int) -> None:
    if journal.holds_leases({asset: token}):
        raise Superseded(f"{asset} was taken over by somebody else", where=asset, next="rat clean")


def unsealed(session: Session, assets: Collection[str]) -> dict[str, list[str]]:
    """asset -> data files of its current version, below the data folder, whose checksum the ledger does not know."""
    now = session.snapshot
    names = ", ".join(text(asset) for asset in assets) or "null"
    rows = session.rows(
        f'with known as (select distinct unnest(from_json(manifest, \'[{{"path": "VARCHAR"}}]\')).path as path'
        f" from {ledger.LEDGER} where asset in ({names})),"
        f" files as (select n.name, case when f.path_is_relative then s.path || t.path || f.path else f.path end as path"
        f" from {METADATA}.ducklake_data_file f join {METADATA}.ducklake_table t using (table_id)"
        f" join {METADATA}.ducklake_schema s using (schema_id) join ({TABLE_NAMES}) n using (table_id)"
        f" where f.begin_snapshot <= {now} and coalesce(f.end_snapshot, {now + 1}) > {now}"
        f" and coalesce(t.end_snapshot, {now + 1}) > {now} and n.name in ({names}))"
        f" select name, path from files anti join known using (path) order by all"
    )
    found: dict[str, list[str]] = {}
    for name, path in rows:
        found.setdefault(name, []).append(path)
    return found


def write_checksums(lake: Lake, journal: Journal, run_id: str, asset: str, token: int) -> None:
    """Enter the checksums of files that a compaction wrote: an entry of the same rows, under the asset's lease."""
    storage, doing = lake.storage, f"compacting {asset}"
    started = time.time()
    with lake.session(doing) as session:
        paths = unsealed(session, [asset]).get(asset, [])
    if not paths:
        return
    try:
        manifest = tuple(_in_manifest(paths, asset, storage.files))
    except (OSError, KeyError) as error:
        raise explain(error, doing) from error
    with exclusive(storage.catalog, doing), lake.session(doing) as session:
        before = session.value(f"select id from {LAKE}.last_committed_snapshot()")
        session.execute("begin transaction")
        _refuse_without_lease(journal, asset, token)
        head = ledger.heads(session, [asset])[asset]
        entry = replace(
            head, run_id=run_id, action=COMPACT, base_version=head.version, unchanged_since=head.data_version,
            manifest=manifest, bytes_written=sum(file["bytes"] for file in manifest), seconds=time.time() - started,
            published_at=datetime.now(UTC).replace(tzinfo=None), rows_in=0, rows_written=0, rows_deleted=0,
        )  # fmt: skip
        ledger.write_entries(session, [entry])
        about = say_who(session, f"{run_id}-{before}", [asset])
        commit_and_prove(storage, session, about, before, None)


def _in_manifest(paths: Sequence[str], asset: str, files: Files) -> Iterator[dict[str, Any]]:
    there = files.sizes([asset.replace(".", "/", 1)], paths)
    for path in paths:
        yield {"path": path, "rows": 0, "bytes": there[path], "sha256": files.sha256(path)}


# Tables whose file is gone


def drop_table(lake: Lake, asset: str, kind: str) -> None:
    """Drop a table or view, and what the lake remembers of it beside the ledger. Its versions stay until they expire."""
    doing = f"dropping {asset}"
    with exclusive(lake.storage.catalog, doing), lake.session(doing) as session:
        before = session.value(f"select id from {LAKE}.last_committed_snapshot()")
        session.execute("begin transaction")
        session.execute(f"drop {'view' if kind == 'view' else 'table'} {table(asset)}")
        ledger.remember_files(session, asset, (), forget=None)
        ledger.release(session, asset)
        session.execute(f"delete from {ledger.QUARANTINE} where asset = {text(asset)}")
        about = say_who(session, f"drop-{time.time_ns()}", [asset])
        commit_and_prove(lake.storage, session, about, before, None)


def _numbers(values: Collection[int] | Sequence[int]) -> str:
    return ", ".join(str(int(value)) for value in sorted(values)) or "null"
