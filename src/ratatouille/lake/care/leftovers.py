"""What lies beside the lake's tables and belongs to nobody any more: found by age, deleted one by one.

orphan      a file in the data folder that no version names: of a killed run, or of a candidate that was kept out
old         an artifact's version that its pointer need not name any more
aside       an artifact's folder that was never published

Only what is older than a given moment is found. Whoever asks has made sure that no run is going on: a run stages
files that nothing names yet.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ratatouille.lake import artifacts, candidates
from ratatouille.lake.artifacts import POINTER, Published
from ratatouille.lake.connect import Storage
from ratatouille.lake.journal import Journal
from ratatouille.lake.ledger import Hold
from ratatouille.lake.places.bucket import Bucket
from ratatouille.lake.places.durable import fsync_path


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or folder that can go, or an object of a bucket. `bytes` are those that no other name holds."""

    path: Path
    bytes: int
    files: int = 1
    in_bucket: str = ""  # its path below the data; `path` is only for showing then


# An attempt's own folder: the run's id, ours or Dagster's, and what tells its attempts apart.
_ATTEMPT = re.compile(r"(\d{8}T\d{6}-[0-9a-f]{6}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})-.+")


def old_files(storage: Storage, before: float) -> list[Leftover]:
    """Files in the data folder that are ours by their names, last written before `before` (seconds since 1970).

    Somebody may keep other things in the folder that `lake: {data: ...}` names: those are not looked at.
    """
    found = _old_objects(storage.data, before) if isinstance(storage.data, Bucket) else []
    for folder, below, names in os.walk(storage.staging):
        below[:] = [name for name in below if not name.startswith(".")]  # artifacts, and commits not settled yet
        inside = Path(folder).relative_to(storage.staging).parts
        for name in names:
            if not _is_ours(inside, name):
                continue
            path = Path(folder, name)
            with suppress(OSError):
                status = path.lstat()
                if max(status.st_mtime, status.st_ctime) < before:
                    found.append(Leftover(path, status.st_size))
    return found


def _old_objects(data: Bucket, before: float) -> list[Leftover]:
    found = []
    for one in data.listed(doing="looking for orphans"):
        *folders, name = one.path.split("/")
        hidden = any(folder.startswith(".") for folder in folders)
        if not hidden and _is_ours(tuple(folders), name) and one.modified < before:
            found.append(Leftover(Path(f"{data}/{one.path}"), one.bytes, in_bucket=one.path))
    return found


def _is_ours(folders: tuple[str, ...], name: str) -> bool:
    """Whether a file below <layer>/<table>/ has a name that DuckLake gives, or lies in an attempt's folder."""
    if len(folders) < 2 or not name.endswith(".parquet"):
        return False
    if name.startswith("ducklake-"):
        return all("=" in folder for folder in folders[2:])  # of a partition, or none
    return bool(folders[2:] and _ATTEMPT.fullmatch(folders[2]))


def candidate_files(journal: Journal, rejected_before: float) -> set[str]:
    """Files and folders of candidates that may still be judged, or were kept out after `rejected_before`."""
    kept = candidates.where(
        journal,
        "state in ('waiting', 'passed') or (state in ('rejected', 'superseded') and at >= ?)",
        [rejected_before],
    )
    return {str(place) for one in kept for place in (one.staged.folder, *(f.path for f in one.staged.files))}


def folders_below(folder: Path, before: float) -> list[Leftover]:
    """The entries of a folder in which nothing was written since `before`."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    found = [(path, _measured(path)) for path in entries]
    return [Leftover(path, size, files) for path, (size, files, newest) in found if newest < before]


def _measured(path: Path) -> tuple[int, int, float]:
    """(bytes, files, newest change). A file that has another name as well frees nothing."""
    try:
        status = path.lstat()
    except OSError:
        return 0, 0, 0.0
    newest = max(status.st_mtime, status.st_ctime)
    if not stat.S_ISDIR(status.st_mode):
        return (status.st_size if status.st_nlink == 1 else 0), 1, newest
    size = files = 0
    for folder, below, names in os.walk(path):
        for name in (*below, *names):
            with suppress(OSError):
                one = os.lstat(os.path.join(folder, name))
                newest = max(newest, one.st_mtime, one.st_ctime)
                if not stat.S_ISDIR(one.st_mode):
                    size, files = size + (one.st_size if one.st_nlink == 1 else 0), files + 1
    return size, files, newest


def artifact_folders(storage: Storage, asset: str, named: Collection[str], before: float) -> list[Leftover]:
    """Folders of an artifact that are not `named` by its pointer, nor open, nor young."""
    home = artifacts.folder_of(storage, asset)
    if isinstance(home, Bucket):
        found = artifacts.shelf_of(storage, asset).leftovers(named, before)
        return [Leftover(Path(f"{storage.data}/{path}"), size, count, path) for path, size, count in found]
    return [
        one
        for one in folders_below(home, before)
        if one.path.name not in named and not one.path.name.startswith(POINTER)
    ]


def artifact_versions(storage: Storage, asset: str) -> tuple[list[Published], Hold | None]:
    return artifacts.published(storage, asset), artifacts.hold(storage, asset)


def remove(path: Path) -> None:
    """Delete a file or a folder, in whatever order: a half-deleted orphan is an orphan too."""
    if path.is_symlink() or not path.is_dir():
        with suppress(FileNotFoundError):
            path.unlink()
        return
    for below in _folders(path):
        with suppress(OSError):
            below.chmod(below.stat().st_mode | stat.S_IRWXU)
    shutil.rmtree(path, ignore_errors=True)


def remove_emptied(files: Collection[Path], data: Path) -> None:
    """Remove the attempts' folders below `data` that have lost their last file."""
    for folder in {path.parent for path in files}:
        if folder.is_relative_to(data) and len(folder.relative_to(data).parts) > 2:
            with suppress(OSError):
                folder.rmdir()
    with suppress(OSError):
        fsync_path(data)


def _folders(path: Path) -> Iterator[Path]:
    yield path
    for folder, below, _ in os.walk(path):
        yield from (Path(folder, name) for name in below)
