"""Artifacts: versions that are folders. Models, reports, data sets, anything that is files and no table.

    .rat/artifacts/<asset>/<run id>/          one version: its files, 0444, and manifest.json, written last
    .rat/artifacts/<asset>/current.json       the pointer: what was published, newest last, and the hold on it

With the data in a bucket they are objects below `.artifacts/` there, and the pointer is a row beside the catalog:
`objects.py`.

A version is written aside under a name that starts with a dot, fsynced, and renamed; then it is whole, and seen by
nobody. Publishing moves the pointer with one rename. A file that an earlier version has too is a hard link to it.
Loading compares every file with the manifest; nothing in here reads what the files mean.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ratatouille.errors import LakeError, RequestError
from ratatouille.lake.artifacts.objects import MANIFEST, ObjectShelf, names_in
from ratatouille.lake.catalogs.lock import exclusive
from ratatouille.lake.connect import Storage
from ratatouille.lake.faults import explain
from ratatouille.lake.ledger import Entry, Hold, as_record, from_record
from ratatouille.lake.places.bucket import Bucket
from ratatouille.lake.places.durable import checksum, fsync_folders, fsync_path, make_private
from ratatouille.lake.stage import Staged, StagedFile

POINTER = "current.json"
_NAME = re.compile(r"[\w][\w.\- ]*")


@dataclass(frozen=True, slots=True)
class Published:
    """One version: what the ledger would say of a table, numbered from 1; its folder, relative to the asset's."""

    folder: str
    entry: Entry


class Shelf(Protocol):
    """Where the versions of one artifact lie, and its pointer."""

    def locked(self, doing: str) -> AbstractContextManager[None]:
        """Nobody else moves the pointer while the block runs."""

    def pointer(self) -> dict[str, Any]:
        """What the pointer says, {} where nothing was published. ValueError or TypeError where it is no JSON object."""

    def move(self, said: Mapping[str, Any]) -> None:
        """Let the pointer say this, durably, in one step."""

    def keep(self, aside: Path, run_id: str, attempt: str, facts: Mapping[str, Any]) -> Staged:
        """Make the files in the folder `aside` a version: durable, checksums in its manifest, seen by nobody."""

    def fetch(self, folder: str) -> tuple[Path, dict[str, Any]]:
        """The files of a version on this machine, verified, and its manifest. LakeError names the one that is wrong."""

    def check(self, folder: str) -> dict[str, Any]:
        """The manifest of a version, when every file of it is what it says. LakeError names the one that is not."""

    def leftovers(self, named: Collection[str], before: float) -> list[tuple[str, int, int]]:
        """(path below the data, bytes, files) of objects that no version of `named` needs, older than `before`."""


def shelf_of(storage: Storage, asset: str) -> Shelf:
    home = folder_of(storage, asset)
    if isinstance(home, Bucket):
        return ObjectShelf(storage, asset)
    return _FolderShelf(home)


def folder_of(storage: Storage, asset: str) -> Path | Bucket:
    """Where an artifact's versions lie. RequestError for a name that is no folder's."""
    if not _NAME.fullmatch(asset) or ".." in asset:
        raise RequestError(f"'{asset}' is no name for an artifact", where=asset, next="use letters, digits, _ and .")
    return storage.artifacts / asset


def begin(storage: Storage, asset: str, run_id: str, attempt: str) -> Path:
    """An empty folder to write a version's files into. An attempt that dies leaves only this folder."""
    shelf_of(storage, asset)
    root = storage.artifacts if isinstance(storage.artifacts, Path) else storage.staging / ".artifacts"
    folder = root / asset / f".{run_id}-{attempt}"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise explain(error, "making room for the artifact", folder=storage.home) from error
    return folder


def finish(storage: Storage, asset: str, run_id: str, attempt: str, aside: Path, facts: Mapping[str, Any]) -> Staged:
    """Make the files durable and the folder a version; `facts` go into its manifest. Nobody sees it yet."""
    try:
        return shelf_of(storage, asset).keep(aside, run_id, attempt, {"asset": asset, "run_id": run_id, **facts})
    except OSError as error:
        raise explain(error, f"storing {asset}", folder=storage.home) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # where it has not become the version


