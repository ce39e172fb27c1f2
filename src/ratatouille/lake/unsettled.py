"""What a commit has written, until it is known what became of the commit.

DuckLake deletes the files that it wrote itself when a COMMIT fails. But SQLite may have all of that commit in its
log when only the fsync failed: then it comes back, and its rows would be in files that are gone. So each of these
files gets a second name before the COMMIT, which is taken away after it. What is found there later belongs to a
process that died in between: whoever opens the lake next gives the files their names back.

    <data>/.unsettled/<run id and time>/silver/sales/ducklake-....parquet
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ratatouille.errors import LakeError
from ratatouille.lake.catalogs.lock import exclusive
from ratatouille.lake.catalogs.server import Server

T = TypeVar("T")
FOLDER = ".unsettled"


def keep(data: Path, run_id: str, files: Sequence[Path]) -> Path | None:
    """Give files below the data folder a second name; the folder with these names, None without files."""
    if not files:
        return None
    folder = data / FOLDER / f"{run_id}-{time.time_ns()}"
    for file in files:
        name = folder / file.relative_to(data)
        name.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.link(file, name)
    return folder


def restore(data: Path, kept: Path | None) -> list[Path]:
    """Give files their names back where they have lost them; these names."""
    lost = []
    for name in _files(kept):
        file = data / name.relative_to(kept or name)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.link(name, file)
            lost.append(file)
    return lost


def forget(kept: Path | None, files: Sequence[Path] = ()) -> None:
    """Take the second names away; `files` go as well."""
    for file in files:
        with suppress(OSError):
            file.unlink()
    if kept is not None:
        shutil.rmtree(kept, ignore_errors=True)
        with suppress(OSError):
            kept.parent.rmdir()  # only when it is empty


def heal(catalog: Path | Server, data: Path) -> None:
    """Restore what processes have left that died before they knew; nothing while somebody is committing."""
    try:
        left = list((data / FOLDER).iterdir())
    except OSError:
        return
    settle_left(catalog, left, lambda kept: restore(data, kept), forget)


def settle_left(
    catalog: Path | Server, left: Sequence[T], restore: Callable[[T], object], forget: Callable[[T], object]
) -> None:
    """Restore and forget each of `left`, unless somebody is committing just now."""
    with suppress(LakeError, OSError), exclusive(catalog, "settling a commit", wait_s=0):
        for kept in left:
            restore(kept)
            forget(kept)


def _files(kept: Path | None) -> list[Path]:
    return sorted(path for path in kept.rglob("*") if path.is_file()) if kept is not None else []
