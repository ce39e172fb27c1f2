"""Bronze tables as Delta tables, session by session: for readers that know Delta and not this lake."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import deltalake


def write_slices(root: Path, tables: Sequence[str], query: Callable[[str], Any]) -> dict[str, int]:
    """Write each session of each table that the Delta table does not have in this state; rows written by table.

    `query` gives a frame with `to_arrow()` for an SQL text. A session is one partition, replaced whole, so memory
    holds one session at a time.
    """
    return {name: _write(root / name, f"bronze_raw.{name}", query) for name in tables}


def _write(place: Path, table: str, query: Callable[[str], Any]) -> int:
    stamps = query(f"select session_key, max(_loaded_at) as stamp from {table} group by 1 order by 1")
    known = _known(place)
    written = 0
    for key, stamp in zip(stamps["session_key"].to_list(), stamps["stamp"].to_list(), strict=True):
        if known.get(key) == stamp.isoformat():
            continue
        rows = query(f"select * from {table} where session_key = {int(key)}").to_arrow()
        deltalake.write_deltalake(
            place,
            rows,
            partition_by=["session_key"],
            mode="overwrite",
            predicate=f"session_key = {int(key)}" if place.exists() else None,
            schema_mode="merge",
            commit_properties=deltalake.CommitProperties(custom_metadata={f"session {key}": stamp.isoformat()}),
        )
        written += rows.num_rows
    return written


def _known(place: Path) -> dict[int, str]:
    """Session -> the stamp that its rows had when they were written last."""
    if not deltalake.DeltaTable.is_deltatable(str(place)):
        return {}
    found: dict[int, str] = {}
    for commit in reversed(deltalake.DeltaTable(place).history()):
        for name, stamp in commit.items():
            if name.startswith("session "):
                found[int(name.removeprefix("session "))] = stamp
    return found
