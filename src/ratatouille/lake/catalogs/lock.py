"""One writer at a time: an flock beside the catalog, which the kernel frees when its holder dies.

A catalog on a server has locks of the same meaning there: `server.py`.

Whoever reads an earlier version shares a second lock, `<catalog>.readers`: a version that expires under a reader would
give it no rows and no error, because DuckLake reads its catalog anew for each query.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ratatouille.errors import LakeError
from ratatouille.lake.catalogs.server import Server
from ratatouille.lake.faults import explain

# A publish takes tens of milliseconds; a minute of waiting means that somebody is stuck.
WAIT_S = 60.0


def exclusive(catalog: Path | Server, doing: str, *, wait_s: float | None = None) -> AbstractContextManager[None]:
    """Hold the lake's write lock; waits up to `wait_s` seconds (WAIT_S, or RATATOUILLE_LOCK_WAIT)."""
    if wait_s is None:
        wait_s = float(os.environ.get("RATATOUILLE_LOCK_WAIT", WAIT_S))
    return catalog.exclusive(doing, wait_s) if isinstance(catalog, Server) else _locked(catalog, doing, wait_s)


def looking_back(catalog: Path | Server) -> AbstractContextManager[None]:
    """While the block runs no version expires. Where no file can be made nobody cleans either."""
    return catalog.looking_back() if isinstance(catalog, Server) else _shared(catalog)


def nobody_looks_back(catalog: Path | Server) -> AbstractContextManager[bool]:
    """Gives whether nobody reads an earlier version; if so, nobody begins to while the block runs."""
    return catalog.nobody_looks_back() if isinstance(catalog, Server) else _unshared(catalog)


@contextmanager
def _locked(catalog: Path, doing: str, wait_s: float) -> Iterator[None]:
    deadline = time.monotonic() + wait_s
    try:
        descriptor = os.open(f"{catalog}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise explain(error, doing) from error
    try:
        while not _taken(descriptor):
            if time.monotonic() > deadline:
                raise LakeError(
                    f"{doing}: another process holds the lake's write lock",
                    where=_holder(descriptor) or f"{catalog}.lock",
                    next="wait for it to finish (`rat runs` shows what is running), then run the same command again",
                )
            time.sleep(random.uniform(0.002, 0.02))  # noqa: S311  jitter, not a secret
        with suppress(OSError):  # a courtesy to whoever waits; a full disk must not cost the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}, {doing}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _shared(catalog: Path) -> Iterator[None]:
    descriptor = _readers(catalog)
    try:
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def _unshared(catalog: Path) -> Iterator[bool]:
    descriptor = _readers(catalog)
    try:
        yield descriptor is not None and _taken(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _readers(catalog: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        with suppress(OSError):
            return os.open(f"{catalog}.readers", flags | os.O_CLOEXEC, 0o600)
    return None


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace")
