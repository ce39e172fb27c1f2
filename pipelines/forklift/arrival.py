"""How telemetry arrives: the objects below a prefix at one commit become the files of the landing zone.

Only what changed is downloaded, several objects at a time, beside the landing zone; when all of it is there and checked
the files are renamed into place and the manifest is written. A stopped arrival goes on where it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.forklift.lakefs import Commit, LakeFSError, Object, Source
from pipelines.forklift.landing import (
    FOLDER,
    TOMBSTONE,
    Landed,
    Manifest,
    read_manifest,
    sha256_of,
    write_manifest,
    write_whole,
)

ASIDE = ".arriving"  # hidden, so no asset reads it
WORKERS = 8


@dataclass(frozen=True)
class Arrival:
    """What came of a commit. Names are paths below landing/forklift; `skipped` are objects that are no telemetry."""

    commit: Commit
    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0
    skipped: tuple[str, ...] = ()
    bytes: int = 0  # downloaded

    @property
    def file_count(self) -> int:
        return len(self.new) + len(self.changed) + self.unchanged


def fetch(root: Path, source: Source, prefix: str, *, commit_id: str = "", workers: int = WORKERS) -> Arrival:
    """Bring landing/forklift of the workspace at `root` to a commit (default: the head). Raises LakeFSError.

    Until every object is there and checked the files stay as they were.
    """
    prefix = prefix.strip("/")
    with alone_in(root / FOLDER):
        before = read_manifest(root)
        commit = source.commit(commit_id) if commit_id else source.head()
        listed, skipped = _telemetry(source, commit, f"{prefix}/" if prefix else "")
        wanted = [one for one in listed.values() if not _is_here(root, before, one)]
        aside = root / FOLDER / ASIDE
        aside.mkdir(parents=True, exist_ok=True)
        came = _download_all(source, commit, wanted, aside, workers)
        files = {name: landed for name, landed in before.files.items() if name in listed}
        for one in wanted:
            target = root / FOLDER / one.path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(_part(aside, one), target)
            files[one.path] = Landed(
                one.path, commit.id, one.checksum, came[one.path], target.stat().st_size, target.stat().st_mtime_ns
            )
        gone = sorted(set(before.files) - set(listed))
        for name in gone:
            write_whole(root / FOLDER / name, TOMBSTONE)
        removed = {name: at for name, at in before.removed.items() if name not in listed} | dict.fromkeys(
            gone, commit.id
        )
        write_manifest(
            root,
            Manifest(
                commit_id=commit.id,
                repository=source.repository,
                branch=source.branch,
                prefix=prefix,
                committed_at=commit.created_at,
                message=commit.message,
                metadata=commit.metadata,
                files=files,
                removed=removed,
            ),
        )
        shutil.rmtree(aside, ignore_errors=True)
    known = set(before.files)
    return Arrival(
        commit=commit,
        new=tuple(sorted(one.path for one in wanted if one.path not in known)),
        changed=tuple(sorted(one.path for one in wanted if one.path in known)),
        removed=tuple(gone),
        unchanged=len(listed) - len(wanted),
        skipped=tuple(skipped),
        bytes=sum(one.bytes for one in wanted),
    )


def _telemetry(source: Source, commit: Commit, prefix: str) -> tuple[dict[str, Object], list[str]]:
    found, skipped = {}, []
    for one in source.objects(commit, prefix):
        parts = PurePosixPath(one.path).parts
        plain = all(part not in ("", ".", "..") and not part.startswith(".") and part.isprintable() for part in parts)
        if plain and not one.path.startswith("/") and one.path.endswith((".csv", ".csv.gz")):
            found[one.path] = one
        else:
            skipped.append(one.path)
    if not found:
        raise LakeFSError(
            f"There is no telemetry (*.csv) below {prefix or 'the root'} at {commit.id[:12]}",
            where=f"repository {source.repository}, branch {source.branch}",
            next="Look at prefix of the lakefs resource; a commit that removes every file is not followed.",
        )
    return found, skipped


def _is_here(root: Path, manifest: Manifest, one: Object) -> bool:
    landed, path = manifest.files.get(one.path), root / FOLDER / one.path
    if landed is None or landed.checksum != one.checksum or not path.is_file():
        return False
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) == (landed.bytes, landed.modified_ns):
        return True
    return status.st_size == landed.bytes and sha256_of(path) == landed.sha256


def _download_all(
    source: Source, commit: Commit, wanted: Sequence[Object], aside: Path, workers: int
) -> dict[str, str]:
    """Object -> sha256. The first failure stops the ones that have not begun."""
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="lakefs")
    try:
        running = {one.path: pool.submit(source.download, commit, one, _part(aside, one)) for one in wanted}
        return {path: future.result() for path, future in running.items()}
    finally:
        pool.shutdown(cancel_futures=True)


def _part(aside: Path, one: Object) -> Path:
    """One file for each content, flat: two objects with the same content are not the same part."""
    return aside / f"{hashlib.sha256(f'{one.path} {one.checksum}'.encode()).hexdigest()[:32]}.part"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One arrival at a time. The lock goes with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LakeFSError(
                "Another arrival is at work in this folder", where=str(folder), next="Wait until it is done."
            ) from error
        yield
