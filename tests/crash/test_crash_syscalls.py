"""A publish that is killed, or whose disk fails, at any of its system calls.

Two tables, their ledger entries, landing memory and quarantine rows go into one commit. Whatever happens at
whichever call: readers see all of the old or all of the new, and a rerun ends with the new, published once.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from crash_lab import Lab, Point, some_of, trials

# strace replaces the failing call, so a "failed" close would leave the file open, which Linux never does.
NEVER_FAIL = ("close", "flock")


def _base(lab: Lab) -> Path:
    base = lab.folder / "base"
    assert lab.nursery.do("publish_pair", base, "first", "replace", 1) == {"ok": [3, 3]}
    return base


def _content(seen: dict[str, Any]) -> Any:
    """Rows by label, landing memory, quarantine: everything but the number of the version."""
    return [seen["pair"][0], *seen["pair"][2:]] if seen["pair"] else []


class Sweep:
    """One way of publishing, what it starts from, and what it must end with."""

    def __init__(self, lab: Lab, how: str, call: str = "publish_pair") -> None:
        self.lab, self.how, self.call = lab, how, call
        self.base = _base(lab)
        self.old = _content(lab.worker.look(self.base))
        whole = lab.copy(self.base, "whole")
        assert lab.nursery.do("publish_pair", whole, "second", how, 2) == {"ok": [4, 4]}
        self.new = _content(lab.worker.look(whole))
        assert self.old != self.new
        self.points = lab.points(lab.copy(self.base), "publish_pair", "second", how, 2)
        self.outcomes = {"killed": 0, "error": 0, "ok": 0, "missed": 0}

    def trial(self, fault: str, point: Point) -> list[str]:
        """What is wrong after this fault, in sentences; nothing, if all is well."""
        trial = self.lab.copy(self.base)
        answer, hit = self.lab.with_fault(trial, fault, point, self.call, "second", self.how, 2)
        (outcome,) = answer.keys()
        self.outcomes["missed" if not hit else outcome if outcome in self.outcomes else "error"] += 1
        wrong = [f"not a RatError: {answer['crash']}"] if "crash" in answer else []
        wrong += self._unhelpful(answer)
        try:
            seen = self.lab.worker.look(trial)
            wrong += seen["wrong"]
            if _content(seen) not in (self.old, self.new):
                wrong.append(f"neither old nor new: {seen['pair']}")
            if "ok" in answer and _content(seen) != self.new:
                wrong.append("an acknowledged commit is lost")
            if "error" in answer and _content(seen) != self.old:
                wrong.append(f"an error, but published: {answer['error']}")
            wrong += self._rerun(trial)
        except Exception as error:
            wrong.append(f"unreadable: {type(error).__name__}: {error}")
        return [f"{self.how}, {fault} at {point}: {one}" for one in wrong]

    def _unhelpful(self, answer: dict[str, Any]) -> list[str]:
        lines = answer.get("error", {})
        return [f"an error without {key}: {lines}" for key in ("what", "state") if lines and not lines[key]]

    def _rerun(self, trial: Path) -> list[str]:
        again = self.lab.nursery.do("publish_pair", trial, "second", self.how, 2)
        if "ok" not in again:
            return [f"the rerun failed: {again}"]
        seen = self.lab.worker.look(trial)
        wrong = list(seen["wrong"])
        if _content(seen) != self.new:
            wrong.append(f"after the rerun: {seen['pair']}")
        if [entry for entry in seen["entries"] if entry[1] == "second"] != [
            ["silver.y", "second"],
            ["silver.x", "second"],
        ] and sorted(map(tuple, seen["entries"])) != sorted(
            [(n, r) for n in self.lab.worker.PAIR for r in ("first", "second")]
        ):
            wrong.append(f"the ledger after the rerun: {seen['entries']}")
        return wrong

    def over(self, fault: str, everyday: int) -> None:
        points = [p for p in self.points if fault == "signal=KILL" or p.call not in NEVER_FAIL]
        wanted = min(len(points), trials(everyday))
        chosen = some_of(points, wanted, seed=int(os.environ.get("RATATOUILLE_SEED", "1")))
        wrong = [sentence for point in chosen for sentence in self.trial(fault, point)]
        print(f"\n{self.how}, {self.call}, {fault}: {len(chosen)} of {len(points)} calls, {self.outcomes}, {len(wrong)} wrong")
        assert not wrong, f"{len(wrong)} of {len(chosen)} trials:\n" + "\n".join(wrong)
        assert self.outcomes["missed"] <= len(chosen) // 5, f"the fault missed the workspace: {self.outcomes}"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["replace", "merge"])
def test_a_kill_at_any_system_call_leaves_old_or_new(lab: Lab, how: str) -> None:
    Sweep(lab, how).over("signal=KILL", 16)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["replace", "merge"])
@pytest.mark.parametrize("errno", ["EIO", "ENOSPC"])
def test_a_failing_disk_is_an_error_and_never_a_false_success(lab: Lab, how: str, errno: str) -> None:
    Sweep(lab, how).over(f"error={errno}", 10)
