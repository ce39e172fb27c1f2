"""No room, or no right to write: four lines, the last good version stays readable, and a rerun heals."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import Any

import kitchen
import pytest
from crash_lab import Lab

from ratatouille.engine import open_workbench

Mount = Callable[[Path, str], None]
Filled = Callable[[Path, int], AbstractContextManager[None]]


def _kitchen(root: Path, lab: Lab) -> Path:
    kitchen.build(root)
    kitchen.land(root, "0.csv", kitchen.own_rows(0, 0, 1000))
    assert lab.nursery.do("run_once", root)["ok"]["status"] == "done"
    return root


def _tables(root: Path) -> dict[str, Any]:
    with open_workbench(root) as bench, bench.lake.session() as session:
        return kitchen.found(session)


def _four_lines(answer: dict[str, Any]) -> list[dict[str, str]]:
    """Every error of the answer; fails if there is none, or one that a person cannot act on."""
    assert "crash" not in answer, answer["crash"]
    errors = (
        [answer["error"]] if "error" in answer else [s["error"] for s in answer["ok"]["steps"].values() if s["error"]]
    )
    assert errors, answer
    for error in errors:
        assert all(error[line] for line in ("what", "where", "state", "next")), error
        assert "defect" not in error["next"], error
    return errors


def _healed(root: Path, lab: Lab) -> None:
    answer = lab.nursery.do("run_once", root)
    assert answer.get("ok", {}).get("status") == "done", answer
    assert _tables(root) == kitchen.expected(root)


@pytest.mark.parametrize("leave_kb", [0, 60, 500, 1500])
def test_a_full_disk(lab: Lab, mount: Mount, filled: Filled, leave_kb: int) -> None:
    mount(lab.folder / "small", "size=24m")
    root = _kitchen(lab.folder / "small/kitchen", lab)
    before = _tables(root)
    # More than 2 MB of Parquet over the layers: numbers that do not compress.
    random = Random(1)
    kitchen.land(root, "1.csv", [(random.getrandbits(60), i, random.getrandbits(40) + 1) for i in range(100_000)])
    with filled(lab.folder / "small", leave_kb * 1000):
        errors = _four_lines(lab.nursery.do("run_once", root))
        assert any("full" in error["what"] for error in errors), errors
    after = kitchen.expected(root)
    assert all(rows in (before[name], after[name]) for name, rows in _tables(root).items())
    _healed(root, lab)


def test_the_last_good_version_is_readable_while_the_disk_is_full(lab: Lab, mount: Mount, filled: Filled) -> None:
    mount(lab.folder / "small", "size=24m")
    root = _kitchen(lab.folder / "small/kitchen", lab)
    before = _tables(root)
    with filled(lab.folder / "small", 0):
        assert _tables(root) == before


def test_a_read_only_file_system(lab: Lab, mount: Mount) -> None:
    mount(lab.folder / "small", "size=24m")
    root = _kitchen(lab.folder / "small/kitchen", lab)
    before = _tables(root)
    kitchen.land(root, "1.csv", kitchen.own_rows(1, 0, 10))
    mount(lab.folder / "small", "ro")
    errors = _four_lines(lab.nursery.do("run_once", root))
    assert "cannot be written" in errors[0]["what"], errors
    assert _tables(root) == before
    mount(lab.folder / "small", "rw")
    _healed(root, lab)


def test_a_read_only_data_folder(lab: Lab, mount: Mount) -> None:
    root = kitchen.build(lab.folder / "kitchen")
    mount(root / ".rat/data", "size=24m")
    kitchen.land(root, "0.csv", kitchen.own_rows(0, 0, 10))
    assert lab.nursery.do("run_once", root)["ok"]["status"] == "done"
    before = _tables(root)
    kitchen.land(root, "1.csv", kitchen.own_rows(1, 0, 10))
    mount(root / ".rat/data", "ro")
    errors = _four_lines(lab.nursery.do("run_once", root))
    assert any("cannot be written" in error["what"] for error in errors), errors
    assert _tables(root) == before
    mount(root / ".rat/data", "rw")
    _healed(root, lab)


def test_no_inode_is_left(lab: Lab, mount: Mount) -> None:
    mount(lab.folder / "small", "size=24m,nr_inodes=120")
    root = _kitchen(lab.folder / "small/kitchen", lab)
    before = _tables(root)
    kitchen.land(root, "1.csv", kitchen.own_rows(1, 0, 10))
    taken = []
    try:
        while True:
            path = lab.folder / "small" / f"taken{len(taken)}"
            path.touch()
            taken.append(path)
    except OSError:
        pass
    _four_lines(lab.nursery.do("run_once", root))
    for path in taken:
        path.unlink()
    assert _tables(root)["silver.sales"] == before["silver.sales"]
    _healed(root, lab)
