"""How much memory a run may use: what the resource profile says, or the machine, and never more than its container.

budget    what the whole process may use: Python, frames and DuckDB together
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# Python with its libraries takes 150 to 250 MB whatever the budget is, frames their part, and DuckDB itself a tenth
# more than its own limit, which covers buffers only.
DUCKDB_SHARE = 0.6
OTHERS_BYTES = 200_000_000
_NO_LIMIT = 1 << 60  # version 1 of control groups says "none" with a number like this


def budget_bytes(asked: int = 0) -> int:
    """What a process may use when the profile says `asked` bytes; 0: what the machine has."""
    limits = [asked or machine_bytes(), container_limit_bytes() or 0]
    return min(limit for limit in limits if limit)


def duckdb_bytes(asked: int = 0) -> int:
    """DuckDB's part of the budget."""
    budget = budget_bytes(asked)
    return int(max(budget / 4, min(budget * DUCKDB_SHARE, (budget - OTHERS_BYTES) * 0.7)))


def machine_bytes() -> int:
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def container_limit_bytes(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The smallest memory limit of the control groups that this process is in (version 2 or 1); None: there is none."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += _limits(root, path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits(root / "memory", path, "memory.limit_in_bytes")
    return min(found, default=None)


def _limits(root: Path, path: str, name: str) -> list[int]:
    """The limits of a group and of all above it: each of them counts."""
    folder, found = root / path.strip("/"), []
    for one in (folder, *folder.parents):
        with suppress(OSError, ValueError):  # not our view of the tree, or "max"
            found.append(int((one / name).read_text()))
        if one == root:
            break
    return [limit for limit in found if limit < _NO_LIMIT]
