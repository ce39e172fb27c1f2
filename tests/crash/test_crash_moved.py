"""A workspace that was moved or copied goes on by itself, and leaves the one that it came from alone."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import kitchen
import pytest
from crash_lab import Lab

from ratatouille.engine import open_workbench


@pytest.fixture
def root(lab: Lab) -> Path:
    """A workspace with two days built, so that it holds delete files, too."""
    root = kitchen.build(lab.folder / "here")
    for number in range(2):
        kitchen.land(
            root, f"{number}.csv", [(i, 100 * number + i, 1 + i) for i in range(50 * number, 50 * number + 90)]
        )
        assert lab.nursery.do("run_once", root)["ok"]["status"] == "done"
    return root


def _tables(root: Path) -> dict[str, Any]:
    with open_workbench(root) as bench, bench.lake.session() as session:
        return kitchen.found(session)


def _bytes(root: Path) -> dict[str, str]:
    kept = (p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix in (".parquet", ".sqlite"))
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


def _one_more_day(root: Path, lab: Lab, name: str = "2.csv") -> None:
    kitchen.land(root, name, [(i, 1000 + i, 5) for i in range(20, 60)])
    answer = lab.nursery.do("run_once", root)
    assert answer.get("ok", {}).get("status") == "done", answer
    assert "published" not in answer["ok"]["steps"]["bronze.sales"]["reason"]
    assert _tables(root) == kitchen.expected(root)


@pytest.mark.parametrize("place", ["there", "deep/er/place", "with 'quote", "a[b]*c?", "ünïcode 表"])
def test_a_moved_workspace_reads_and_writes(lab: Lab, root: Path, place: str) -> None:
    there = lab.folder / place
    there.parent.mkdir(parents=True, exist_ok=True)
    before = _tables(root)
    root.rename(there)
    assert _tables(there) == before
    answer = lab.nursery.do("run_once", there)["ok"]
    assert {name for name, step in answer["steps"].items() if step["status"] == "built"} == {"gold.moment"}
    _one_more_day(there, lab)
    assert not root.exists()


def test_a_copy_leaves_the_original_alone(lab: Lab, root: Path) -> None:
    before, tables = _bytes(root), _tables(root)
    copy = lab.folder / "copy"
    shutil.copytree(root, copy)
    assert _tables(copy) == tables
    _one_more_day(copy, lab)
    assert _bytes(root) == before
    assert _tables(root) == tables
    shutil.rmtree(copy / ".rat/data")
    _one_more_day(root, lab, "other.csv")


def test_a_copy_of_a_copy_after_its_original_is_gone(lab: Lab, root: Path) -> None:
    shutil.copytree(root, lab.folder / "second")
    shutil.copytree(lab.folder / "second", lab.folder / "third")
    shutil.rmtree(root)
    shutil.rmtree(lab.folder / "second")
    _one_more_day(lab.folder / "third", lab)


def test_a_copy_without_its_data_says_so_and_reads_nobody_elses(lab: Lab, root: Path) -> None:
    copy = lab.folder / "copy"
    shutil.copytree(root, copy)
    shutil.rmtree(copy / ".rat/data")
    answer = lab.nursery.do("run_once", copy)
    assert "not in this workspace" in answer["error"]["what"], answer
    assert _tables(root) == kitchen.expected(root)


def test_a_workspace_reached_through_a_link_stays_where_it_is(lab: Lab, root: Path) -> None:
    link = lab.folder / "link"
    link.symlink_to(root)
    before = _tables(root)
    assert _tables(link) == before
    _one_more_day(link, lab)
    assert _tables(root) == kitchen.expected(root)


def test_a_workspace_killed_and_moved_is_healed_in_its_new_place(lab: Lab, root: Path) -> None:
    kitchen.land(root, "2.csv", [(i, 1000 + i, 5) for i in range(20, 60)])
    for _ in range(3):
        child = lab.nursery.spawn("run_once", root).go()
        child.kill()
        child.wait()
    there = lab.folder / "there"
    root.rename(there)
    answer = lab.nursery.do("run_once", there)
    assert answer.get("ok", {}).get("status") == "done", answer
    assert _tables(there) == kitchen.expected(there)
