"""kill -9 at a random moment of a whole run, and a rerun: whole versions, every row once, nothing built twice."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import kitchen
import pytest
from crash_lab import NEVER_FAIL, Lab, some_of, trials

from ratatouille.engine import open_workbench
from ratatouille.lake import ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
SEED = int(os.environ.get("RATATOUILLE_SEED", "20261121"))
DAYS = ("first", "more", "grown")  # nothing built yet; a new landing file; the newest landing file has grown


@dataclass
class Kills:
    lab: Lab
    built: Path  # a workspace with one day built
    typical_s: dict[str, float] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)

    def trial(self, seed: int) -> list[str]:
        random = Random(seed)
        day = DAYS[seed % len(DAYS)]
        root = self._a_day(day, random)
        before, stood = tables_and_heads(root)
        child = self.lab.nursery.spawn("run_once", root).go()
        time.sleep(random.uniform(0.1, 1.2) * self.typical_s.get(day, 0.5))
        child.kill()
        ended = child.wait()
        tables, heads = tables_and_heads(root)
        kept = {n: h for n, h in heads.items() if n not in stood or h.version != stood[n].version}
        died = unfinished_run(root)
        wrong = [f"after the kill {n}: neither old nor new" for n in mixtures(before, tables, kitchen.expected(root))]
        started = time.monotonic()
        again = self.lab.nursery.do("run_once", root)
        if not kept:
            # A rerun that had everything to do: the next kill of this kind may come at any moment of such a run.
            seconds = time.monotonic() - started
            self.typical_s[day] = 0.5 * self.typical_s.get(day, seconds) + 0.5 * seconds
        wrong += self._after(root, kept, died, again)
        moment = "after its end" if "ok" in ended else f"{len(kept)} of {len(kitchen.ASSETS)} published"
        self.outcomes[moment] += 1
        return [f"seed {seed}, {day}, killed {moment}: {one}" for one in wrong]

    def _a_day(self, day: str, random: Random) -> Path:
        if day == "first":
            shutil.rmtree(self.lab.folder / "trial", ignore_errors=True)
            root = kitchen.build(self.lab.folder / "trial")
            kitchen.land(root, "0.csv", kitchen.some_rows(random, 0, 300, 200))
            return root
        root = self.lab.folder / "trial"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.built, root)
        new = kitchen.some_rows(random, 10_000, 150, 250)
        if day == "grown":
            old = (root / "landing/1.csv").read_text().splitlines()[1:]
            kitchen.land(root, "1.csv", [*(tuple(map(int, line.split(","))) for line in old), *new])
        else:
            kitchen.land(root, "2.csv", new)
        return root

    def _after(self, root: Path, kept: dict[str, Any], died: str, again: dict[str, Any]) -> list[str]:
        if again.get("ok", {}).get("status") not in ("done", "fresh"):
            return [f"the rerun failed: {again}"]
        tables, now = tables_and_heads(root)
        wrong = [
            f"{n}: {len(tables[n])} rows, not as expected" for n in tables if tables[n] != kitchen.expected(root)[n]
        ]
        # What reads the clock is stale at every request; it is kept too if the rerun goes on with the run that died.
        wrong += [
            f"{name} was published by the killed run as {head.version} and is built again: {again}"
            for name, head in kept.items()
            if now[name].version != head.version and (died or name != "gold.moment")
        ]
        with open_workbench(root) as bench, bench.lake.session() as session:
            published = Counter((e.asset, e.run_id) for e in ledger.entries(session))
            memory = [f.file for f in ledger.landing_files(session, "bronze.sales")]
        if published and max(published.values()) > 1:
            wrong.append(f"published twice by one run: {published}")
        if sorted(memory) != sorted(f"landing/{p.name}" for p in (root / "landing").glob("*.csv")):
            wrong.append(f"landing memory: {memory}")
        return wrong


def unfinished_run(root: Path) -> str:
    """The newest run, if its end was never written; as the file says, before anybody marks it as died."""
    if not (root / ".rat/journal.sqlite").exists():
        return ""
    with closing(sqlite3.connect(root / ".rat/journal.sqlite")) as journal:
        try:
            found = journal.execute("select run_id, status from runs order by started_at desc limit 1").fetchone()
        except sqlite3.OperationalError:
            return ""  # killed before its tables were made
    return found[0] if found and found[1] == "running" else ""


def tables_and_heads(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a reader sees now; nothing if there is no lake, or none yet."""
    if not (root / ".rat/catalog.sqlite").exists():
        return {}, {}
    with open_workbench(root, write=True) as bench, bench.lake.pinned() as session:
        return kitchen.found(session), ledger.heads(session)


