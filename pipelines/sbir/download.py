"""Bulk files over HTTP into landing/: only what changed, from where a broken download stopped, whole or not at all.

python -m pipelines.sbir.download URL landing/sbir/awards/bulk/award_data.csv [--sha256 ...]

part   what came so far, beside the target as `<name>.part`: landing files with that ending are not read
notes  `.<name>.part.json`: the ETag that the part belongs to; `.<name>.json`: that of the file that is there
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ATTEMPTS = 4
TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class DownloadError(RuntimeError):
    """The file could not be fetched; what was there before is there still."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """`status`: new, or unchanged (the server said so, and nothing was written). `resumed_at`: bytes kept of before."""

    path: Path
    status: str
    bytes: int
    sha256: str
    resumed_at: int = 0


def download(
    url: str,
    target: Path,
    *,
    sha256: str = "",
    client: httpx.Client | None = None,
    pause: Callable[[float], Any] = time.sleep,
) -> Downloaded:
    """Fetch `url` as `target`. Raises DownloadError after ATTEMPTS, for a refusal, and for a checksum that differs."""
    own = client or httpx.Client(timeout=TIMEOUT, follow_redirects=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _attempt(own, url, target, sha256)
            except (httpx.TransportError, _Again) as error:
                if attempt == ATTEMPTS:
                    raise DownloadError(
                        f"{url}: {error}, {ATTEMPTS} times; what came is kept in {_part(target)}"
                    ) from error
                pause(2.0 ** (attempt - 1))
        raise AssertionError  # not reached
    finally:
        if client is None:
            own.close()


class _Again(Exception):
    """An answer that may be another one later."""


def _attempt(client: httpx.Client, url: str, target: Path, sha256: str) -> Downloaded:
    part, known, begun = _part(target), _read(_notes(target)), _read(_notes(_part(target)))
    there = part.stat().st_size if part.exists() and begun.get("etag") and begun.get("url") == url else 0
    headers = {"Accept-Encoding": "identity"}  # a range is of the bytes that are sent
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": begun["etag"]}
    elif known.get("etag") and known.get("url") == url and target.exists():
        headers |= {"If-None-Match": known["etag"]}
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return Downloaded(target, "unchanged", target.stat().st_size, known["sha256"])
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            raise _Again("the part that was there does not fit the file any more")
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.status_code >= 500:
            raise _Again(f"the server answered {answer.status_code}")
        if answer.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise DownloadError(f"{url}: the server answered {answer.status_code}")
        resumed_at = there if answer.status_code == httpx.codes.PARTIAL_CONTENT else 0
        etag = answer.headers.get("ETag", "")
        # A weak ETag does not promise the same bytes, so its part could not be gone on with.
        _write(_notes(part), {"url": url, "etag": "" if etag.startswith("W/") else etag})
        length = answer.headers.get("Content-Length")
        wanted = resumed_at + int(length) if length and not answer.headers.get("Content-Encoding") else None
        with part.open("ab" if resumed_at else "wb") as out:
            for chunk in answer.iter_bytes():
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    size = part.stat().st_size
    if wanted is not None and size != wanted:
        raise _Again(f"{size:,} of {wanted:,} bytes came")
    with part.open("rb") as whole:
        found = hashlib.file_digest(whole, "sha256").hexdigest()
    if sha256 and found != sha256.lower():
        part.unlink()
        raise DownloadError(
            f"{url}: its SHA-256 is {found}, and {sha256.lower()} was asked for; {target.name} is as it was"
        )
    part.replace(target)
    _notes(part).unlink(missing_ok=True)
    _write(_notes(target), {"url": url, "etag": etag, "sha256": found})
    return Downloaded(target, "new", size, found, resumed_at)


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _notes(path: Path) -> Path:
    return path.with_name(f".{path.name}.json")


def _read(path: Path) -> dict[str, str]:
    try:
        said = json.loads(path.read_text())
        return dict(said) if isinstance(said, dict) else {}
    except (OSError, ValueError):
        return {}


def _write(path: Path, said: dict[str, str]) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(said))
    beside.replace(path)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("to", type=Path)
    parser.add_argument("--sha256", default="")
    asked = parser.parse_args(arguments)
    try:
        done = download(asked.url, asked.to, sha256=asked.sha256)
    except DownloadError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{done.path}: {done.status}, {done.bytes:,} bytes, sha256 {done.sha256}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
