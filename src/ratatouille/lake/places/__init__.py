"""The two places where data may lie behind one interface: a folder, and a bucket.

relative    the path of a file below the data folder: how manifests and the catalog name it
kept        second names of what a commit has written, until it is known what became of the commit: see unsettled.py
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ratatouille.lake import unsettled
from ratatouille.lake.places.bucket import Bucket, deadline_s, publishing_limits
from ratatouille.lake.places.durable import checksum, fsync_folders, fsync_path

if TYPE_CHECKING:
    from ratatouille.lake.catalogs.server import Server

_CLOCK_S = 2.0  # by so much two clocks of one machine may differ


class Files(Protocol):
    """What publishing and upkeep ask of the place of the data."""

    limits: Sequence[str]  # settings of a session that publishes
    retry_within_s: float  # a publish that met a passing fault is tried again for so long

    def relative(self, path: str) -> str: ...

    def absolute(self, relative: str) -> str: ...

    def written(self, folders: Collection[str], started: float, *, deep: bool = False) -> list[str]:
        """The files that DuckLake itself has written into `folders` since `started` (`deep`: and below them); durable
        now."""

    def keep(self, run_id: str, files: Sequence[str]) -> Any:
        """Give files second names; what `restore` and `forget` want to know of it, None without files."""

    def restore(self, kept: Any) -> list[str]:
        """Give files their names back where they have lost them; these names."""

    def forget(self, kept: Any, files: Sequence[str] = ()) -> None:
        """Take the second names away; `files` go as well."""

    def heal(self, catalog: Path | Server) -> None:
        """Restore what processes have left that died before they knew."""

    def sizes(self, folders: Collection[str], wanted: Collection[str]) -> Mapping[str, int]:
        """relative -> bytes, of those of `wanted` that are there. They lie below `folders`."""

    def sha256(self, relative: str) -> str:
        """FileNotFoundError or another OSError where it cannot be read."""

    def remove(self, files: Iterable[str]) -> None: ...

    def remove_folder(self, relative: str) -> None:
        """Remove a folder if it is empty."""


class _Folder:
    limits: Sequence[str] = ()
    retry_within_s = 60.0

    def __init__(self, data: Path) -> None:
        self.data = data

    def relative(self, path: str) -> str:
        return os.path.relpath(self.data / path, self.data)

    def absolute(self, relative: str) -> str:
        return str(self.data / relative)

    def written(self, folders: Collection[str], started: float, *, deep: bool = False) -> list[str]:
        found: list[str] = []
        for folder in (self.data / one for one in folders):
            if not folder.is_dir():
                continue
            names = folder.rglob("ducklake-*") if deep else map(Path, _named(folder, "ducklake-"))
            fresh = [path for path in names if path.stat().st_mtime >= started - _CLOCK_S]
            for path in fresh:
                fsync_path(path)
            for below in {path.parent for path in fresh}:
                fsync_folders(below, self.data)
            found += [self.relative(str(path)) for path in fresh]
        return found

    def keep(self, run_id: str, files: Sequence[str]) -> Path | None:
        return unsettled.keep(self.data, run_id, [self.data / one for one in files])

    def restore(self, kept: Path | None) -> list[str]:
        return [self.relative(str(path)) for path in unsettled.restore(self.data, kept)]

    def forget(self, kept: Path | None, files: Sequence[str] = ()) -> None:
        unsettled.forget(kept, [self.data / one for one in files])

    def heal(self, catalog: Path | Server) -> None:
        unsettled.heal(catalog, self.data)

    def sizes(self, folders: Collection[str], wanted: Collection[str]) -> dict[str, int]:
        found = {}
        for path in wanted:
            with suppress(FileNotFoundError):
                found[path] = os.stat(self.data / path).st_size
        return found

    def sha256(self, relative: str) -> str:
        with open(self.data / relative, "rb") as handle:
            return checksum(handle)

    def remove(self, files: Iterable[str]) -> None:
        for file in files:
            (self.data / file).unlink(missing_ok=True)

    def remove_folder(self, relative: str) -> None:
        with suppress(OSError):
            (self.data / relative).rmdir()


class _Bucket:
    def __init__(self, data: Bucket) -> None:
        self.data = data
        self.limits: Sequence[str] = publishing_limits()
        self.retry_within_s = deadline_s()

    def relative(self, path: str) -> str:
        return self.data.relative(path)

    def absolute(self, relative: str) -> str:
        return f"{self.data}/{relative}" if not relative.startswith("s3://") else relative

    def written(self, folders: Collection[str], started: float, *, deep: bool = False) -> list[str]:
        """An object that can be listed is durable. Its name holds the time by our clock, not by the server's."""
        found = [one.path for folder in sorted(folders) for one in self.data.listed(folder)]
        return [one for one in found if (made_at(one) or 0.0) >= started - _CLOCK_S]

    def keep(self, run_id: str, files: Sequence[str]) -> str | None:
        if not files:
            return None
        folder = f"{unsettled.FOLDER}/{run_id}-{time.time_ns()}"
        self.data.copy(((file, f"{folder}/{file}") for file in files), "keeping what the commit has written")
        return folder

    def restore(self, kept: str | None) -> list[str]:
        if kept is None:
            return []
        names = [one.path.removeprefix(f"{kept}/") for one in self.data.listed(kept)]
        folders = {os.path.dirname(name) for name in names}
        there = {one.path for folder in folders for one in self.data.listed(folder)}
        lost = [name for name in names if name not in there]
        self.data.copy(((f"{kept}/{name}", name) for name in lost), "restoring what the commit has written")
        return lost

    def forget(self, kept: str | None, files: Sequence[str] = ()) -> None:
        gone = list(files) + ([one.path for one in self.data.listed(kept)] if kept is not None else [])
        if gone:
            self.data.delete(gone)

    def heal(self, catalog: Path | Server) -> None:
        left = sorted({"/".join(one.path.split("/")[:2]) for one in self.data.listed(unsettled.FOLDER)})
        if left:
            unsettled.settle_left(catalog, left, self.restore, self.forget)

    def sizes(self, folders: Collection[str], wanted: Collection[str]) -> dict[str, int]:
        known = set(wanted)
        found = (one for folder in sorted(folders) for one in self.data.listed(folder))
        return {one.path: one.bytes for one in found if one.path in known}

    def sha256(self, relative: str) -> str:
        return self.data.sha256(relative)

    def remove(self, files: Iterable[str]) -> None:
        self.data.delete(list(files))

    def remove_folder(self, relative: str) -> None:
        pass  # a bucket has none


def _named(folder: Path, start: str) -> list[str]:
    with os.scandir(folder) as found:
        return [one.path for one in found if one.name.startswith(start)]


def files_of(data: Path | Bucket) -> Files:
    return _Bucket(data) if isinstance(data, Bucket) else _Folder(data)


def made_at(path: str) -> float | None:
    """When DuckLake gave a file its name, in seconds since 1970: the name is a UUID of version 7."""
    name = path.rpartition("/")[2].removeprefix("ducklake-").replace("-", "")[:12]
    try:
        return int(name, 16) / 1000 if path.rpartition("/")[2].startswith("ducklake-") else None
    except ValueError:
        return None
