"""A publish that is killed, or whose disk fails, at any of its system calls.

Two tables, their ledger entries, landing memory and quarantine rows go into one commit. Whatever happens at
whichever call: readers see all of the old or all of the new, and a rerun ends with the new, published once.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import crash_worker
import pytest
from crash_lab import NEVER_FAIL, Lab, Point, some_of, trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200), pytest.mark.usefixtures("strace")]
SEED = int(os.environ.get("RATATOUILLE_SEED", "1"))


class Sweep:
    """One way of publishing, what it starts from, and what it must end with."""

    def __init__(self, lab: Lab, how: str, fault: str) -> None:
        self.lab, self.how, self.fault = lab, how, fault
        self.base = lab.folder / "base"
        assert lab.nursery.do("publish_pair", self.base, "first", "replace", 1) == {"ok": [3, 3]}
        self.old = content(crash_worker.look(self.base))
        whole = lab.copy(self.base, "whole")
        assert lab.nursery.do("publish_pair", whole, "second", how, 2) == {"ok": [4, 4]}
        self.new = content(crash_worker.look(whole))
        assert self.old != self.new
        self.points = lab.points(lab.copy(self.base), "publish_pair", "second", how, 2)
        self.outcomes: Counter[str] = Counter()

    def trial(self, point: Point) -> list[str]:
        """What is wrong after this fault, in sentences; nothing, if all is well."""
        trial = self.lab.copy(self.base)
        answer, hit = self.lab.with_fault(trial, self.fault, point, "publish_pair", "second", self.how, 2)
        self.outcomes[next(iter(answer)) if hit else "missed"] += 1
        wrong = [f"not a RatError: {answer['crash'].splitlines()[-1]}"] if "crash" in answer else []
        wrong += [f"an error without {key}" for key in ("what", "state") if not answer.get("error", {key: "-"})[key]]
        try:
            wrong += self._disagreements(answer, crash_worker.look(trial)) + self._rerun(trial)
        except Exception as error:
            wrong.append(f"unreadable: {type(error).__name__}: {error}")
        return [f"{self.how}, {self.fault} at {point}: {one}" for one in wrong]

    def _disagreements(self, answer: dict[str, Any], seen: dict[str, Any]) -> list[str]:
        wrong = list(seen["wrong"])
        before, after = zip(self.old, self.new, strict=True), content(seen)
        if any(now not in (old, new) for (old, new), now in zip(before, after, strict=True)):
            wrong.append(f"neither old nor new: {after}")
        if "killed" in answer and after not in (self.old, self.new):
            wrong.append(f"one table is old and one is new, though they share a commit: {after}")
        if "ok" in answer and after != self.new:
            wrong.append("an acknowledged commit is lost")
        if "error" in answer and after == self.new:
            wrong.append(f"an error, but both are published: {answer['error']}")
        return wrong

    def _rerun(self, trial: Path) -> list[str]:
        again = self.lab.nursery.do("publish_pair", trial, "second", self.how, 2)
        if "ok" not in again:
            return [f"the rerun failed: {again}"]
        seen = crash_worker.look(trial)
        wrong = list(seen["wrong"])
        if content(seen) != self.new:
            wrong.append(f"after the rerun: {content(seen)}")
        if sorted(seen["entries"]) != sorted((name, run) for name in crash_worker.PAIR for run in ("first", "second")):
            wrong.append(f"the ledger after the rerun: {seen['entries']}")
        return wrong

    def over(self, everyday: int) -> None:
        points = [p for p in self.points if self.fault == "signal=KILL" or p.call not in NEVER_FAIL]
        chosen = some_of(points, min(len(points), trials(everyday)), seed=SEED)
        wrong = [sentence for point in chosen for sentence in self.trial(point)]
        self.lab.figure(
            f"{self.fault.removeprefix('signal=').removeprefix('error=')} at a system call of a publish, {self.how}",
            size=f"{len(chosen)} of {len(points)} calls",
            said=str(dict(self.outcomes)),
            wrong=len(wrong),
        )
        assert not wrong, f"{len(wrong)} sentences about {len(chosen)} trials:\n" + "\n".join(wrong)
        # A trial that missed proves nothing; numbers of calls may shift a little between trials.
        assert self.outcomes["missed"] <= len(chosen) // 5, f"the fault missed the workspace: {self.outcomes}"


def content(seen: dict[str, Any]) -> list[Any]:
    """Of each table: rows by label and landing memory; and the quarantine. Everything but the version's number."""
    return [[one[0], one[2], one[3]] for one in seen["tables"]]


