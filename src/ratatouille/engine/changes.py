"""Changes: what happened to an input since this asset read it last, from the lake's own change feed.

A row that went and came back as it was, as in a rebuild, did not change. With a key a row that went and one that
came are an update, of which the new row is given; without one they are a delete and an insert.
"""

from __future__ import annotations

from ratatouille.engine.modes import keys
from ratatouille.engine.work import Work, table_read
from ratatouille.errors import StepFailed
from ratatouille.lake import before_and_after, damaged_tables, fed_since, table_columns
from ratatouille.lake.quoting import ident, idents
from ratatouille.project.records import CHANGE


def changes_of(work: Work, name: str) -> str:
    """A relation: the columns of `name` and `_change` (insert, update, delete). On a first build all rows, as inserts.

    Raises StepFailed when the feed does not reach back to the version that was read last.
    """
    work.reads_changes = True
    since = work.head.inputs.get(name) if work.head and work.planned.mode == "incremental" else None
    everything = f"(select *, 'insert' as {CHANGE} from {table_read(work.state, name)})"
    now = work.state.inputs.get(name)
    if since is None or now is None:
        return everything
    if now.data_version == since:
        return f"(select * from {everything} where false)"
    feed = fed_since(work.session, name, since) or _of_a_table_made_anew(work, name, since)
    if feed is None:
        raise StepFailed(
            f"{work.asset.name}: what changed in {name} since version {since} cannot be told any more",
            where=f"{work.asset.path}: the lake no longer has that version of the table",
            next=f"read all of it: rat run {work.asset.name} -f",
        )
    columns = [column for column, _ in table_columns(work.session, name)]
    listed = idents(columns)
    came = f"select {listed} from feed where change_type in ('insert', 'update_postimage')"
    went = f"select {listed} from feed where change_type in ('delete', 'update_preimage')"
    asset = work.bench.project.assets.get(name)
    key = keys(asset)[1] if asset is not None else ()
    if key and set(key) <= set(columns):
        same = " and ".join(f"a.{ident(column)} = b.{ident(column)}" for column in key)
        inserted = (
            f"select a.*, if(exists (select 1 from gone b where {same}), 'update', 'insert') as {CHANGE} from added a"
        )
        deleted = f"select a.*, 'delete' as {CHANGE} from gone a anti join added b on {same}"
    else:
        inserted, deleted = f"select *, 'insert' as {CHANGE} from added", f"select *, 'delete' as {CHANGE} from gone"
    return (
        f"(with feed as materialized (from {feed}), came as ({came}), went as ({went}),"
        f" added as materialized (from came except all from went), gone as materialized (from went except all from came)"
        f" {inserted} union all {deleted})"
    )


def _of_a_table_made_anew(work: Work, name: str, since: int) -> str | None:
    """A large table is made anew by a rebuild, a damaged one too: rows of damaged files say nothing."""
    lake, every_s = work.bench.lake, work.bench.project.workspace.verify_every_s
    if damaged_tables(work.session, work.bench.journal, lake.storage, [name], every_s, version=since):
        return None
    return before_and_after(work.session, name, since)
