"""Faults in whole workspaces: the sales pipeline, rows as the world writes them, and every mode of growing at once.

Readers see the old table or the new one, whatever happens; a rerun ends with what an undisturbed run gives, builds
nothing again that was published, and after `rat clean` no file is left that nobody names.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import workspaces
from crash_lab import NEVER_FAIL, Lab, Point, some_of, trials
from workspaces import House, heads, published_twice, strangers, tables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
SEED = int(os.environ.get("RATATOUILLE_SEED", "20261121"))
Mount = Callable[[Path, str], None]
Filled = Callable[[Path, int], AbstractContextManager[None]]
A_WEEK = 7.0
EVERY_DAY = trials(1) == 1


@dataclass(frozen=True)
class Stage:
    """A workspace before its second run, the tables that it has, and those that an undisturbed run gives."""

    house: House
    before: Path
    old: dict[str, Any]
    new: dict[str, Any]
    seconds: float

    def wrong(self, root: Path, *, write: bool = True) -> list[str]:
        found = tables(root, write=write)
        return [f"{n} is neither old nor new" for n in self.new if found.get(n) not in (self.old.get(n), self.new[n])]

    def wrong_after_a_rerun(self, lab: Lab, root: Path, kept: dict[str, int]) -> list[str]:
        again = lab.nursery.do("run_once", root)
        if again.get("ok", {}).get("status") not in ("done", "fresh"):
            return [f"the rerun failed: {again}"]
        found, now = tables(root), heads(root)
        wrong = [f"{n} is not as in an undisturbed run" for n in self.new if found.get(n) != self.new[n]]
        # A graph whose writer was killed is asked by each of its loads again: they are outside the lake's transaction.
        settled = {n: version for n, version in kept.items() if not n.startswith("loaded.")}
        wrong += [
            f"{n} was published already and is built again" for n, version in settled.items() if now[n] != version
        ]
        return wrong + [f"published twice: {one}" for one in published_twice(root)]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory, nursery: Any) -> Callable[[str], Stage]:
    """`stages("sales")`, made once."""
    folder, made = tmp_path_factory.mktemp("houses"), {}

    def stage(name: str) -> Stage:
        if name not in made:
            (folder / "stand-in").mkdir(exist_ok=True)
            house = {
                "sales": workspaces.sales,
                "rows": lambda: workspaces.rows(folder / "stand-in"),
                "modes": workspaces.modes,
                "sbir": lambda: workspaces.sbir(folder / "worlds"),
            }[name]()
            root = house.build(folder / name)
            assert nursery.do("run_once", root)["ok"]["status"] == "done"
            house.more(root)
            seconds = 9e9
            for number in range(3):  # the first one pays for what the others have in memory
                whole = shutil.copytree(root, folder / f"{name}-whole-{number}", symlinks=True)
                started = time.monotonic()
                assert nursery.do("run_once", whole)["ok"]["status"] == "done"
                seconds = min(seconds, time.monotonic() - started)
            made[name] = Stage(house, root, tables(root), tables(whole), seconds)
            assert made[name].old != made[name].new
        return made[name]

    return stage


@pytest.mark.parametrize("name", ["sales", "modes"] if EVERY_DAY else ["sales", "rows", "modes", "sbir"])
def test_a_killed_run_is_healed_by_a_rerun(lab: Lab, stages: Callable[[str], Stage], name: str) -> None:
    stage, count = stages(name), trials(1)
    wrong: list[str] = []
    outcomes: Counter[str] = Counter()
    seed, killed = SEED - 1, 0
    while killed < count and seed < SEED + 4 * count:
        seed += 1
        random = Random(seed)
        root = lab.copy(stage.before)
        # Half of them in the part of the run in which tables are published.
        stood, begin = heads(root), random.choice([0.05, 0.5])
        child = lab.nursery.spawn("run_once", root).go()
        time.sleep(random.uniform(begin, 1.1) * stage.seconds)
        child.kill()
        ended = child.wait()
        kept = {n: version for n, version in heads(root).items() if version != stood.get(n)}
        killed += "ok" not in ended
        outcomes["after its end" if "ok" in ended else f"{len(kept)} published"] += 1
        said = stage.wrong(root) + stage.wrong_after_a_rerun(lab, root, kept)
        wrong += [f"seed {seed}: {one}" for one in said]
    lab.figure(
        f"kill -9 at a random moment of a run, {stage.house.name}",
        size=f"{killed} kills",
        seeds=f"{SEED}..{seed}",
        said=str(dict(outcomes)),
        wrong=len(wrong),
    )
    assert not wrong, "\n".join(wrong)
    assert killed == count, "most runs had ended before the kill"


@pytest.mark.usefixtures("strace")
def test_a_fault_at_any_call_of_a_run_in_every_mode(lab: Lab, stages: Callable[[str], Stage]) -> None:
    stage = stages("modes")
    points = lab.points(lab.copy(stage.before), "run_once")
    wrong: list[str] = []
    for number, fault in enumerate(("signal=KILL", "error=EIO", "error=ENOSPC")):
        may = [p for p in points if "KILL" in fault or p.call not in NEVER_FAIL]
        chosen = some_of(may, min(len(may), trials(1)), seed=SEED + number)
        outcomes: Counter[str] = Counter()
        said = [one for point in chosen for one in one_fault(lab, stage, fault, point, outcomes)]
        lab.figure(
            f"{fault.partition('=')[2]} at a system call of a run in every mode",
            size=f"{len(chosen)} of {len(may)} calls",
            said=str(dict(outcomes)),
            wrong=len(said),
        )
        wrong += said
        assert outcomes["missed"] <= max(1, len(chosen) // 5), outcomes
    assert not wrong, "\n".join(wrong)


def one_fault(lab: Lab, stage: Stage, fault: str, point: Point, outcomes: Counter[str]) -> list[str]:
    root = lab.copy(stage.before)
    answer, hit = lab.with_fault(root, fault, point, "run_once")
    outcomes["missed" if not hit else answer.get("ok", {}).get("status") or next(iter(answer))] += 1
    said = stage.wrong(root) + ([f"not four lines: {answer['crash']}"] if "crash" in answer and hit else [])
    said += stage.wrong_after_a_rerun(lab, root, {})
    return [f"{fault} at {point}: {one}" for one in said]


# No room, no right


@contextmanager
def full(small: Path, filled: Filled, mount: Mount) -> Iterator[None]:
    with filled(small, 0):
        yield


@contextmanager
def read_only(small: Path, filled: Filled, mount: Mount) -> Iterator[None]:
    mount(small, "ro")
    yield
    mount(small, "rw")


@contextmanager
def without_inodes(small: Path, filled: Filled, mount: Mount) -> Iterator[None]:
    taken: list[Path] = []
    try:
        while True:
            path = small / f"taken{len(taken)}"
            path.touch()
            taken.append(path)
    except OSError:
        yield
    for path in taken:
        path.unlink()


@contextmanager
def without_rights(small: Path, filled: Filled, mount: Mount) -> Iterator[None]:
    folders = [path for path in (small / "house/.rat/data").rglob("*") if path.is_dir()]
    for path in folders:
        path.chmod(0o500)
    yield
    for path in folders:
        path.chmod(0o700)


TROUBLES = {
    "a full disk": (full, "full"),
    "a read-only file system": (read_only, "cannot be written"),
    "no inode left": (without_inodes, ""),
    "the right to write is lost": (without_rights, "cannot be written"),
}


@pytest.mark.parametrize("name", ["sales"] if EVERY_DAY else ["sales", "modes"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_without_room_or_right_readers_keep_what_they_had_and_nothing_stays_behind(
    lab: Lab, stages: Callable[[str], Stage], mount: Mount, filled: Filled, trouble: str, name: str
) -> None:
    stage, (make, said) = stages(name), TROUBLES[trouble]
    small = lab.folder / "small"
    mount(small, "size=24m" + (",nr_inodes=300" if "inode" in trouble else ""))
    root = shutil.copytree(stage.before, small / "house", symlinks=True)
    tables(root)  # its place is not the one that it was built in
    # What a killed run leaves: an attempt of which nobody knows.
    stray = root / ".rat/data" / min(stage.old).replace(".", "/") / "20260101T000000-dead00-1.1/data_0.parquet"
    stray.parent.mkdir()
    stray.write_bytes(b"x" * 100)
    with make(small, filled, mount):
        answer = lab.nursery.do("run_without_rights" if "right" in trouble else "run_once", root)
        errors = [e for e in ([answer.get("error")] if "error" in answer else _errors(answer)) if e]
        assert errors and all(error[line] for error in errors for line in ("what", "where", "state", "next")), answer
        assert any(said in error["what"] for error in errors), errors
        if "inode" not in trouble:
            assert not stage.wrong(root, write=False)
    assert not stage.wrong(root)
    wrong = stage.wrong_after_a_rerun(lab, root, {})
    assert "ok" in lab.nursery.do("clean_up", root, A_WEEK)
    cleaned = lab.nursery.do("clean_up", root, 2 * A_WEEK)
    assert cleaned.get("ok", {"warnings": cleaned})["warnings"] == [], cleaned
    wrong += [f"left behind: {file}" for file in strangers(root)]
    lab.figure(f"{trouble}, {stage.house.name}", size="1 run, a rerun, a clean", wrong=len(wrong))
    assert not wrong, "\n".join(wrong)


def _errors(answer: dict[str, Any]) -> list[dict[str, str]]:
    assert "crash" not in answer, answer["crash"]
    return [step["error"] for step in answer["ok"]["steps"].values() if step["error"]]
