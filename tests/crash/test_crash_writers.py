"""Four writers (RATATOUILLE_WRITERS for more) and a reader at once: every row of every commit, whole versions only, and no error for anybody."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random
from typing import Any

import kitchen
import pytest
from crash_lab import Lab, trials

from ratatouille import project as files
from ratatouille.engine import open_workbench
from ratatouille.lake import ledger
from ratatouille.upkeep.verify import verify

WRITERS = int(os.environ.get("RATATOUILLE_WRITERS", "4"))
SEED = int(os.environ.get("RATATOUILLE_SEED", "7"))
ROWS = 20  # of one landing file
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def _own_assets(root: Path) -> None:
    """bronze.s0 to bronze.s3, each with its own landing folder."""
    for i in range(WRITERS):
        columns = "columns: {id: bigint, seq: bigint, amount: bigint}"
        (root / f"pipelines/bronze/s{i}.yaml").write_text(
            f"materialize: append\nsources:\n  landing/s{i}/*.csv:\n    {columns}\n"
        )
        (root / f"pipelines/bronze/s{i}.sql").write_text(
            f"select id, seq, amount, _file, _loaded_at, _run_id from {{{{ source('landing/s{i}/*.csv') }}}}\n"
        )


def _work(
    lab: Lab, what: str, root: Path, commits: int, folders: list[str], selectors: list[str], read: str
) -> dict[str, Any]:
    """Let the writers and the reader go; returns what the reader saw, after checking what the writers say."""
    stop = lab.folder / "stop"
    reader = lab.nursery.spawn("read_for", root, stop, read)
    writers = [
        lab.nursery.spawn("land_and_run", root, folder, who, commits, ROWS, *([selector] if selector else []))
        for who, (folder, selector) in enumerate(zip(folders, selectors, strict=True))
    ]
    started = time.monotonic()
    for child in [reader, *writers]:
        child.go()
    answers = [child.wait() for child in writers]
    seconds = time.monotonic() - started
    stop.touch()
    seen = reader.wait()
    wrong = [one for answer in [*answers, seen] for one in _complaints(answer)]
    took = sorted(s for answer in answers if "ok" in answer for s in answer["ok"]["seconds"])
    lab.figure(
        f"writers beside a reader, {what}",
        size=f"{WRITERS} writers x {commits}",
        said=f"{seconds:.0f} s, slowest {took[-1]:.1f} s, {len(seen['ok']['seen'])} versions seen by the reader",
        wrong=len(wrong),
    )
    assert not wrong, wrong
    return dict(seen["ok"])


def _complaints(answer: dict[str, Any]) -> list[Any]:
    return answer["ok"].get("wrong", answer["ok"].get("errors")) if "ok" in answer else [answer]


def _assert_whole_and_monotonic(seen: list[list[int]]) -> None:
    assert seen == sorted(seen), "a reader went back in time"
    torn = [row for row in seen if row[1] != ROWS * row[2]]
    assert not torn, f"a reader saw part of a commit: {torn}"


def _assert_published_once(root: Path) -> None:
    with open_workbench(root) as bench, bench.lake.session() as session:
        published = [(e.asset, e.run_id) for e in ledger.entries(session)]
    assert len(published) == len(set(published))


def _base(lab: Lab) -> Path:
    root = kitchen.build(lab.folder / "kitchen")
    _own_assets(root)
    for i in range(WRITERS):
        (root / f"landing/s{i}").mkdir()
        kitchen.land(root, f"s{i}/base.csv", kitchen.own_rows(90 + i, 0, ROWS))
    kitchen.land(root, "base.csv", kitchen.own_rows(99, 0, ROWS))
    assert lab.nursery.do("run_once", root)["ok"]["status"] == "done"
    return root


def test_each_its_own_asset(lab: Lab) -> None:
    root, commits = _base(lab), trials(5)
    one = " union all ".join(f"select _file from lake.bronze.s{i}" for i in range(WRITERS))
    read = f"select (select id from lake.current_snapshot()), count(*), count(distinct _file) from ({one})"
    seen = _work(
        lab,
        "own assets",
        root,
        commits,
        [f"s{i}/" for i in range(WRITERS)],
        [f"bronze.s{i}" for i in range(WRITERS)],
        read,
    )
    _assert_whole_and_monotonic(seen["seen"])
    assert seen["seen"][-1][1] == ROWS * WRITERS * (commits + 1)
    _assert_published_once(root)


def test_all_the_same_asset(lab: Lab) -> None:
    root, commits = _base(lab), trials(5)
    read = "select (select id from lake.current_snapshot()), count(*), count(distinct _file) from lake.bronze.sales"
    seen = _work(lab, "one asset", root, commits, [""] * WRITERS, ["bronze.sales"] * WRITERS, read)
    _assert_whole_and_monotonic(seen["seen"])
    with open_workbench(root) as bench, bench.lake.session() as session:
        assert kitchen.found(session)["bronze.sales"] == kitchen.expected(root)["bronze.sales"]
    _assert_published_once(root)


def test_whole_runs_side_by_side_lose_no_row_on_the_way_up(lab: Lab) -> None:
    root, commits = _base(lab), trials(3)
    read = "select sales, sales, 1 from lake.gold.totals"
    seen = _work(lab, "whole runs", root, commits, [""] * WRITERS, [""] * WRITERS, read)
    assert seen["seen"] == sorted(seen["seen"])
    assert lab.nursery.do("run_once", root)["ok"]["status"] == "done"
    with open_workbench(root) as bench, bench.lake.session() as session:
        assert kitchen.found(session) == kitchen.expected(root)
    _assert_published_once(root)


def test_writers_that_are_killed_at_random_lose_nothing_that_was_acknowledged(lab: Lab) -> None:
    root, kills, random = _base(lab), trials(3), Random(SEED)
    stop, told = lab.folder / "stop", lab.folder / "acknowledged"
    told.touch()
    writers = [lab.nursery.spawn("land_until", root, who, stop, told) for who in range(WRITERS)]
    for child in writers:
        child.go()
    wrong: list[Any] = []
    for number in range(kills):
        time.sleep(random.uniform(0.05, 0.5))
        at = random.randrange(WRITERS)
        writers[at].kill()
        ended = writers[at].wait()
        wrong += [] if "killed" in ended else [ended]
        writers[at] = lab.nursery.spawn("land_until", root, 100 + number, stop, told).go()
    stop.touch()
    answers = [child.wait() for child in writers]
    wrong += [answer for answer in answers if answer.get("ok", {"wrong": answer})["wrong"]]
    again = lab.nursery.do("run_once", root)
    wrong += [] if again.get("ok", {}).get("status") in ("done", "fresh") else [again]
    acknowledged = told.read_text().split()
    with open_workbench(root) as bench, bench.lake.session() as session:
        stored = {row[0] for row in session.rows("select distinct _file from lake.bronze.sales")}
        wrong += [f"{file} was acknowledged and is gone" for file in acknowledged if file not in stored]
        wrong += [
            f"{name} differs" for name, rows in kitchen.found(session).items() if rows != kitchen.expected(root)[name]
        ]
    lab.figure(
        "writers under random kills, whole runs",
        size=f"{WRITERS} writers, {kills} kills",
        seeds=str(SEED),
        said=f"{len(acknowledged)} runs acknowledged",
        wrong=len(wrong),
    )
    assert not wrong, wrong
    _assert_published_once(root)
    assert verify(files.load(root)).whole


def test_four_first_runs_at_once_make_one_lake(lab: Lab) -> None:
    for _ in range(trials(2)):
        root = kitchen.build(lab.folder / f"new{_}")
        kitchen.land(root, "0.csv", kitchen.own_rows(1, 0, ROWS))
        children = [lab.nursery.spawn("run_once", root, "bronze.sales+") for _ in range(WRITERS)]
        for child in children:
            child.go()
        for child in children:
            answer = child.wait()
            assert answer.get("ok", {}).get("status") in ("done", "fresh"), answer
        with open_workbench(root) as bench, bench.lake.session() as session:
            assert kitchen.found(session) == kitchen.expected(root)
        _assert_published_once(root)