@pytest.mark.parametrize("how", ["replace", "merge"])
def test_a_kill_at_any_system_call_leaves_old_or_new(lab: Lab, how: str) -> None:
    Sweep(lab, how, "signal=KILL").over(12)


@pytest.mark.parametrize("how", ["replace", "merge"])
@pytest.mark.parametrize("errno", ["EIO", "ENOSPC"])
def test_a_failing_disk_is_an_error_and_never_a_false_success(lab: Lab, how: str, errno: str) -> None:
    Sweep(lab, how, f"error={errno}").over(6)


def test_a_kill_while_the_lake_is_made_is_healed_by_a_rerun(lab: Lab) -> None:
    empty = lab.folder / "empty"
    empty.mkdir()
    points = lab.points(lab.copy(empty), "publish_pair", "first", "replace", 1)
    whole = content(crash_worker.look(lab.folder / "trial"))
    chosen = some_of(points, min(len(points), trials(8)), seed=SEED)
    wrong = []
    for point in chosen:
        trial = lab.copy(empty)
        lab.with_fault(trial, "signal=KILL", point, "publish_pair", "first", "replace", 1)
        again = lab.nursery.do("publish_pair", trial, "first", "replace", 1)
        if "ok" not in again:
            wrong.append(f"{point}: the rerun failed: {again}")
        elif content(seen := crash_worker.look(trial)) != whole or seen["wrong"]:
            wrong.append(f"{point}: {seen}")
    lab.figure("KILL while a lake is made", size=f"{len(chosen)} of {len(points)} calls", wrong=len(wrong))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("how", ["replace", "merge"])
@pytest.mark.parametrize("then", ["", "kill"])
def test_a_commit_whose_log_was_not_synced_is_whole_or_not_there(lab: Lab, how: str, then: str) -> None:
    """SQLite may have all of a commit in its log when the fsync fails, and DuckLake deletes what it has written."""
    sweep = Sweep(lab, how, "error=EIO")
    syncs = [p for p in sweep.points if p.call == "fsync" and "catalog.sqlite-wal" in p.rest]
    assert syncs
    wrong = []
    for point in syncs:
        if not then:
            wrong += sweep.trial(point)
            continue
        trial = lab.copy(sweep.base)
        lab.with_fault(trial, "error=EIO", point, "publish_and_drop", "second", how, 2, 1)
        seen = crash_worker.look(trial)
        wrong += [f"{point}: {one}" for one in seen["wrong"]]
        if content(seen)[0] not in (sweep.old[0], sweep.new[0]):
            wrong.append(f"{point}: {content(seen)[0]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("how", ["replace", "merge"])
def test_a_commit_that_failed_does_not_come_back_without_its_files(lab: Lab, how: str) -> None:
    """The commit's sync fails, its candidate is dropped, the process is killed before SQLite can tidy its log."""
    sweep = Sweep(lab, how, "error=EIO")
    last = [p for p in sweep.points if p.call in ("write", "fsync") and "catalog.sqlite-wal" in p.rest][-3:]
    for point in last:
        for number in (str(point.number), f"{point.number}+"):
            trial = lab.copy(sweep.base)
            failing = replace(point, number=number)
            lab.with_fault(trial, "error=EIO", failing, "publish_and_drop", "second", how, 2, 1)
            seen = crash_worker.look(trial)
            assert not seen["wrong"], (failing, seen["wrong"])
            first = content(seen)[0]
            assert first in (sweep.old[0], sweep.new[0]), (failing, first)
