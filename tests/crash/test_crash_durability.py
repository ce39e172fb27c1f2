"""What must be on the disk before a commit says that it is there. A power cut cannot be had in a test, so the order
of the system calls is looked at: files, their folders, then the catalog."""

from __future__ import annotations

from pathlib import Path

import kitchen
import pytest
from crash_lab import Lab, Point

WAL = "/.rat/catalog.sqlite-wal"
DATA = "/.rat/data"
pytestmark = pytest.mark.usefixtures("strace")


def _touches(points: list[Point], path: str, *calls: str) -> list[int]:
    """The positions of calls on exactly this path."""
    return [i for i, p in enumerate(points) if p.call in calls and (f"<{path}>" in p.rest or f'"{path}"' in p.rest)]


def _written_files(points: list[Point]) -> list[str]:
    names = {p.rest.split("<", 1)[1].split(">", 1)[0] for p in points if p.call in ("write", "pwrite64")}
    return sorted(name for name in names if name.startswith(DATA))


@pytest.mark.parametrize(("how", "kinds"), [("replace", 3), ("merge", 5)])
def test_every_file_and_folder_is_synced_before_the_catalog_is_written(lab: Lab, how: str, kinds: int) -> None:
    base = lab.folder / "base"
    assert lab.nursery.do("publish_pair", base, "first", "replace", 1) == {"ok": [3, 3]}
    points = lab.points(lab.copy(base), "publish_pair", "second", how, 2)
    commit = _touches(points, WAL, "write", "pwrite64")[0]
    files = _written_files(points)
    # Two tables and the quarantine; a merge writes a delete file for each table, too.
    assert len(files) == kinds, files
    for file in files:
        written = _touches(points, file, "write", "pwrite64")[-1]
        assert any(written < at < commit for at in _touches(points, file, "fsync", "fdatasync")), (
            f"{file} is not synced"
        )
        created = _touches(points, file, "openat")[0]
        for folder in Path(file).parents:
            synced = _touches(points, str(folder), "fsync")
            assert any(created < at < commit for at in synced), f"{folder} is not synced before the commit"
            if str(folder) == DATA:
                break


@pytest.mark.parametrize("how", ["replace", "merge"])
def test_a_commit_is_synced_before_it_is_acknowledged(lab: Lab, how: str) -> None:
    base = lab.folder / "base"
    assert lab.nursery.do("publish_pair", base, "first", "replace", 1) == {"ok": [3, 3]}
    points = lab.points(lab.copy(base), "publish_pair", "second", how, 2)
    written = _touches(points, WAL, "write", "pwrite64")
    unlocked = _touches(points, "/.rat/catalog.sqlite.lock", "close")[-1]
    assert written[-1] < unlocked
    assert any(written[-1] < at < unlocked for at in _touches(points, WAL, "fsync", "fdatasync"))


def test_a_whole_run_syncs_every_file_that_it_publishes(lab: Lab) -> None:
    root = kitchen.build(lab.folder / "kitchen")
    kitchen.land(root, "0.csv", [(i, i, 1) for i in range(100)])
    assert lab.nursery.do("run_once", root)["ok"]["status"] == "done"
    kitchen.land(root, "1.csv", [(i, 100 + i, 2) for i in range(50, 120)])
    points = lab.points(root, "run_once")
    files = _written_files(points)
    assert len(files) >= 5, files  # four assets, and the delete file of the merge
    last_commit = _touches(points, WAL, "write", "pwrite64")[-1]
    for file in files:
        written = _touches(points, file, "write", "pwrite64")[-1]
        assert any(written < at < last_commit for at in _touches(points, file, "fsync", "fdatasync")), file
        assert any(written < at < last_commit for at in _touches(points, str(Path(file).parent), "fsync")), file