class _FolderShelf:
    """Folders beside the catalog, and the pointer a file in their midst."""

    def __init__(self, home: Path) -> None:
        self.home, self.root = home, home.parent.parent

    def locked(self, doing: str) -> AbstractContextManager[None]:
        return exclusive(self.home / POINTER, doing)

    def pointer(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.home / POINTER).read_text()))
        except FileNotFoundError:
            return {}

    def move(self, said: Mapping[str, Any]) -> None:
        aside = self.home / f".{POINTER}.{os.getpid()}"
        try:
            _write_durably(aside, said)
            os.replace(aside, self.home / POINTER)
            fsync_path(self.home)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise explain(error, f"publishing {self.home.name}", folder=self.home) from error

    def keep(self, aside: Path, run_id: str, attempt: str, facts: Mapping[str, Any]) -> Staged:
        known, home = _stored_files(self.home), self.home
        files = [_settle(path, aside, known, home) for path in sorted(aside.rglob("*")) if path.is_file()]
        listed = [
            {"path": str(Path(file.path).relative_to(aside)), "bytes": file.bytes, "sha256": file.sha256}
            for file in files
        ]
        _write_durably(aside / MANIFEST, {**facts, "files": listed})
        make_private([aside / MANIFEST])
        for folder in sorted((path for path in aside.rglob("*") if path.is_dir()), reverse=True):
            fsync_path(folder)
        fsync_path(aside)
        version = home / run_id if not (home / run_id).exists() else home / f"{run_id}-{attempt}"
        os.rename(aside, version)
        fsync_folders(home, self.root)
        moved = [StagedFile(str(version / file["path"]), 0, file["bytes"], file["sha256"]) for file in listed]  # type: ignore[operator, arg-type]
        return Staged(version, (), tuple(moved))

    def fetch(self, folder: str) -> tuple[Path, dict[str, Any]]:
        return self.home / folder, verify(self.home / folder)

    def check(self, folder: str) -> dict[str, Any]:
        return verify(self.home / folder)

    def leftovers(self, named: Collection[str], before: float) -> list[tuple[str, int, int]]:
        return []  # folders are looked for by `leftovers.artifact_folders`


def _settle(path: Path, aside: Path, known: Mapping[str, Path], home: Path) -> StagedFile:
    """fsync one file, or make it a hard link to the same bytes of an earlier version."""
    if path.is_symlink():
        raise LakeError(
            f"{path.relative_to(aside)} is a link", where=str(home), next="put the file itself into the folder"
        )
    with open(path, "rb") as handle:
        digest = checksum(handle)
        same = known.get(digest)
        if same is None:
            os.fsync(handle.fileno())
    if same is not None and _link_instead(same, path):
        return StagedFile(str(path), 0, path.stat().st_size, digest)
    make_private([path])
    return StagedFile(str(path), 0, path.stat().st_size, digest)


def _link_instead(same: Path, path: Path) -> bool:
    """Whether `path` is now the earlier file. That one is compared first: a damaged file must not spread."""
    beside = path.with_name(f".{path.name}.link")
    try:
        with open(same, "rb") as old, open(path, "rb") as new:
            if os.fstat(old.fileno()).st_size != os.fstat(new.fileno()).st_size or checksum(old) != checksum(new):
                return False
        os.link(same, beside)
        os.replace(beside, path)
    except OSError:
        return False  # too many links, another disk, gone meanwhile: then it is stored once more
    return True


def _stored_files(home: Path) -> dict[str, Path]:
    """sha256 -> a file with these bytes, of the versions that are whole."""
    found: dict[str, Path] = {}
    for manifest in sorted(home.glob(f"[!.]*/{MANIFEST}")):
        try:
            listed = json.loads(manifest.read_text())["files"]
        except (OSError, ValueError, KeyError):
            continue
        found |= {file["sha256"]: manifest.parent / file["path"] for file in listed}
    return found


def publish(storage: Storage, entry: Entry, version: Path | Bucket) -> Entry | None:
    """Move the pointer to a finished version: the entry, with its number. None if the base is not current any more.

    A run that has published this very folder already gets the entry that it made.
    """
    shelf = shelf_of(storage, entry.asset)
    with shelf.locked(f"publishing {entry.asset}"):
        known = published(storage, entry.asset)
        for one in known:
            if (one.folder, one.entry.run_id, one.entry.action) == (version.name, entry.run_id, "build"):
                return one.entry
        if (known[-1].entry.version if known else 0) != entry.base_version:
            return None
        new = replace(entry, version=entry.base_version + 1, published_at=_now())
        _move_pointer(shelf, [*known, Published(version.name, new)], None)
    return new


def roll_back(storage: Storage, asset: str, to: int, run_id: str) -> Entry:
    """Make version `to` current again, as a new number, and put the artifact on hold at it."""
    shelf = shelf_of(storage, asset)
    with shelf.locked(f"rolling back {asset}"):
        known = published(storage, asset)
        target = next((one for one in known if one.entry.version == to), None)
        if target is None:
            some = ", ".join(str(one.entry.version) for one in known[-5:]) or "none"
            raise RequestError(
                f"{asset} has no version {to}", where=f"its newest are {some}", next="choose one of them"
            )
        shelf.check(target.folder)
        head = known[-1].entry
        new = replace(
            target.entry,
            run_id=run_id,
            version=head.version + 1,
            action="rollback",
            base_version=head.version,
            restored_version=to,
            seconds=0.0,
            published_at=_now(),
        )
        hold = Hold(asset, to, head.code_hash, run_id, _now())
        _move_pointer(shelf, [*known, Published(target.folder, new)], hold)
    return new


