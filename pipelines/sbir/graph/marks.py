"""The marks of a graph in a file, noted beside it: so that a plan need not open the file (and load ladybug).

The note holds the marks that were compared with what is in the file. One that somebody else has touched since is
noted with no mark but those of the loads that have looked into it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


def marks_noted(path: Path) -> dict[str, str] | None:
    """The marks of a file that nobody has touched since it was closed; None: nobody knows without asking the file."""
    try:
        said = json.loads(_note(path).read_text(encoding="utf-8"))
        return dict(said["marks"]) if said["file"] == _looks(path) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def note_marks(path: Path, marks: Mapping[str, str]) -> None:
    """Note them, for the file as it lies there now."""
    aside = path.with_name(f"{path.name}.marks.{os.getpid()}")
    aside.write_text(json.dumps({"file": _looks(path), "marks": dict(marks)}), encoding="utf-8")
    aside.replace(_note(path))


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.marks")


def _looks(path: Path) -> list[list[int | str]]:
    """The file and what ladybug keeps beside it: after a kill the newest is in its log (.wal) alone."""
    ours = (f"{path.name}.marks", f"{path.name}.lock")
    files = [path, *(one for one in sorted(path.parent.glob(f"{path.name}.*")) if not one.name.startswith(ours))]
    looked = ((one.name, one.stat()) for one in files)
    return [[name, stat.st_ino, stat.st_size, stat.st_mtime_ns] for name, stat in looked]
