"""Bytes and names on a disk that outlive a power cut, and their checksums."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CHUNK = 1 << 22  # 4 MiB


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable: a file is only there when its folder says so."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folders(folder: Path, root: Path) -> None:
    """fsync `folder` and every folder above it up to `root`: a file is only there when its names are."""
    while True:
        fsync_path(folder)
        if folder == root or folder.parent == folder:
            return
        folder = folder.parent


def make_private(paths: Sequence[Path]) -> None:
    """Published files are read-only: a plain `COPY ... TO` must not overwrite them."""
    for path in paths:
        os.chmod(path, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)


def checksum(handle: Any) -> str:
    digest = hashlib.sha256()
    while chunk := handle.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
