"""Looking back: the rows of an earlier version, and making one of them current again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ratatouille.errors import LakeError, RequestError
from ratatouille.lake import ledger
from ratatouille.lake.catalogs.lock import exclusive, looking_back
from ratatouille.lake.connect import Lake
from ratatouille.lake.journal import Journal
from ratatouille.lake.layout import layout_of
from ratatouille.lake.publish import Publication, publish
from ratatouille.lake.quoting import BASE, LAKE, METADATA, table, text
from ratatouille.lake.session import Session
from ratatouille.lake.stage import Staged, attempt_folder, discard, seal, stage


def table_columns(session: Session, asset: str) -> tuple[tuple[str, str], ...]:
    """(name, type) of the columns that stand, from the catalog: a damaged file must not keep us from replacing it."""
    return tuple((row[0], row[1]) for row in session.rows(f"describe {table(asset)}"))


def borrowed(session: Session, assets: Sequence[str]) -> dict[str, ledger.Entry]:
    """The heads of `assets` in the default lake, seen from an environment; empty anywhere else.

    Their versions are negative: they are counted in another lake.
    """
    if not session.value(f"select count(*) from duckdb_databases() where database_name = {text(BASE)}"):
        return {}
    there = standing(session, BASE)
    found = ledger.heads(session, list(assets), BASE)
    return {
        name: replace(entry, version=-entry.data_version, unchanged_since=0)
        for name, entry in found.items()
        if there.get(name) == "table"
    }


def standing(session: Session, lake: str = LAKE) -> dict[str, str]:
    """What stands in the lake: `silver.sales` -> table | view."""
    # From the catalog's own tables: duckdb_tables() loads the statistics of every table, 2 ms each.
    now = int(session.value(f"select id from {lake}.current_snapshot()"))
    metadata = f"__ducklake_metadata_{lake}"
    rows = session.rows(
        " union all ".join(
            f"select s.schema_name || '.' || t.{kind}_name, {text(kind)} from {metadata}.ducklake_{kind} t"
            f" join {metadata}.ducklake_schema s using (schema_id)"
            f" where t.begin_snapshot <= {now} and coalesce(t.end_snapshot, {now + 1}) > {now}"
            f" and coalesce(s.end_snapshot, {now + 1}) > {now}"
            for kind in ("table", "view")
        )
    )
    return dict(rows)


def newest_version(session: Session) -> tuple[int, str]:
    """The newest version and when it was made, in the catalog's own words: what `catalogs.file` reads from outside."""
    newest = f"select snapshot_id, snapshot_time from {METADATA}.ducklake_snapshot order by snapshot_id desc limit 1"
    version, made_at = session.one(newest)
    return int(version), str(made_at)


def fed_since(session: Session, asset: str, version: int) -> str | None:
    """The lake's feed of what happened to a table after `version`: `change_type` and its columns.

    None if that version is expired, or if the table was made anew since.
    """
    layer, _, name = asset.partition(".")
    if not _held(session, asset, version, "t.end_snapshot is null and s.end_snapshot is null"):
        return None
    place = f"{text(LAKE)}, {text(layer)}, {text(name)}"
    return f"ducklake_table_changes({place}, {version + 1}, {session.snapshot})"


def before_and_after(session: Session, asset: str, version: int) -> str | None:
    """`fed_since` of a table that was made anew: all rows of `version` went, and all that are there now came.

    None if that version is expired. Whether its files are whole, the caller must know.
    """
    if not _held(session, asset, version, f"coalesce(t.end_snapshot, {version + 1}) > {version}"):
        return None
    went = f"select 'delete' as change_type, * from {table(asset)} at (version => {version})"
    return f"({went} union all by name select 'insert' as change_type, * from {table(asset)})"


def _held(session: Session, asset: str, version: int, until: str) -> bool:
    """Whether `version` is not expired and had the table of this name; `until` says what the table must be today."""
    layer, _, name = asset.partition(".")
    found = session.value(
        f"select count(*) from {METADATA}.ducklake_table t join {METADATA}.ducklake_schema s using (schema_id),"
        f" {METADATA}.ducklake_snapshot v where s.schema_name = {text(layer)} and t.table_name = {text(name)}"
        f" and t.begin_snapshot <= {version} and {until} and v.snapshot_id = {version}"
    )
    return bool(found)


