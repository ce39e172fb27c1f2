"""Beside: the servers of one workspace know of each other, so that their pages lead to each other.

A server writes where it is into a file, and keeps the file locked for as long as it lives: an address in a file that
nobody holds is of yesterday.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DAGSTER = Path(".rat", "dagster", "rat-dev.lock")  # dagster/serve.py holds it
PAGES = Path(".rat", "ui.lock")


def address_of(root: Path, server: Path) -> str:
    """Where a server of the workspace at `root` is; '' when it does not run."""
    try:
        with (root / server).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                said = file.read(500).decode("utf-8", "replace").split()
                return said[0] if said and said[0].startswith(("http://", "https://")) else ""
    except OSError:
        pass
    return ""


@contextmanager
def announced(root: Path, server: Path, address: str) -> Iterator[bool]:
    """Whether others find the address while the block runs: where another one is there already, or no file can be made, they do not."""
    path = root / server
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        held = False
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{address} (process {os.getpid()})\n".encode(), 0)
            held = True
        yield held
    finally:
        os.close(descriptor)
