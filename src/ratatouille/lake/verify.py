"""Are the files of a table still what was published? By size each time, by checksum once in a while.

A flipped bit in a parquet file is silently wrong in half of the cases, and `count(*)` still answers when a file is
gone. So before a step reads, the files of its inputs are looked at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from ratatouille.lake import ledger
from ratatouille.lake.connect import Storage
from ratatouille.lake.journal import Journal
from ratatouille.lake.places import Files
from ratatouille.lake.quoting import METADATA, text
from ratatouille.lake.session import Session


def damaged_tables(
    session: Session,
    journal: Journal,
    storage: Storage,
    assets: Sequence[str],
    verify_every_s: float,
    *,
    version: int | None = None,
) -> dict[str, str]:
    """Which of `assets` cannot be trusted, and why; as they were at `version`, if given.

    Sizes are compared always; a checksum is computed for files that were not verified for `verify_every_s` seconds
    (never, if that is infinite).
    """
    if not assets:
        return {}
    known = _checksums(session, assets)
    due = journal.not_verified_since(time.time() - verify_every_s) if verify_every_s < math.inf else lambda path: False
    damaged: dict[str, str] = {}
    verified: list[str] = []
    files = _files(session, assets, session.snapshot if version is None else version)
    there = storage.files.sizes([asset.replace(".", "/", 1) for asset in assets], [path for _, path, _ in files])
    for asset, path, size in files:
        if asset in damaged:
            continue
        reason = what_is_wrong(storage.files, path, size, there.get(path), known.get(path, "") if due(path) else "")
        if reason:
            damaged[asset] = f"{path}: {reason}"
        elif due(path):
            verified.append(path)
    journal.note_verified(verified)
    return damaged


def _files(session: Session, assets: Sequence[str], now: int) -> list[tuple[str, str, int]]:
    """(asset, path below the data folder, bytes) of every file that the tables consist of at version `now`."""
    names = ", ".join(text(asset) for asset in assets)
    parts = []
    for kind in ("data", "delete"):
        # Emptying a table ends its data files, and leaves their delete files as if they were in use.
        ended = (
            f"(select coalesce(max(coalesce(d.end_snapshot, {1 << 62})), 0) from {METADATA}.ducklake_data_file d"
            " where d.data_file_id = f.data_file_id)"
        )
        end = f"least(f.end_snapshot, {ended})" if kind == "delete" else "f.end_snapshot"
        parts.append(
            f"select s.schema_name || '.' || t.table_name,"
            f" case when f.path_is_relative then s.path || t.path || f.path else f.path end, f.file_size_bytes"
            f" from {METADATA}.ducklake_{kind}_file f join {METADATA}.ducklake_table t using (table_id)"
            f" join {METADATA}.ducklake_schema s using (schema_id)"
            f" where s.schema_name || '.' || t.table_name in ({names})"
            f" and f.begin_snapshot <= {now} and coalesce({end}, {now + 1}) > {now}"
            f" and t.begin_snapshot <= {now} and coalesce(t.end_snapshot, {now + 1}) > {now}"
        )
    return [(row[0], row[1], row[2]) for row in session.rows(" union all ".join(parts))]


def _checksums(session: Session, assets: Sequence[str]) -> dict[str, str]:
    """path -> sha256, from the ledger. The lake's own delete files have none; their size is checked."""
    return {file["path"]: file["sha256"] for entry in ledger.all_of(session, assets) for file in entry.manifest}


def what_is_wrong(files: Files, path: str, size: int, found: int | None, sha256: str) -> str:
    """Why the file at `path`, which has `found` bytes, is not what was published; "" if it is. Without `sha256` its
    bytes are not read."""
    if found is None:
        return "the file is gone"
    if found != size:
        return f"it has {found:,} bytes instead of {size:,}"
    try:
        if sha256 and files.sha256(path) != sha256:
            return "its checksum is not the one it was published with"
    except FileNotFoundError:
        return "the file is gone"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return ""
