"""Which landing files have arrived: what a file sensor remembers between two looks.

sighting   a file's size in bytes and its time of change in nanoseconds
settled    seen twice in a row with the same sighting; until then somebody may still be writing it
object     one of a bucket appears whole: it is settled when it is seen
arrival    a settled file whose content is new: never seen before, or rewritten. A touch is none, nor is a deletion
token      the name of what has arrived so far: the same arrivals after the same past give the same token, so a look
           that is repeated after a crash asks for the same run, and going back to earlier content for another one

A look at n files that have not changed costs one `lstat` for each, and reads none of them.
Memory travels as text. Dagster stores that text with every tick, so a long one goes into a file that it names.
"""

from __future__ import annotations

import glob as globbing
import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ratatouille.engine.landing import UNFINISHED, is_object, matching_files, status

FOLDER = ".rat/arrivals"
LONGEST_TEXT = 16_000  # characters of a memory that travels by itself: about 150 files
HASHED_BYTES = 256_000_000  # per look; larger arrivals have no checksum, and a touch of them counts as a rewrite

_FILE = re.compile(r'^\{"file": "([^"]+)"\}$')

Sighting = tuple[int, int]
Known = tuple[int, int, str]  # sighting and checksum; '' where it was not computed


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of the files that were there at the last look. Paths are relative to the workspace's root."""

    token: str = ""
    known: Mapping[str, Known] = field(default_factory=dict)
    unsettled: Mapping[str, Sighting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    memory: Memory
    arrived: tuple[str, ...] = ()


def look(root: Path, pattern: str, memory: Memory) -> Look:
    """Compare the files that match `pattern` now with what is remembered of them."""
    if is_object(pattern):
        return _look_at_objects(root, pattern, memory)
    now = sightings(root, pattern)
    if not now and not _fixed_folder(root, pattern).is_dir():
        return Look(memory)  # a share that is not mounted has not lost its files
    known: dict[str, Known] = {}
    unsettled: dict[str, Sighting] = {}
    arrived = []
    budget = HASHED_BYTES
    for file, seen in sorted(now.items()):
        old = memory.known.get(file)
        if old is not None and old[:2] == seen:
            known[file] = old
            continue
        checksum = None
        if memory.unsettled.get(file) == seen:
            checksum = _checksum(root / file, seen) if seen[0] <= budget else ""
        if checksum is None:
            unsettled[file] = seen
            known |= {file: old} if old else {}
            continue
        budget -= seen[0] if checksum else 0
        known[file] = (*seen, checksum)
        if old is None or not checksum or checksum != old[2]:
            arrived.append(file)
    token = _token(memory.token, [(file, *known[file]) for file in arrived]) if arrived else memory.token
    return Look(Memory(token, known, unsettled), tuple(arrived))


def _look_at_objects(root: Path, pattern: str, memory: Memory) -> Look:
    """Objects appear whole, so one look is enough; other bytes are another time (see `engine.landing.objects`).

    Only a listing is asked for, so an object that is written again with the same content is an arrival, too: the run
    that it asks for finds nothing to do. RatError when nobody answers.
    """
    now = {file: status(root, file) for file in matching_files(root, pattern)}
    known = {file: (*seen, "") for file, seen in now.items()}
    arrived = [file for file, one in known.items() if memory.known.get(file) != one]
    token = _token(memory.token, [(file, *known[file]) for file in arrived]) if arrived else memory.token
    return Look(Memory(token, known), tuple(arrived))


def sightings(root: Path, pattern: str) -> dict[str, Sighting]:
    """Files below `root` that match; hidden and unfinished ones and links out of `root` are left out.

    They are the files that a step would read (`engine.landing.matching_files`), at one system call each.
    """
    found = {}
    base = f"{root}/"
    for name in globbing.iglob(PurePosixPath(pattern).as_posix(), root_dir=root, recursive=True):
        if name.endswith(UNFINISHED) or name.startswith(".") or "/." in name:
            continue
        path = base + name
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                if not Path(path).resolve().is_relative_to(root.resolve()):
                    continue
                status = os.stat(path)
        except OSError:
            continue  # deleted a moment ago, or a link to nothing
        if stat.S_ISREG(status.st_mode):
            found[name] = (status.st_size, status.st_mtime_ns)
    return found


def _fixed_folder(root: Path, pattern: str) -> Path:
    """The part of a pattern that has no wildcard."""
    fixed = []
    for part in PurePosixPath(pattern).parts[:-1]:
        if globbing.has_magic(part):
            break
        fixed.append(part)
    return root.joinpath(*fixed)


def _checksum(path: Path, seen: Sighting) -> str | None:
    """Of a settled file; None if it was changed or deleted meanwhile."""
    try:
        with open(path, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            after = os.fstat(handle.fileno())
    except OSError:
        return None
    return digest[:16] if (after.st_size, after.st_mtime_ns) == seen else None


def _token(before: str, arrivals: list[tuple[str, int, int, str]]) -> str:
    return hashlib.sha256(json.dumps([before, arrivals]).encode()).hexdigest()[:16]


# Memory as text


def as_text(memory: Memory, root: Path, name: str, before: str = "") -> str:
    """The memory of the sensor called `name`, to be given back to `from_text`. `before` is what it gave last time.

    OSError when it is too long to travel by itself and the workspace cannot be written to.
    """
    facts = {"token": memory.token, "known": dict(memory.known), "unsettled": dict(memory.unsettled)}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    kept = _FILE.findall(before)
    if len(text) > LONGEST_TEXT:
        file = f"{name}-{_digest(text)}.json"
        _write(root / FOLDER / file, text)
        kept.append(file)
        text = json.dumps({"file": file})
    _forget(root, name, kept)
    return text


def from_text(text: str | None, root: Path) -> Memory:
    """What was remembered. An empty memory if there was none or its file is gone: then all files arrive once more,
    and a step that has read them already has nothing to do."""
    try:
        facts = json.loads(text or "{}")
        if "file" in facts:
            name = PurePosixPath(facts["file"]).name
            raw = (root / FOLDER / name).read_text(encoding="utf-8")
            facts = json.loads(raw) if name.endswith(f"-{_digest(raw)}.json") else {}
        known = {file: (int(size), int(at), str(sha)) for file, (size, at, sha) in facts["known"].items()}
        unsettled = {file: (int(size), int(at)) for file, (size, at) in facts["unsettled"].items()}
        return Memory(str(facts["token"]), known, unsettled)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return Memory()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    """Whole or not at all; it need not outlast a power cut."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    beside.write_text(text, encoding="utf-8")
    beside.rename(path)


def _forget(root: Path, name: str, kept: Collection[str]) -> None:
    """Remove the sensor's older files. The one before the newest stays: a tick that fails is repeated from it."""
    for path in (root / FOLDER).glob(f"{globbing.escape(name)}-{'[0-9a-f]' * 16}.json"):
        if path.name not in kept:
            with suppress(OSError):
                path.unlink()
