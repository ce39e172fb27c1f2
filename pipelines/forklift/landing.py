"""The landing zone of the telemetry, and the manifest that says where its files came from.

manifest    landing/forklift/manifest.json: the head commit, and for each file its object, checksum and the commit that
            brought its content. It is written last, so what it says is on the disk
tombstone   what stays of a file that a commit removed: one line without values. So its rows leave the tables, and a
            rebuild finds every file that it remembers
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

FOLDER = "landing/forklift"
MANIFEST = "manifest.json"
TOMBSTONE = b";;;;;;;\n"
FORMAT = 1
SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("object", pa.string()),
        ("machine", pa.string()),
        ("commit_id", pa.string()),
        ("checksum", pa.string()),
        ("bytes", pa.int64()),
    ]
)


class WrongManifest(ValueError):
    """The manifest cannot be read."""


@dataclass(frozen=True)
class Landed:
    """One file of the manifest. `checksum` is what the repository says (lakeFS: an etag), `sha256` that of the bytes."""

    object: str
    commit_id: str
    checksum: str
    sha256: str
    bytes: int
    modified_ns: int = 0


@dataclass(frozen=True)
class Manifest:
    """What is in the landing zone. `files`: by their path below landing/forklift; `removed`: object -> commit."""

    commit_id: str = ""
    repository: str = ""
    branch: str = ""
    prefix: str = ""
    committed_at: str = ""
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Landed] = field(default_factory=dict)
    removed: Mapping[str, str] = field(default_factory=dict)


def read_manifest(root: Path) -> Manifest:
    """The manifest of the workspace at `root`; an empty one where there is none. Raises WrongManifest."""
    path = root / FOLDER / MANIFEST
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        files = {name: Landed(**one) for name, one in said.pop("files").items()}
        return Manifest(files=files, **said)
    except FileNotFoundError:
        return Manifest()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WrongManifest(f"{path} cannot be read: {error}. Remove it, and ingest again.") from error


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Aside, to the disk, then renamed."""
    said = {"format": FORMAT, **asdict(manifest)}
    write_whole(root / FOLDER / MANIFEST, json.dumps(said, indent=1, sort_keys=True).encode())


def write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def telemetry_files(root: Path) -> dict[str, Path]:
    """Path below landing/forklift -> path, of every telemetry file; hidden and unfinished ones are left out."""
    folder = root / FOLDER
    found = sorted(path for pattern in ("*.csv", "*.csv.gz") for path in folder.rglob(pattern) if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if not any(part.startswith(".") for part in name.split("/"))}


def machine_of(name: str) -> str:
    """`real_data/FL-0007.csv.gz` is of the machine FL-0007."""
    return name.rpartition("/")[2].removesuffix(".gz").removesuffix(".csv")


def state(root: Path) -> str:
    """A hash that changes when what `objects` tells of does, by size and time. Another commit of the same files is none."""
    digest, manifest = hashlib.sha256(), read_manifest(root)
    for name, path in telemetry_files(root).items():
        landed, status = manifest.files.get(name), path.stat()
        said = (landed.commit_id, landed.sha256, landed.bytes, landed.modified_ns) if landed else ()
        digest.update(
            f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{said}\0{manifest.removed.get(name)}\n".encode()
        )
    return digest.hexdigest()[:32]


def objects(root: Path) -> pa.Table:
    """A row for each telemetry file: file, object, machine, commit_id, checksum (sha256), bytes.

    A file that the manifest does not know, or that is not as it says, is versioned by its content.
    """
    manifest = read_manifest(root)
    known = manifest.files
    rows: list[dict[str, Any]] = []
    for name, path in telemetry_files(root).items():
        landed, status = known.get(name), path.stat()
        size = status.st_size
        if name in manifest.removed and size == len(TOMBSTONE):
            continue
        if landed is None or (landed.bytes, landed.modified_ns) != (size, status.st_mtime_ns):
            sha256 = sha256_of(path)
            landed = Landed(name, f"sha256:{sha256[:16]}", "", sha256, size)
        rows.append(
            {
                "file": f"{FOLDER}/{name}",
                "object": landed.object,
                "machine": machine_of(name),
                "commit_id": landed.commit_id,
                "checksum": landed.sha256,
                "bytes": size,
            }
        )
    return pa.Table.from_pylist(rows, SCHEMA)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
