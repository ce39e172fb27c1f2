"""Publish: the one commit that makes candidates visible, together with what the ledger says of them.

lock -> BEGIN -> is each asset still ours and as we found it? -> register files or delete and register
-> ledger, landing memory, quarantine -> fsync what the transaction itself wrote -> COMMIT -> proof that
the snapshot moved -> unlock. Any exception rolls back. Several candidates may share the commit; if one
of them cannot be published, the rest are redone one by one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ratatouille.errors import LakeError, RatError, TransientError
from ratatouille.lake import ledger
from ratatouille.lake.catalogs import catalog_of
from ratatouille.lake.catalogs.lock import exclusive
from ratatouille.lake.connect import Lake, Storage
from ratatouille.lake.faults import explain
from ratatouille.lake.journal import Journal
from ratatouille.lake.layout import Layout, layouts, set_layout
from ratatouille.lake.places import Files
from ratatouille.lake.quoting import LAKE, ident, idents, table, text
from ratatouille.lake.session import Session
from ratatouille.lake.stage import Staged, glob_safe
from ratatouille.lake.types import Columns

# A table with more rows that all go is dropped and created. DuckLake 1.5 empties a table by reading it: under the lock,
# with 0.4 µs of time and 60 bytes of memory that no limit counts for each row. Making it anew takes 20 ms.
REMADE_FROM_ROWS = 200_000
_FEW_FILES = 8  # are registered one by one


@dataclass(frozen=True, slots=True)
class Publication:
    """One gated candidate and how it joins the table.

    how: replace (all rows), append, merge (rows with the same unique_key are replaced), view.
    `goes` are rows that go beside those: an expression over a row of the table.
    """

    entry: ledger.Entry
    how: str
    token: int  # of the asset's lease
    columns: Columns = ()
    staged: Staged | None = None
    view_sql: str = ""
    unique_key: tuple[str, ...] = ()
    add: Columns = ()  # columns that the table gains
    drop: tuple[str, ...] = ()  # columns that it loses, accepted by the person who asked
    goes: str = ""
    layout: Layout = field(default_factory=Layout)
    replaced_files: tuple[str, ...] = ()  # landing files of which other rows are remembered now
    landing: tuple[ledger.LandingFile, ...] | None = None  # None: this asset reads no landing files
    quarantine: Staged | None = None
    forget_quarantine: str = ""  # an expression over this asset's rows in the quarantine: those that go
    comment: str = ""
    column_comments: Mapping[str, str] = field(default_factory=dict)
    was: str = ""  # table | view | "" (nothing): what stands under the name
    hold: ledger.Hold | None = None  # with a rollback
    recreate: bool = False  # the table is made anew: its files are damaged, cut in another way, or it is large

    @property
    def asset(self) -> str:
        return self.entry.asset


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one publication: its entry with the version, or the error."""

    asset: str
    entry: ledger.Entry | None = None
    error: RatError | None = None


class UnknownOutcome(LakeError):
    """The COMMIT was sent and failed, and whether it was written cannot be told. Its files must stay."""


class Superseded(TransientError):
    """Somebody else published this asset since the candidate was built."""


def publish(
    lake: Lake, journal: Journal, run_id: str, publications: Sequence[Publication], *, together: bool = False
) -> list[Outcome]:
    """Publish all in one commit; if that fails for a reason of one of them, one by one, or `together` none at all."""
    try:
        within = lake.storage.files.retry_within_s
        return _with_retries(lambda: _commit(lake, journal, run_id, publications), within)
    except RatError as error:
        if len(publications) == 1 or together:
            return [Outcome(p.asset, error=error) for p in publications]
    return [outcome for one in publications for outcome in publish(lake, journal, run_id, [one])]


def _with_retries(work: Callable[[], list[Outcome]], within_s: float) -> list[Outcome]:
    try:
        return work()
    except Superseded:
        raise
    except TransientError:
        import stamina

        once_more = stamina.retry_context(
            on=lambda error: isinstance(error, TransientError) and not isinstance(error, Superseded),
            attempts=8,
            wait_initial=0.05,
            wait_max=2.0,
            timeout=within_s,
        )
        with _unheard:
            for attempt in once_more:
                with attempt:
                    return work()
        raise  # not reached: the last attempt raises


