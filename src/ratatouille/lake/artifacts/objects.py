"""Artifacts in a bucket, below `.artifacts/<asset>/`.

    files/<sha256>                       a file's bytes, once for all versions that have it
    versions/<run id>/manifest.json      one version: which files, under which names; written last

The pointer is a row beside the catalog. Loading brings files to this machine once and keeps them by their hash.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratatouille.errors import LakeError
from ratatouille.lake.catalogs.server import Server
from ratatouille.lake.connect import Storage
from ratatouille.lake.places.bucket import Bucket
from ratatouille.lake.places.durable import checksum
from ratatouille.lake.quoting import ident
from ratatouille.lake.stage import Staged, StagedFile

if TYPE_CHECKING:
    import psycopg

_TABLE = "ratatouille_artifacts"

MANIFEST = "manifest.json"


class ObjectShelf:
    """One artifact: what `artifacts.Shelf` asks for."""

    def __init__(self, storage: Storage, asset: str) -> None:
        assert isinstance(storage.artifacts, Bucket) and isinstance(storage.catalog, Server)  # noqa: S101  see lake_address
        self.asset, self.server = asset, storage.catalog
        self.place = storage.artifacts / asset
        self.cache = storage.home / "cache" / "artifacts"

    # The pointer

    def locked(self, doing: str) -> AbstractContextManager[None]:
        return self.server.exclusive(doing, 60.0, f"artifact {self.asset}")

    def pointer(self) -> dict[str, Any]:
        with _asking(self.server, "reading a pointer") as ask:
            if not _is_there(ask, self.server):
                return {}
            found = ask.execute(f"select pointer from {_pointers(self.server)} where asset = %s", (self.asset,))
            row = found.fetchone()
        return dict(json.loads(row[0])) if row else {}

    def move(self, said: Mapping[str, Any]) -> None:
        table = _pointers(self.server)
        with _asking(self.server, f"publishing {self.asset}") as ask:
            if not _is_there(ask, self.server):
                with self.server.exclusive("making room for pointers", 60.0, "pointers"):
                    ask.execute(f"create table if not exists {table} (asset text primary key, pointer text not null)")
            ask.execute(
                f"insert into {table} values (%s, %s) on conflict (asset) do update set pointer = excluded.pointer",
                (self.asset, json.dumps(said, default=str)),
            )

    # Versions

    def keep(self, aside: Path, run_id: str, attempt: str, facts: Mapping[str, Any]) -> Staged:
        there = {one.path: one.bytes for one in self.place.listed("files", f"storing {self.asset}")}
        listed: list[dict[str, Any]] = []
        new: dict[str, Path] = {}
        for path in sorted(aside.rglob("*")):
            if path.is_symlink():
                said = f"{path.relative_to(aside)} is a link"
                raise LakeError(said, where=self.asset, next="put the file itself into the folder")
            if not path.is_file():
                continue
            with open(path, "rb") as handle:
                digest = checksum(handle)
            size = path.stat().st_size
            listed.append({"path": path.relative_to(aside).as_posix(), "bytes": size, "sha256": digest})
            if there.get(f"files/{digest}") != size:
                new[f"files/{digest}"] = path
        if new:
            self.place.upload(((path, name) for name, path in new.items()), f"storing {self.asset}")
        taken = {one.path.split("/")[1] for one in self.place.listed("versions")}
        name = run_id if run_id not in taken else f"{run_id}-{attempt}"
        manifest = json.dumps({**facts, "files": listed}, indent=1, default=str).encode()
        self.place.put(f"versions/{name}/{MANIFEST}", manifest, f"storing {self.asset}")
        files = [StagedFile(f"{self.place}/files/{one['sha256']}", 0, one["bytes"], one["sha256"]) for one in listed]
        return Staged(self.place / "versions" / name, (), tuple(files))

    def _manifest(self, folder: str) -> dict[str, Any]:
        try:
            return dict(json.loads(b"".join(self.place.chunks(f"versions/{folder}/{MANIFEST}"))))
        except (FileNotFoundError, ValueError) as error:
            raise self._damaged(f"versions/{folder}/{MANIFEST}", "the manifest cannot be read") from error

    def fetch(self, folder: str) -> tuple[Path, dict[str, Any]]:
        manifest = self._manifest(folder)
        whole = self.cache / self.asset / folder
        aside = whole.with_name(f".{folder}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        for file in manifest["files"]:
            kept = self._cached(file)
            name = aside / file["path"]
            if not name.resolve().is_relative_to(aside.resolve()):
                raise self._damaged(f"versions/{folder}/{MANIFEST}", f"it names {file['path']}")
            name.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.link(kept, name)
        aside.mkdir(parents=True, exist_ok=True, mode=0o700)
        (aside / MANIFEST).write_text(json.dumps(manifest))
        shutil.rmtree(whole, ignore_errors=True)
        os.replace(aside, whole)
        return whole, manifest

    def _cached(self, file: Mapping[str, Any]) -> Path:
        """The file on this machine: what was brought before, if its bytes are still those, else brought now."""
        kept: Path = self.cache / "files" / file["sha256"]
        if kept.exists():
            with open(kept, "rb") as handle:
                if checksum(handle) == file["sha256"]:
                    return kept
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = kept.with_name(f".{kept.name}.{os.getpid()}")
        try:
            digest = self.place.download(f"files/{file['sha256']}", aside)
        except FileNotFoundError:
            raise self._damaged(file["path"], "it is gone") from None
        if digest != file["sha256"]:
            aside.unlink()
            raise self._damaged(file["path"], "its checksum is not the one it was published with")
        aside.chmod(0o444)
        os.replace(aside, kept)
        return kept

    def check(self, folder: str) -> dict[str, Any]:
        manifest = self._manifest(folder)
        there = {one.path: one.bytes for one in self.place.listed("files")}
        for file in manifest["files"]:
            name = f"files/{file['sha256']}"
            if name not in there:
                raise self._damaged(file["path"], "it is gone")
            if there[name] != file["bytes"]:
                said = f"it has {there[name]:,} bytes instead of {file['bytes']:,}"
                raise self._damaged(file["path"], said)
            if self.place.sha256(name) != file["sha256"]:
                raise self._damaged(file["path"], "its checksum is not the one it was published with")
        return manifest

    def _damaged(self, path: str, why: str) -> LakeError:
        return LakeError(
            f"the artifact {self.asset} is damaged",
            where=f"{path}: {why}",
            state="Nothing was loaded from it.",
            next="materialize it again, or go back to a version that is whole",
        )

    def leftovers(self, named: Collection[str], before: float) -> list[tuple[str, int, int]]:
        there = self.place.listed(doing="looking for old artifacts")
        manifests = {one.path.split("/")[1]: one for one in there if one.path.startswith("versions/")}
        gone = {name: one for name, one in manifests.items() if name not in named and one.modified < before}
        needed = {
            f"files/{file['sha256']}"
            for name in manifests
            if name not in gone
            for file in self._manifest(name)["files"]
        }
        files = [one for one in there if one.path.startswith("files/") and one.path not in needed]
        old = [*gone.values(), *(one for one in files if one.modified < before)]
        return [(f".artifacts/{self.asset}/{one.path}", one.bytes, 1) for one in old]


def names_in(storage: Storage) -> list[str]:
    assert isinstance(storage.catalog, Server)  # noqa: S101  see lake_address
    with _asking(storage.catalog, "reading the pointers") as ask:
        if not _is_there(ask, storage.catalog):
            return []
        rows = ask.execute(f"select asset from {_pointers(storage.catalog)} order by asset").fetchall()
    return [row[0] for row in rows]


def _pointers(server: Server) -> str:
    return f"{ident(server.schema)}.{_TABLE}"


def _is_there(ask: psycopg.Connection[Any], server: Server) -> bool:
    found = ask.execute("select to_regclass(%s)", (f"{server.schema}.{_TABLE}",)).fetchone()
    return bool(found and found[0])


@contextmanager
def _asking(server: Server, doing: str) -> Iterator[psycopg.Connection[Any]]:
    import psycopg

    connection = server.connect(doing)
    try:
        yield connection
    except psycopg.Error as error:
        raise server.explained(error, doing) from None
    finally:
        connection.close()