def roll_back(lake: Lake, journal: Journal, run_id: str, asset: str, to: int, token: int) -> ledger.Entry:
    """Publish the rows of version `to` again as a new version, with that version's memory of landing files.

    The asset is put on hold: it is not rebuilt until its code or config changes or it is released.
    """
    with looking_back(lake.storage.catalog), lake.pinned(f"rolling back {asset}") as session:
        known = ledger.entries(session, asset)
        target = _version_asked_for(asset, known, to)
        if asset not in standing(session):
            raise RequestError(
                f"{asset} was dropped, so there is no table to bring rows back into",
                where=asset,
                next=f"rat run {asset}, then the same again; or read them: rat query --at {to}",
            )
        if not session.value(f"select count(*) from {METADATA}.ducklake_snapshot where snapshot_id = {int(to)}"):
            raise RequestError(
                f"version {to} of {asset} is not kept any more",
                where="retention: in workspace.yaml, or in the asset's YAML file",
                next=f"rat history {asset}",
            )
        head = known[0]
        columns = table_columns(session, asset)
        folder = attempt_folder(lake.storage, asset, run_id, str(token))
        layout = layout_of(session, asset)
        staged = stage(session, f"select * from {table(asset)} at (version => {to})", asset, folder, layout=layout)
        memory = ledger.landing_files(session, asset, version=to)
        kept_out = _quarantine_of(lake, session, asset, run_id, to, token)
    try:
        staged = seal(staged, lake.storage.data)
        kept_out = seal(kept_out, lake.storage.data) if kept_out else None
        again = replace(
            _republish(target, head, staged, columns, memory, run_id, token),
            layout=layout,
            quarantine=kept_out,
            forget_quarantine="true",
        )
        outcome = publish(lake, journal, run_id, [again])[0]
    except BaseException:
        for one in (staged, kept_out):
            if one is not None:
                discard(one)
        raise
    if outcome.entry is None:
        raise outcome.error or LakeError(f"{asset} was not rolled back", where=asset, next=f"rat history {asset}")
    return outcome.entry


def _quarantine_of(lake: Lake, session: Session, asset: str, run_id: str, version: int, token: int) -> Staged | None:
    """The asset's rows in the quarantine as of a version: a rollback brings them back too."""
    rows = f"select * from {ledger.QUARANTINE} at (version => {version}) where asset = {text(asset)}"
    if not session.value(f"select count(*) from ({rows})"):
        return None
    folder = attempt_folder(lake.storage, f"{ledger.SCHEMA}.quarantine", run_id, f"{asset}-{token}")
    return stage(session, rows, asset, folder)


def release(lake: Lake, asset: str) -> ledger.Hold:
    """Take the hold off `asset`, in a commit of its own; returns the hold that was. RequestError if there is none."""
    with exclusive(lake.storage.catalog, f"releasing {asset}"), lake.session(f"releasing {asset}") as session:
        session.execute("begin transaction")
        found = ledger.holds(session).get(asset)
        if found is None:
            raise RequestError(f"{asset} is not on hold", where=asset, next=f"rat history {asset}")
        ledger.release(session, asset)
        session.execute(f"call {LAKE}.set_commit_message('rat', {text(f'release {asset}')})")
        session.execute("commit")
    return found


def _version_asked_for(asset: str, known: Sequence[ledger.Entry], to: int) -> ledger.Entry:
    if not known:
        raise RequestError(f"{asset} was never published", where=asset, next=f"rat run {asset}")
    if known[0].materialize == "view":
        raise RequestError(
            f"{asset} is a view and holds no rows",
            where=asset,
            next="roll back the tables below it, or change its file",
        )
    for entry in known:
        if entry.version == to:
            return entry
    some = ", ".join(str(entry.version) for entry in known[:5])
    raise RequestError(
        f"{asset} has no version {to}", where=f"its newest versions are {some}", next=f"rat history {asset}"
    )


def _republish(
    target: ledger.Entry,
    head: ledger.Entry,
    staged: Staged,
    columns: tuple[tuple[str, str], ...],
    memory: list[ledger.LandingFile],
    run_id: str,
    token: int,
) -> Publication:
    have, want = dict(columns), dict(staged.columns)
    entry = replace(
        target,
        run_id=run_id,
        version=0,
        action="rollback",
        mode="full",
        base_version=head.version,
        restored_version=target.version,
        partitions={},
        unchanged_since=0,
        rows_in=0,
        rows_quarantined=0,
        rows_rejected=0,
        seconds=0.0,
        note="",
    )
    return Publication(
        entry=entry,
        how="replace",
        token=token,
        columns=staged.columns,
        staged=staged,
        add=tuple((n, k) for n, k in staged.columns if have.get(n) != k),
        drop=tuple(n for n, k in columns if want.get(n) != k),
        landing=tuple(memory),
        was="table",
        hold=ledger.Hold(
            asset=target.asset,
            version=target.version,
            code_hash=head.code_hash,
            run_id=run_id,
            held_at=datetime.now(UTC).replace(tzinfo=None),
        ),
    )