class _Unheard:
    """While anybody is inside, stamina tells nobody of retries.

    It would where people and programs read our output, and what comes of a retry they are told anyway. The hooks are
    the whole process's: the first thread that comes takes them down, the last one that leaves puts them up again.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._inside = 0
        self._hooks: Any = ()

    def __enter__(self) -> None:
        from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

        with self._guard:
            if not self._inside:
                self._hooks = get_on_retry_hooks()
                set_on_retry_hooks(())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        from stamina.instrumentation import set_on_retry_hooks

        with self._guard:
            self._inside -= 1
            if not self._inside:
                set_on_retry_hooks(self._hooks)


_unheard = _Unheard()


def _commit(lake: Lake, journal: Journal, run_id: str, publications: Sequence[Publication]) -> list[Outcome]:
    storage = lake.storage
    names = [p.asset for p in publications]
    doing = f"publishing {', '.join(names[:3])}"
    with exclusive(storage.catalog, doing), lake.session(doing) as session:
        started = time.time()
        for limit in storage.files.limits:
            session.execute(limit)
        publications = _laid_out(session, publications)
        before = session.value(f"select id from {LAKE}.last_committed_snapshot()")
        session.execute("begin transaction")
        heads, already = _check_still_ours(session, journal, run_id, publications)
        todo = [p for p in publications if p.asset not in already]
        if not todo:
            return [Outcome(asset, entry=entry) for asset, entry in already.items()]
        now = datetime.now(UTC).replace(tzinfo=None)
        for layer in sorted({p.asset.partition(".")[0] for p in todo if not p.was}):
            session.execute(f"create schema if not exists {LAKE}.{ident(layer)}")
        entries = [_apply(session, p, heads.get(p.asset), now, storage.files) for p in todo]
        ledger.write_entries(session, entries)
        about = say_who(session, run_id, [p.asset for p in todo])
        try:
            kept = storage.files.keep(run_id, _written(storage, todo, started))
        except OSError as error:
            raise explain(error, doing) from error
        version = commit_and_prove(storage, session, about, before, kept)
    done = {e.asset: replace(e, version=version) for e in entries} | already
    return [Outcome(name, entry=done[name]) for name in names]


def _laid_out(session: Session, publications: Sequence[Publication]) -> list[Publication]:
    """Give tables the layout of what will join them, before the commit: DuckLake aborts the process when a
    transaction changes how a table is partitioned and adds files to it. A table whose rows all go is made anew."""
    standing = layouts(session) if any(p.was == "table" for p in publications) else {}
    found = []
    for p in publications:
        now = standing.get(p.asset, Layout())
        if p.was != "table" or p.how == "view" or p.recreate or now == p.layout:
            found.append(p)
        elif p.how == "replace" and now.partition_by != p.layout.partition_by:
            found.append(replace(p, recreate=True))
        else:
            set_layout(session, p.asset, p.layout, now)
            found.append(p)
    return found


def _check_still_ours(
    session: Session, journal: Journal, run_id: str, publications: Sequence[Publication]
) -> tuple[dict[str, ledger.Entry], dict[str, ledger.Entry]]:
    """The heads of these assets, and those that this run has published already."""
    names = [p.asset for p in publications]
    heads = ledger.heads(session, names)
    same = {p.asset: (run_id, p.entry.action, p.entry.partitions) for p in publications}
    already = {n: head for n, head in heads.items() if (head.run_id, head.action, head.partitions) == same[n]}
    lost = journal.holds_leases({p.asset: p.token for p in publications})
    for p in publications:
        if p.asset in already:
            continue
        head = heads.get(p.asset)
        if p.asset in lost or (head.version if head else 0) != p.entry.base_version:
            raise Superseded(
                f"{p.asset} was published by somebody else while this run built it",
                where=f"{p.asset}, version {head.version if head else 0}",
                state="Readers see that version; this run's candidate was dropped.",
                next=f"rat run {p.asset}",
            )
    return heads, already


def _apply(session: Session, p: Publication, head: ledger.Entry | None, now: datetime, files: Files) -> ledger.Entry:
    """The changes of one publication; returns its ledger entry, complete but for the version."""
    deleted = 0
    if p.how == "replace" and p.was == "table" and head is not None and head.rows_total >= REMADE_FROM_ROWS:
        p = replace(p, recreate=True)
    if p.how == "view":
        _put_view(session, p)
    else:
        deleted = _put_rows(session, p, head)
    _put_comments(session, p, head)
    if p.landing is not None:
        forget = None if p.how == "replace" else p.replaced_files
        ledger.remember_files(session, p.asset, p.landing, forget=forget)
    if p.forget_quarantine:
        session.execute(f"delete from {ledger.QUARANTINE} where asset = {text(p.asset)} and ({p.forget_quarantine})")
    if p.quarantine is not None:
        _register(session, ledger.SCHEMA, "quarantine", p.quarantine)
    if p.hold is not None:
        ledger.hold(session, p.hold)
    elif head is not None and head.action == "rollback" and p.entry.action == "build":
        ledger.release(session, p.asset)
    written = p.staged.rows if p.staged else 0
    total = written if p.how == "replace" or head is None else head.rows_total - deleted + written
    return replace(
        p.entry,
        rows_written=written,
        rows_deleted=deleted,
        unchanged_since=p.entry.unchanged_since or _unchanged_since(p, head, written, deleted),
        rows_total=0 if p.how == "view" else total,
        bytes_written=p.staged.bytes if p.staged else 0,
        columns=p.columns,
        manifest=_manifest(p, files),
        published_at=now,
    )


def _unchanged_since(p: Publication, head: ledger.Entry | None, written: int, deleted: int) -> int:
    """The version whose rows this one repeats; 0 if it has rows of its own. Assets below stay fresh then."""
    same = head is not None and p.how in ("append", "merge") and not (written or deleted or p.add or p.drop)
    return head.data_version if same and head is not None else 0


def _manifest(p: Publication, data: Files) -> tuple[dict[str, Any], ...]:
    files = p.staged.files if p.staged else ()
    return tuple({"path": data.relative(f.path), "rows": f.rows, "bytes": f.bytes, "sha256": f.sha256} for f in files)


def _put_view(session: Session, p: Publication) -> None:
    if p.was == "table":
        session.execute(f"drop table {table(p.asset)}")
    session.execute(f"create or replace view {table(p.asset)} as {p.view_sql}")


def _put_rows(session: Session, p: Publication, head: ledger.Entry | None) -> int:
    """Change the table; returns how many rows went."""
    name, deleted = table(p.asset), 0
    if p.was != "table" or p.recreate:
        if p.was:
            session.execute(f"drop {p.was} {name}")
            deleted = head.rows_total if head and p.was == "table" and head.materialize != "view" else 0
        session.execute(f"create table {name} ({', '.join(f'{ident(n)} {kind}' for n, kind in p.columns)})")
        set_layout(session, p.asset, p.layout, Layout())
    else:
        if p.how == "replace":
            # A small table stays the same one: readers need not load what is known of all tables again.
            session.execute(f"truncate {name}")
            deleted = head.rows_total if head else 0
        else:
            deleted = _delete_replaced(session, p, name)
        for column in p.drop:
            session.execute(f"alter table {name} drop column {ident(column)}")
        for column, kind in p.add:
            session.execute(f"alter table {name} add column {ident(column)} {kind}")
    if p.staged is not None:
        layer, _, short = p.asset.partition(".")
        _register(session, layer, short, p.staged)
    return deleted


def _delete_replaced(session: Session, p: Publication, name: str) -> int:
    deleted = 0
    if p.goes:
        deleted += session.value(f"delete from {name} where {p.goes}") or 0
    if p.how == "merge" and p.staged is not None and p.staged.files:
        keys = f"select {idents(p.unique_key)} from ({p.staged.relation})"
        deleted += session.value(f"delete from {name} where ({idents(p.unique_key)}) in ({keys})") or 0
    return deleted


def _register(session: Session, schema: str, name: str, staged: Staged) -> None:
    for pattern in _patterns(session, staged):
        session.execute(
            f"call ducklake_add_data_files({text(LAKE)}, {text(name)}, {text(pattern)},"
            f" schema => {text(schema)}, allow_missing => true, hive_partitioning => {str(staged.partitioned).lower()})"
        )


def _patterns(session: Session, staged: Staged) -> list[str]:
    """Every file by its name. Where its folder holds nothing else, one pattern for all: for a table of two hundred
    partitions DuckLake takes 0.05 s then, under the lock, instead of 0.5 s."""
    if len(staged.files) > _FEW_FILES:
        pattern = f"{glob_safe(str(staged.folder))}/**/*.parquet"
        there = {path for (path,) in session.rows(f"select file from glob({text(pattern)})")}
        if there == {file.path for file in staged.files}:
            return [pattern]
    return [glob_safe(file.path) for file in staged.files]


def _put_comments(session: Session, p: Publication, head: ledger.Entry | None) -> None:
    same = head is not None and head.text_hash == p.entry.text_hash and not p.recreate
    if same and p.was == ("view" if p.how == "view" else "table"):
        return
    kind = "view" if p.how == "view" else "table"
    if p.comment or head is not None:
        session.execute(f"comment on {kind} {table(p.asset)} is {text(p.comment) if p.comment else 'null'}")
    if kind == "view":
        return
    have = {name.lower() for name, _ in p.columns}
    for column, comment in p.column_comments.items():
        if column.lower() in have and (comment or head is not None):
            said = text(comment) if comment else "null"
            session.execute(f"comment on column {table(p.asset)}.{ident(column)} is {said}")


def say_who(session: Session, run_id: str, assets: Sequence[str]) -> str:
    """What the commit says about itself; returns the text by which it can be found again."""
    message = f"publish {', '.join(assets[:5])}" + (f" and {len(assets) - 5} more" if len(assets) > 5 else "")
    about = json.dumps({"run_id": run_id, "assets": list(assets)})
    session.execute(f"call {LAKE}.set_commit_message('rat', {text(message)}, extra_info => {text(about)})")
    return about


def _written(storage: Storage, publications: Sequence[Publication], started: float) -> list[str]:
    """The files that the transaction itself wrote, DuckLake's delete files, made durable: it never does that."""
    folders = {p.asset.replace(".", "/", 1) for p in publications if p.was == "table" or p.forget_quarantine}
    if folders:
        folders.add(f"{ledger.SCHEMA}/quarantine")
    return storage.files.written(folders, started)


def _forget(storage: Storage, kept: Any, files: Sequence[str] = ()) -> None:
    with suppress(OSError, RatError):  # upkeep of the next process that opens the lake
        storage.files.forget(kept, files)


def commit_and_prove(storage: Storage, session: Session, about: str, before: int | None, kept: Any) -> int:
    """COMMIT, and the version that it made. COMMIT of an aborted transaction says OK and does nothing."""
    lost: list[str] = []
    try:
        session.execute("commit")
        after = session.value(f"select id from {LAKE}.last_committed_snapshot()")
    except RatError as error:
        session.rollback()
        with suppress(OSError, RatError):  # then the next process that opens the lake does it
            lost = storage.files.restore(kept)
        outcome = catalog_of(storage.catalog).settle(about, before or 0)
        if outcome is None:
            raise UnknownOutcome(
                error.what,
                where=error.where,
                state="Whether the commit was written is not known; nothing was deleted.",
                next="rat history tells; then run the same command again",
            ) from error
        _forget(storage, kept, lost if outcome == 0 else ())
        if outcome == 0:
            raise
        return outcome  # what failed came after the commit
    _forget(storage, kept)
    if after is None or after == before:
        raise LakeError("the commit changed nothing", where=about, next="run the same command again")
    return int(after)
