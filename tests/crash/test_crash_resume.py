"""A rerun goes on where the killed run stopped; what has changed since then is built."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import kitchen
import pytest
from crash_lab import Lab

from ratatouille.engine import open_workbench
from ratatouille.lake import ledger

SLOW = """
import time
from pathlib import Path

FOLDER = Path({folder!r})


def build(context):
    (FOLDER / "building").touch()
    while not (FOLDER / "go").exists():
        time.sleep(0.01)
    return context.query("select 1 as one")
"""


@pytest.fixture
def killed(lab: Lab) -> Path:
    """A workspace whose first run was killed with everything but gold.slow published."""
    root = kitchen.build(lab.folder / "kitchen")
    kitchen.land(root, "0.csv", kitchen.own_rows(0, 0, 50))
    (root / "pipelines/gold/slow.py").write_text(SLOW.format(folder=str(lab.folder)))
    (root / "pipelines/gold/slow.yaml").write_text("depends_on: [gold.totals, gold.moment]\n")
    child = lab.nursery.spawn("run_once", root).go()
    _wait_for(lab.folder / "building")
    child.kill()
    child.wait()
    (lab.folder / "go").touch()
    return root


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def _rerun(lab: Lab, root: Path, *selectors: str) -> dict[str, Any]:
    answer = lab.nursery.do("run_once", root, *selectors)
    assert answer.get("ok", {}).get("status") == "done", answer
    return dict(answer["ok"])


def _built(answer: dict[str, Any]) -> set[str]:
    return {name for name, step in answer["steps"].items() if step["status"] == "built"}


def test_finished_assets_are_not_built_again_not_even_those_that_read_the_clock(lab: Lab, killed: Path) -> None:
    assert _built(_rerun(lab, killed)) == {"gold.slow"}
    assert _built(_rerun(lab, killed)) == {"gold.moment", "gold.slow"}


def test_a_file_that_landed_after_the_kill_is_read_by_the_rerun(lab: Lab, killed: Path) -> None:
    kitchen.land(killed, "1.csv", kitchen.own_rows(1, 0, 30))
    _rerun(lab, killed)
    with open_workbench(killed) as bench, bench.lake.session() as session:
        assert kitchen.found(session) == kitchen.expected(killed)


def test_code_that_was_edited_after_the_kill_is_run_by_the_rerun(lab: Lab, killed: Path) -> None:
    path = killed / "pipelines/gold/totals.sql"
    path.write_text(path.read_text().replace("sum(amount)", "1000 * sum(amount)"))
    _rerun(lab, killed)
    with open_workbench(killed) as bench, bench.lake.session() as session:
        amount = kitchen.expected(killed)["gold.totals"][0][1]
        assert session.value("select amount from lake.gold.totals") == 1000 * amount


def test_another_request_is_no_continuation(lab: Lab, killed: Path) -> None:
    answer = _rerun(lab, killed, "gold.moment")
    assert answer["resumed"] == ""
    assert _built(answer) == {"gold.moment"}


def test_a_run_that_was_killed_twice_is_continued_twice(lab: Lab, killed: Path) -> None:
    (lab.folder / "go").unlink()
    (lab.folder / "building").unlink()
    child = lab.nursery.spawn("run_once", killed).go()
    _wait_for(lab.folder / "building")
    child.kill()
    child.wait()
    (lab.folder / "go").touch()
    assert _built(_rerun(lab, killed)) == {"gold.slow"}
    with open_workbench(killed) as bench, bench.lake.session() as session:
        published = [e.asset for e in ledger.entries(session)]
    assert sorted(published) == sorted([*kitchen.ASSETS, "gold.slow"])


def test_rows_of_a_run_that_began_earlier_but_published_later_are_not_lost(lab: Lab) -> None:
    """The late run's rows must carry a load time after the other's, or a watermark below never sees them."""
    root = kitchen.build(lab.folder / "kitchen")
    kitchen.land(root, "0.csv", kitchen.own_rows(0, 0, 10))
    (root / "pipelines/bronze/slow.py").write_text(SLOW.format(folder=str(lab.folder)))
    with (root / "pipelines/bronze/sales.yaml").open("a") as sidecar:
        sidecar.write("depends_on: [bronze.slow]\n")
    (lab.folder / "go").touch()
    _rerun(lab, root)
    for name in ("go", "building"):
        (lab.folder / name).unlink()
    late = lab.nursery.spawn("run_once", root).go()
    _wait_for(lab.folder / "building")
    kitchen.land(root, "1.csv", kitchen.own_rows(1, 0, 10))
    _rerun(lab, root, "bronze.sales")
    _rerun(lab, root, "silver.sales")
    kitchen.land(root, "2.csv", kitchen.own_rows(2, 0, 10))
    (lab.folder / "go").touch()
    answer = late.wait()
    assert answer["ok"]["status"] == "done", answer
    _rerun(lab, root)
    with open_workbench(root) as bench, bench.lake.session() as session:
        assert kitchen.found(session) == kitchen.expected(root)
