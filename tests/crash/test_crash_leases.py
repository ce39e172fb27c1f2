"""A step that lost its lease publishes nothing, a dead one hands it over at once, and a rerun knows what is new."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import crash_worker
import kitchen
from crash_lab import Child, Lab

from ratatouille.engine import open_workbench
from ratatouille.lake import ledger, open_journal


def _until(there: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not there.exists():
        assert time.monotonic() < deadline, f"{there} did not appear"
        time.sleep(0.01)


def _staged_and_waiting(lab: Lab, root: Path, run_id: str) -> Child:
    """A process that has staged its candidate, holds its lease, and waits before it publishes."""
    child = lab.nursery.spawn("publish_when_told", root, run_id, 2, lab.folder / "staged", lab.folder / "publish").go()
    _until(lab.folder / "staged")
    return child


def _give_lease_to_the_dead(root: Path) -> None:
    with closing(sqlite3.connect(root / ".rat/journal.sqlite")) as journal, journal:
        journal.execute("update leases set pid = 4194305, started_ticks = '1'")


def _base(lab: Lab) -> Path:
    base = lab.folder / "base"
    assert "ok" in lab.nursery.do("publish_pair", base, "first", "replace", 1)
    return base


def _publishers(root: Path) -> list[str]:
    seen = crash_worker.look(root)
    assert not seen["wrong"], seen["wrong"]
    return [run for asset, run in seen["entries"] if asset == crash_worker.PAIR[0]]


def test_an_orphan_whose_successor_published_publishes_nothing(lab: Lab) -> None:
    root = _base(lab)
    orphan = _staged_and_waiting(lab, root, "orphan")
    _give_lease_to_the_dead(root)
    assert "ok" in lab.nursery.do("publish_pair", root, "successor", "replace", 3)
    (lab.folder / "publish").touch()
    assert "published by somebody else" in orphan.wait()["error"]["what"]
    assert _publishers(root) == ["successor", "first"]


def test_an_orphan_that_wakes_while_its_successor_builds_publishes_nothing(lab: Lab) -> None:
    root = _base(lab)
    orphan = _staged_and_waiting(lab, root, "orphan")
    _give_lease_to_the_dead(root)
    with open_journal(root / ".rat/journal.sqlite") as journal:
        tokens = {name: journal.take_lease(name, "successor") for name in crash_worker.PAIR}
        assert tokens == dict.fromkeys(crash_worker.PAIR, 3)
        (lab.folder / "publish").touch()
        assert "error" in orphan.wait()
        for name in crash_worker.PAIR:
            journal.drop_lease(name, 3)
    assert _publishers(root) == ["first"]
    assert "ok" in lab.nursery.do("publish_pair", root, "successor", "replace", 3)
    assert _publishers(root) == ["successor", "first"]


def test_a_stopped_process_keeps_its_lease_and_a_killed_one_loses_it(lab: Lab) -> None:
    root = _base(lab)
    child = _staged_and_waiting(lab, root, "stopped")
    os.kill(child.pid, signal.SIGSTOP)
    with open_journal(root / ".rat/journal.sqlite") as journal:
        assert journal.take_lease(crash_worker.PAIR[0], "other") is None
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert journal.take_lease(crash_worker.PAIR[0], "other") == 3


def test_a_dead_process_that_nobody_waited_for_loses_its_lease_too(lab: Lab) -> None:
    # A notebook, or a container without an init, may leave its dead children unwaited for: they stay in /proc.
    root = _base(lab)
    child = _staged_and_waiting(lab, root, "unwaited")
    child.kill()
    time.sleep(0.2)
    with open_journal(root / ".rat/journal.sqlite") as journal:
        assert journal.take_lease(crash_worker.PAIR[0], "other") == 3
    assert child.wait() == {"killed": signal.SIGKILL}


def test_two_reruns_of_one_killed_run_publish_each_asset_once(lab: Lab) -> None:
    root = kitchen.build(lab.folder / "kitchen")
    kitchen.land(root, "0.csv", kitchen.own_rows(0, 0, 50))
    slow = root / "pipelines/silver/slow.py"
    slow.write_text(
        f"import time\nfrom pathlib import Path\n\n\ndef build(context):\n    Path({str(lab.folder)!r}, 'building').touch()\n"
        f"    while not Path({str(lab.folder)!r}, 'go').exists():\n        time.sleep(0.01)\n    return context.query('select 1 as one')\n"
    )
    (root / "pipelines/silver/slow.yaml").write_text("depends_on: [bronze.sales]\n")
    child = lab.nursery.spawn("run_once", root).go()
    _until(lab.folder / "building")
    child.kill()
    child.wait()
    (lab.folder / "go").touch()
    twins = [lab.nursery.spawn("run_once", root) for _ in range(2)]
    for twin in twins:
        twin.go()
    for twin in twins:
        answer = twin.wait()
        assert answer.get("ok", {}).get("status") in ("done", "fresh"), answer
    with open_workbench(root) as bench, bench.lake.session() as session:
        assert kitchen.found(session) == kitchen.expected(root)
        published = [(e.asset, e.run_id) for e in ledger.entries(session)]
    assert len(published) == len(set(published))
