"""Layout: how the files of a table are cut and ordered, so that a query on some of its rows reads few of them.

partition_by   one folder for each value of these columns; no file holds rows of two
sort_by        rows inside the files come in this order; readers skip what their smallest and largest values exclude

The table itself knows its layout, so whoever rewrites its files keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ratatouille.lake.quoting import METADATA, ident, idents, table
from ratatouille.lake.session import Session


@dataclass(frozen=True, slots=True)
class Layout:
    partition_by: tuple[str, ...] = ()
    sort_by: tuple[str, ...] = ()


def layout_of(session: Session, asset: str) -> Layout:
    """The layout that a table of the lake has now."""
    return layouts(session).get(asset, Layout())


def layouts(session: Session) -> dict[str, Layout]:
    """The layouts of all tables that have one."""
    of_table = (
        f" join {METADATA}.ducklake_table t on t.table_id = i.table_id and t.end_snapshot is null"
        f" join {METADATA}.ducklake_schema s on s.schema_id = t.schema_id and s.end_snapshot is null"
    )
    rows = session.rows(
        f"select s.schema_name || '.' || t.table_name, 'partition', c.column_name, p.partition_key_index"
        f" from {METADATA}.ducklake_partition_info i join {METADATA}.ducklake_partition_column p using (partition_id)"
        f" join {METADATA}.ducklake_column c on c.column_id = p.column_id and c.table_id = i.table_id{of_table}"
        " where i.end_snapshot is null and c.end_snapshot is null union all"
        f" select s.schema_name || '.' || t.table_name, 'sort', e.expression, e.sort_key_index"
        f" from {METADATA}.ducklake_sort_info i join {METADATA}.ducklake_sort_expression e using (sort_id){of_table}"
        " where i.end_snapshot is null order by 1, 2, 4"
    )
    found: dict[str, Layout] = {}
    for asset, kind, name, _ in rows:
        known = found.get(asset, Layout())
        if kind == "partition":
            found[asset] = replace(known, partition_by=(*known.partition_by, name))
        else:
            found[asset] = replace(known, sort_by=(*known.sort_by, _plain(name)))
    return found


def _plain(expression: str) -> str:
    return expression[1:-1].replace('""', '"') if expression.startswith('"') else expression


def set_layout(session: Session, asset: str, wanted: Layout, now: Layout) -> None:
    """Change the table where it is not laid out as wanted; its files stay until they are rewritten."""
    for word, columns, before in (
        ("partitioned by", wanted.partition_by, now.partition_by),
        ("sorted by", wanted.sort_by, now.sort_by),
    ):
        if columns == before:
            continue
        change = f"set {word} ({idents(columns)})" if columns else f"reset {word}"
        session.execute(f"alter table {table(asset)} {change}")


def in_order(select: str, layout: Layout) -> str:
    """`select` with its rows in the order of the layout: partition after partition, which are cut then without mixing."""
    if not layout.sort_by:
        return select
    return f"select * from (\n{select}\n) order by {idents((*layout.partition_by, *layout.sort_by))}"


def copy_options(layout: Layout) -> str:
    """What COPY is told to cut files by the layout."""
    if not layout.partition_by:
        return "per_thread_output true"
    return f"partition_by ({', '.join(map(ident, layout.partition_by))}), write_partition_columns true"
