"""Landing files that are objects of a bucket: `s3://bucket/folder/*.csv`.

listed     one listing gives size and time of every object. That is what decides whether one is new, so nothing is
           fetched to plan, and two machines come to the same answer
fetched    an object that is read is brought to this machine once, whole, into `.rat/s3/`, with the listing's time: from
           there on it is a landing file like any other
stamp      an object's time; its fraction of a second holds a part of the etag, so that other bytes are another stamp
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from ratatouille.lake.places.bucket import Bucket, Found

SCHEME = "s3://"
MIRROR = ".rat/s3"
_MAGIC = re.compile(r"[*?[]")
_seen: dict[str, Found] = {}  # of the last listings of this process: file -> what it said


def is_object(name: str) -> bool:
    return name.startswith(SCHEME)


def matching_objects(pattern: str) -> list[str]:
    """Objects that match, sorted."""
    bucket = Bucket.of(pattern.partition("*")[0]).bucket
    wanted = re.compile(_as_regex(pattern.removeprefix(f"{SCHEME}{bucket}/")))
    fixed = _MAGIC.split(pattern.removeprefix(f"{SCHEME}{bucket}/"))[0].rpartition("/")[0]
    found = Bucket(bucket).listed(fixed, f"listing {pattern}")
    mine = {f"{SCHEME}{bucket}/{one.path}": one for one in found if wanted.fullmatch(one.path)}
    before = f"{SCHEME}{bucket}/"
    for gone in [
        f for f in _seen if f.startswith(before) and wanted.fullmatch(f.removeprefix(before)) and f not in mine
    ]:
        del _seen[gone]
    _seen.update(mine)
    return sorted(mine)


def status(root: Path, file: str) -> tuple[int, int]:
    """(bytes, time in ns) of a landing file, wherever it is. OSError where it is gone."""
    if not is_object(file):
        found = os.stat(root / file)
        return found.st_size, found.st_mtime_ns
    return _listed(file).bytes, _stamp(_listed(file))


def is_there(root: Path, file: str) -> bool:
    try:
        status(root, file)
    except OSError:
        return False
    return True


def path_of(root: Path, file: str) -> Path:
    """Where the bytes of a landing file are on this machine. An object must have been fetched."""
    return root / MIRROR / file.removeprefix(SCHEME) if is_object(file) else root / file


def name_of(root: Path, path: str) -> str:
    """The landing file at a path: what `path_of` undoes."""
    name = Path(path).relative_to(root).as_posix()
    return SCHEME + name.removeprefix(f"{MIRROR}/") if name.startswith(f"{MIRROR}/") else name


def name_sql(root: Path, pattern: str) -> str:
    """`name_of` the column `_file`, in SQL, for the files of one source."""
    if not is_object(pattern):
        return f"substr(_file, {len(str(root)) + 2})"
    return f"'{SCHEME}' || substr(_file, {len(str(root / MIRROR)) + 2})"


def fetched(root: Path, file: str) -> Path:
    """The path of a landing file whose bytes are here now. OSError when they cannot be, RatError when nobody answers."""
    path = path_of(root, file)
    if not is_object(file):
        return path
    one = _listed(file)
    try:
        here = os.stat(path)
        if (here.st_size, here.st_mtime_ns) == (one.bytes, _stamp(one)):
            return path
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = Bucket.of(file)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        Bucket(place.bucket).download(place.prefix, aside)
        if aside.stat().st_size != one.bytes:
            raise OSError("it changed while it was being read; it is still being written")
        os.utime(aside, ns=(_stamp(one), _stamp(one)))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def _listed(file: str) -> Found:
    if file not in _seen:
        matching_objects(file)
    if file not in _seen:
        raise FileNotFoundError(file)
    return _seen[file]


def _stamp(one: Found) -> int:
    fraction = int.from_bytes(hashlib.sha256(one.etag.encode()).digest()[:4], "big") % 1_000_000_000
    return int(one.modified) * 1_000_000_000 + fraction


def _as_regex(pattern: str) -> str:
    """A glob as Python's own reads it: `**/` is any folders, `*` and `?` stay within one."""
    parts: list[str] = []
    for part in PurePosixPath(pattern).parts:
        if part == "**":
            parts.append("(?:[^/]+/)*")
            continue
        # Python's own, of one name: it ends in \\Z, and its star would run over a slash.
        parts.append(fnmatch.translate(part).removeprefix("(?s:").rpartition(")")[0].replace(".*", "[^/]*") + "/")
    hidden = r"(?!.*(?:^|/)\.)"
    return hidden + "".join(parts).removesuffix("/")
