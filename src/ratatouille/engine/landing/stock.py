"""The landing files that match a source, compared with what the asset's current version came from."""

from __future__ import annotations

import glob as globbing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ratatouille.engine.landing import objects
from ratatouille.engine.landing.inspection import sha256_of
from ratatouille.lake import LandingFile
from ratatouille.project.records import Source

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".filepart", "~")


@dataclass(frozen=True, slots=True)
class Stock:
    """Files of one source by what is known of them; paths relative to the workspace root."""

    fresh: tuple[str, ...] = ()  # never read by this asset
    changed: tuple[str, ...] = ()  # read before, with other content
    known: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()  # read before, not there any more
    aside: tuple[str, ...] = ()  # could not be read, and did not change since

    @property
    def to_read(self) -> tuple[str, ...]:
        return self.fresh + self.changed

    @property
    def all(self) -> tuple[str, ...]:
        """What a rebuild reads: files that were set aside get another chance."""
        return self.fresh + self.changed + self.known + self.aside


def take_stock(
    root: Path,
    sources: Iterable[Source],
    remembered: Iterable[LandingFile],
    set_aside: Mapping[str, tuple[int, int]],
) -> Stock:
    """Compare the files that match `sources` with what the asset remembers. Only touched files are hashed.

    `set_aside` holds (bytes, modification time) of files that could not be read.
    """
    memory = {file.file: file for file in remembered}
    found = {file: None for source in sources for file in matching_files(root, source.glob)}
    fresh, changed, known, aside = [], [], [], []
    for file in found:
        old = memory.get(file)
        size, modified_ns = objects.status(root, file)
        if set_aside.get(file) == (size, modified_ns):
            aside.append(file)
            continue
        if old is None:
            fresh.append(file)
            continue
        same = (size, modified_ns) == (old.bytes, old.modified_ns)
        if same or (size == old.bytes and _known_sha256(root, file, size, modified_ns) == old.sha256):
            known.append(file)
        else:
            changed.append(file)
    gone = [file for file in memory if file not in found]
    return Stock(tuple(fresh), tuple(changed), tuple(known), tuple(gone), tuple(aside))


def matching_files(root: Path, pattern: str) -> list[str]:
    """Files below `root` that match, sorted; hidden and unfinished ones and links out of `root` are left out.

    Or objects of a bucket, by their whole address.
    """
    if objects.is_object(pattern):
        return [file for file in objects.matching_objects(pattern) if not file.endswith(UNFINISHED)]
    found = []
    for name in globbing.glob(pattern, root_dir=root, recursive=True):
        path = root / name
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if hidden or name.endswith(UNFINISHED) or not path.is_file():
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            continue
        found.append(Path(name).as_posix())
    return sorted(found)


@lru_cache(maxsize=10_000)
def _known_sha256(root: Path, file: str, size: int, modified_ns: int) -> str:
    """Of a file that was touched: one run asks several times."""
    return sha256_of(objects.fetched(root, file))