def release(storage: Storage, asset: str) -> Hold:
    """Take the hold off an artifact; the hold that was. RequestError if there is none."""
    shelf = shelf_of(storage, asset)
    with shelf.locked(f"releasing {asset}"):
        known, found = published(storage, asset), hold(storage, asset)
        if found is None:
            raise RequestError(f"{asset} is not on hold", where=asset, next=f"rat history {asset}")
        _move_pointer(shelf, known, None)
    return found


def names(storage: Storage) -> list[str]:
    """Every artifact that was ever published."""
    if isinstance(storage.artifacts, Bucket):
        return names_in(storage)
    return sorted(pointer.parent.name for pointer in storage.artifacts.glob(f"*/{POINTER}"))


def expire(storage: Storage, asset: str, gone: Collection[int]) -> list[str]:
    """Let the pointer name fewer versions; the folders that nothing names then. The newest is never gone."""
    shelf = shelf_of(storage, asset)
    with shelf.locked(f"expiring versions of {asset}"):
        known = published(storage, asset)
        stay = [one for one in known[:-1] if one.entry.version not in gone] + known[-1:]
        if len(stay) < len(known):
            _move_pointer(shelf, stay, hold(storage, asset))
    named = {one.folder for one in stay}
    return sorted({one.folder for one in known} - named)


def published(storage: Storage, asset: str) -> list[Published]:
    """Every version that was ever published, oldest first."""
    try:
        return [
            Published(one["folder"], from_record(one["entry"])) for one in _pointer(storage, asset).get("published", ())
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(storage, asset) from error


def hold(storage: Storage, asset: str) -> Hold | None:
    """The hold that a rollback has put on an artifact, if it is still on it."""
    said = _pointer(storage, asset).get("hold")
    return Hold(**{**said, "held_at": datetime.fromisoformat(said["held_at"])}) if said else None


def current(storage: Storage, asset: str) -> tuple[Path | Bucket, Entry] | None:
    """The folder of the newest version, not verified yet."""
    known = published(storage, asset)
    return (folder_of(storage, asset) / known[-1].folder, known[-1].entry) if known else None


def fetch(storage: Storage, asset: str, folder: str) -> tuple[Path, dict[str, Any]]:
    """The files of a version in a folder of this machine, verified; and its manifest."""
    return shelf_of(storage, asset).fetch(folder)


def _pointer(storage: Storage, asset: str) -> dict[str, Any]:
    if not _NAME.fullmatch(asset):
        return {}  # tables may be called what no folder is
    try:
        return shelf_of(storage, asset).pointer()
    except (ValueError, TypeError) as error:
        raise _unreadable(storage, asset) from error


def _unreadable(storage: Storage, asset: str) -> LakeError:
    return LakeError(
        f"the pointer of {asset} cannot be read",
        where=f"{folder_of(storage, asset)}/{POINTER}",
        next="restore it from a backup",
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def verify(version: Path) -> dict[str, Any]:
    """The manifest of a version, when every file is what it says. LakeError names the one that is not."""
    try:
        manifest: dict[str, Any] = json.loads((version / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise _damaged(version, version / MANIFEST, "the manifest cannot be read") from error
    for file in manifest["files"]:
        path = version / file["path"]
        try:
            if path.stat().st_size != file["bytes"]:
                raise _damaged(version, path, f"it has {path.stat().st_size:,} bytes instead of {file['bytes']:,}")
            with open(path, "rb") as handle:
                if checksum(handle) != file["sha256"]:
                    raise _damaged(version, path, "its checksum is not the one it was published with")
        except OSError as error:
            raise _damaged(version, path, "it cannot be read") from error
    return manifest


def _damaged(version: Path, path: Path, why: str) -> LakeError:
    return LakeError(
        f"the artifact {version.parent.name} is damaged",
        where=f"{path}: {why}",
        state="Nothing was loaded from it.",
        next="materialize it again, or go back to a version that is whole",
    )


def _move_pointer(shelf: Shelf, versions: list[Published], held: Hold | None) -> None:
    listed = [{"folder": one.folder, "entry": as_record(one.entry)} for one in versions]
    said = asdict(held) | {"held_at": held.held_at.isoformat()} if held else None
    shelf.move({"version": versions[-1].folder, "published": listed, "hold": said})


def _write_durably(path: Path, value: Mapping[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=1, default=str)
        handle.flush()
        os.fsync(handle.fileno())


def discard(version: Path) -> None:
    """Remove a version that was never published."""
    for path in version.rglob("*"):
        if path.is_dir():
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    shutil.rmtree(version, ignore_errors=True)