def mixtures(before: dict[str, Any], now: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name, rows in now.items() if rows not in (before.get(name, []), after[name])]


def test_a_run_killed_at_a_random_moment_is_healed_by_a_rerun(lab: Lab) -> None:
    built = kitchen.build(lab.folder / "built")
    random = Random(SEED)
    for number in range(2):
        kitchen.land(built, f"{number}.csv", kitchen.some_rows(random, 1000 * number, 300, 200))
    assert lab.nursery.do("run_once", built)["ok"]["status"] == "done"
    kills = Kills(lab, built)
    count = trials(8)
    wrong = [sentence for i in range(count) for sentence in kills.trial(SEED + i)]
    lab.figure(
        "kill -9 at a random moment of a run, and a rerun",
        size=f"{count} kills",
        seeds=f"{SEED}..{SEED + count - 1}",
        said=str(dict(sorted(kills.outcomes.items()))),
        wrong=len(wrong),
    )
    assert not wrong, "\n".join(wrong)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("errno", ["EIO", "ENOSPC"])
def test_a_failing_disk_anywhere_in_a_run_is_told_in_four_lines_and_healed_by_a_rerun(lab: Lab, errno: str) -> None:
    built = kitchen.build(lab.folder / "built")
    kitchen.land(built, "0.csv", kitchen.own_rows(0, 0, 100))
    assert lab.nursery.do("run_once", built)["ok"]["status"] == "done"
    before, _ = tables_and_heads(built)
    kitchen.land(built, "1.csv", kitchen.own_rows(1, 0, 100))
    points = [p for p in lab.points(lab.copy(built), "run_once") if p.call not in NEVER_FAIL]
    chosen = some_of(points, min(len(points), trials(5)), seed=SEED)
    outcomes: Counter[str] = Counter()
    wrong = []
    for point in chosen:
        root = lab.copy(built)
        answer, hit = lab.with_fault(root, f"error={errno}", point, "run_once")
        outcomes["missed" if not hit else answer.get("ok", {}).get("status") or next(iter(answer))] += 1
        tables, _ = tables_and_heads(root)
        said = [f"{name} is neither old nor new" for name in mixtures(before, tables, kitchen.expected(root))]
        # A fault beside the workspace, in Python's own files, is not ours to explain.
        said += unhelpful(answer) if hit else []
        again = lab.nursery.do("run_once", root)
        if again.get("ok", {}).get("status") not in ("done", "fresh"):
            said.append(f"the rerun failed: {again}")
        elif tables_and_heads(root)[0] != kitchen.expected(root):
            said.append("rows are not as expected after the rerun")
        wrong += [f"{errno} at {point}: {one}" for one in said]
    lab.figure(
        f"{errno} at a system call of a run",
        size=f"{len(chosen)} of {len(points)} calls",
        said=str(dict(outcomes)),
        wrong=len(wrong),
    )
    assert not wrong, "\n".join(wrong)


def unhelpful(answer: dict[str, Any]) -> list[str]:
    """What a person could not act on: a traceback, an error without its lines, a success that is none."""
    if "crash" in answer:
        return [f"not a RatError: {answer['crash']}"]
    errors = (
        [answer["error"]] if "error" in answer else [s["error"] for s in answer["ok"]["steps"].values() if s["error"]]
    )
    said = [
        f"an error without {line}: {e}" for e in errors for line in ("what", "where", "state", "next") if not e[line]
    ]
    return said + [f"called a defect: {e}" for e in errors if "defect" in e["next"]]
