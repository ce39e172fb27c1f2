"""SIGKILL while a lake is cleaned: every version that is kept reads as before, and the next clean goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import kitchen
import pytest
from crash_lab import Lab, Point, some_of, trials

from ratatouille import project as files
from ratatouille.engine import open_workbench
from ratatouille.lake import ledger
from ratatouille.upkeep.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
SEED = int(os.environ.get("RATATOUILLE_SEED", "1"))
TABLES = ("bronze.sales", "silver.sales", "gold.totals")


def seen(root: Path, versions: dict[str, list[int]]) -> dict[tuple[str, int], Any]:
    """The rows of every one of these versions, and of the current ones (0)."""
    wanted = [(name, version) for name in TABLES for version in (0, *versions.get(name, ()))]
    with open_workbench(root) as bench, bench.lake.session() as session:
        at = {v: f" at (version => {v})" if v else "" for _, v in wanted}
        return {(n, v): session.rows(f"select * from lake.{n}{at[v]} order by all") for n, v in wanted}


def kept(root: Path) -> dict[str, list[int]]:
    with open_workbench(root) as bench, bench.lake.session() as session:
        return {name: [e.version for e in ledger.entries(session, name)][:2] for name in TABLES}


@pytest.mark.usefixtures("strace")
def test_a_kill_while_cleaning_loses_nothing_that_is_kept(lab: Lab) -> None:
    base = kitchen.build(lab.folder / "base")
    retention = "retention: {versions: 2, days: 0}\n"
    (base / "workspace.yaml").write_text(kitchen.FILES["workspace.yaml"] + retention, encoding="utf-8")
    for day in range(9):
        kitchen.land(base, f"{day}.csv", [(day * 3 + i, day * 10 + i, 1 + i) for i in range(6)])
        assert lab.nursery.do("run_once", base)["ok"]["status"] == "done"
    stray = base / ".rat/data/bronze/sales/20260101T000000-dead00-1.1/data_0.parquet"
    stray.parent.mkdir()
    stray.write_bytes(b"x" * 100)
    versions = kept(base)
    rows = seen(base, versions)
    whole = lab.copy(base, "whole")
    first = lab.nursery.do("clean_up", whole, 2)
    assert first["ok"]["compacted"] >= 1 and not first["ok"]["warnings"], first
    assert seen(whole, versions) == rows

    wrong = []
    # One clean expires and compacts, the next one deletes what the first has scheduled.
    for start, days in ((base, 2.0), (lab.copy(whole, "scheduled"), 4.0)):
        points = lab.points(lab.copy(start), "clean_up", days)
        chosen = some_of(points, min(len(points), trials(2)), seed=SEED)
        hits = 0
        for point in chosen:
            hit, sentences = trial(lab, start, days, point, versions, rows)
            hits, wrong = hits + hit, wrong + sentences
        lab.figure(
            f"KILL at a system call of rat clean, {days:.0f} days on",
            size=f"{len(chosen)} of {len(points)} calls",
            said=f"{hits} kills",
            wrong=len(wrong),
        )
        assert hits >= len(chosen) // 2
    assert not wrong, "\n".join(wrong)


def trial(
    lab: Lab, start: Path, days: float, point: Point, versions: dict[str, list[int]], rows: dict[Any, Any]
) -> tuple[bool, list[str]]:
    root = lab.copy(start)
    _, hit = lab.with_fault(root, "signal=KILL", point, "clean_up", days)
    wrong = []
    try:
        if seen(root, versions) != rows:
            wrong.append("a version has other rows")
        for later in (days, days + 4):
            again = lab.nursery.do("clean_up", root, later)
            if "ok" not in again or again["ok"]["warnings"]:
                wrong.append(f"the next clean: {again}")
        if seen(root, versions) != rows:
            wrong.append("a version has other rows after the next clean")
        if (root / ".rat/data/bronze/sales/20260101T000000-dead00-1.1").exists():
            wrong.append("what a killed run left is still there")
    except Exception as error:
        wrong.append(f"{type(error).__name__}: {error}")
    return hit, [f"{point}: {one}" for one in wrong]


def test_cleaning_and_compacting_beside_writers_and_a_reader_loses_nothing(lab: Lab) -> None:
    root = kitchen.build(lab.folder / "kitchen")
    kitchen.land(root, "base.csv", kitchen.own_rows(9, 0, 20))
    assert lab.nursery.do("run_once", root)["ok"]["status"] == "done"
    stop, commits = lab.folder / "stop", trials(4)
    read = "select count(*), 20 * count(distinct _file) from lake.bronze.sales"
    others = [lab.nursery.spawn("read_for", root, stop, read), lab.nursery.spawn("clean_for", root, stop)]
    writers = [lab.nursery.spawn("land_and_run", root, "", who, commits, 20, "bronze.sales") for who in range(2)]
    for child in [*others, *writers]:
        child.go()
    wrote = [child.wait() for child in writers]
    stop.touch()
    read_, cleaned = (child.wait()["ok"] for child in others)
    with open_workbench(root) as bench, bench.lake.session() as session:
        found = kitchen.found(session)["bronze.sales"]
    lost = found != kitchen.expected(root)["bronze.sales"] or not verify(files.load(root)).whole
    unsaid = [answer for answer in wrote if answer.get("ok", {"wrong": True})["wrong"]]
    mixed = [row for row in read_["seen"] if row[0] != row[1]] or read_["seen"] != sorted(read_["seen"])
    lab.figure(
        "two writers and a reader beside a process that cleans and compacts",
        size=f"{2 * commits} commits, cleaned {cleaned['cleaned']} and compacted {cleaned['compacted']} times",
        said=f"the reader saw {len(read_['seen'])} versions",
        wrong=sum(map(bool, (lost, unsaid, mixed, read_["errors"], cleaned["errors"]))),
    )
    assert not lost and not mixed, (found, read_["seen"])
    assert not unsaid and not read_["errors"] and not cleaned["errors"], (wrote, read_, cleaned)
