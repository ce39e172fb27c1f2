"""The whole job, killed with -9 in an asset or at any moment, and run again: it does what is unfinished, once.

Every day it dies in one of its assets; RATATOUILLE_TRIALS makes it die in all of them, and at so many random moments,
half of them of a first run and half of one for which a machine has come and another has sent more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from forklift_bench import ROOT

SEED = int(os.environ.get("RATATOUILLE_SEED", "20261121"))
CHAIN = ("raw_forklift_snapshot", "header_assigned_dataset", "cleaned_height_dataset", "carrying_dataset",
         "training_dataset", "trained_model", "model_performance_report", "production_model", "results_in_lakefs")  # fmt: skip
TABLES = ("bronze.forklift_objects", "bronze.forklift_telemetry", "silver.forklift_header", "silver.forklift_heights",
          "silver.forklift_carrying", "gold.forklift_windows", "gold.forklift_training")  # fmt: skip
MODELS = tuple(f"forklift.{name}" for name in CHAIN[5:])
# Which tables an asset of the job publishes.
OF = dict(zip(CHAIN, [TABLES[:2], *[(one,) for one in TABLES[2:5]], TABLES[5:], *[(one,) for one in MODELS]], strict=True))  # fmt: skip
CLOCKS = ("_loaded_at", "_run_id")
OF_A_RUN = ("pipelines/forklift/artifacts", "pipelines/forklift/models", "pipelines/forklift/metrics")


class Yard:
    """A workspace and the process that runs its job."""

    def __init__(self, home: Path) -> None:
        from ratatouille.handle import Workspace

        self.home, self.root, self.workspace = home, home / "kitchen", Workspace(home / "kitchen")
        self.root.mkdir(parents=True)
        (self.root / "workspace.yaml").write_text("name: kitchen\nresources: {memory: 1GB, threads: 1}\n")
        left_out = shutil.ignore_patterns("__pycache__", "artifacts", "models", "metrics")
        shutil.copytree(ROOT / "pipelines/forklift", self.root / "pipelines/forklift", ignore=left_out)
        (self.root / "pipelines/__init__.py").write_text("")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
        command = [sys.executable, str(Path(__file__).with_name("forklift_worker.py")), str(self.root)]
        self.worker = subprocess.Popen(
            command,
            env=os.environ | threads | {"DAGSTER_DISABLE_TELEMETRY": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def sends(self, machines: dict[int, float]) -> None:
        """Let so many hours (from three in the afternoon on) of so many machines be in the repository's folder."""
        from pipelines.forklift import simulate

        folder = self.home / "lake/real_data"
        folder.mkdir(parents=True, exist_ok=True)
        fleet = simulate.Fleet(seed=7, forklifts=10, trucks=1, days=1, first_day=date(2026, 3, 2))
        for number, hours in machines.items():
            machine = simulate.machines(fleet)[number]
            rows, _ = simulate.telemetry(machine, fleet.first_day, 1)
            until = f"2026-03-02 {15 + hours:05.2f}".replace(".", ":")
            part = rows.filter(pl.col("Timestamp").is_between(pl.lit("2026-03-02 15"), pl.lit(until)))
            part.write_csv(folder / f"{machine.name}.csv", include_header=False, separator=";")

    def run(self, **how: Any) -> dict[str, Any]:
        assert self.worker.stdin and self.worker.stdout
        self.worker.stdin.write(json.dumps(how) + "\n")
        self.worker.stdin.flush()
        return dict(json.loads(self.worker.stdout.readline()))

    def kept(self, name: str) -> Path:
        """What runs have made, put aside under a name."""
        folder = self.home / name
        for part in (".rat", "landing", *OF_A_RUN):
            if (self.root / part).exists():
                shutil.copytree(self.root / part, folder / part, symlinks=True)
        shutil.copytree(self.home / "lake", folder / "lake")
        return folder

    def becomes(self, folder: Path | None) -> None:
        for part in (".rat", "landing", *OF_A_RUN):
            shutil.rmtree(self.root / part, ignore_errors=True)
            if folder and (folder / part).exists():
                shutil.copytree(folder / part, self.root / part, symlinks=True)

    def contents(self) -> dict[str, Any]:
        """Of each table its rows and a sum of their hashes, of each model its figures; None where there is none."""
        from ratatouille.errors import RequestError

        found: dict[str, Any] = dict.fromkeys((*TABLES, *MODELS))
        for name in TABLES:
            with suppress(RequestError):
                rows = self.workspace.query(f"select * from {name}").drop(CLOCKS, strict=False)
                found[name] = (rows.height, int(rows.hash_rows(seed=7).cast(pl.Int128).sum() or 0))
        for name in MODELS:
            with suppress(RequestError):  # a file that is not what its checksum says is another error
                found[name] = _figures(self.workspace.artifact(name))
        return found

    def versions(self) -> dict[str, int]:
        from ratatouille.errors import RatError

        counted: Counter[str] = Counter()
        try:
            counted.update(one["asset"] for one in self.workspace.history(None, 10_000))
        except RatError as error:  # killed while the lake was made: nothing was published
            assert "no lake here" in error.what or "rat.ledger" in error.what, error
        return {name: counted[name] for name in (*TABLES, *MODELS)}


def _figures(folder: Path) -> Any:
    """What does not differ between two runs on the same rows."""
    for name in ("metrics.json", "report.json"):
        if (folder / name).exists():
            about = json.loads((folder / name).read_text())
            return [about["scores"], about["made_from"]["rows_sha256"]]
    return json.loads((folder / "receipt.json").read_text())


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    made = Yard(tmp_path_factory.mktemp("yard"))
    yield made
    assert made.worker.stdin and made.worker.stdout
    made.worker.stdin.close()
    made.worker.wait(30)
    made.worker.stdout.close()


def wrong_between(yard: Yard, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    found = yard.contents()
    return [f"{name} is neither old nor new" for name in found if found[name] not in (old[name], new[name])]


def wrong_after(yard: Yard, again: dict[str, Any], new: dict[str, Any], versions: dict[str, int]) -> list[str]:
    """What is wrong after the rerun. `new`, `versions`: as after an undisturbed run."""
    if again["ended"] or not again["success"]:
        return [f"the rerun failed: {again}"]
    found, counted = yard.contents(), yard.versions()
    wrong = [f"{name} is not as in an undisturbed run" for name in new if found[name] != new[name]]
    wrong += [f"{n} has {counted[n]} versions, not {versions[n]}" for n in versions if counted[n] != versions[n]]
    return wrong + [f"left over: {one}" for one in (yard.root / "landing").rglob("*.part")]


def test_a_job_that_is_killed_anywhere_and_run_again_does_what_is_unfinished_once(
    yard: Yard, trials: Callable[[int], int], figure: Callable[..., None]
) -> None:
    count = trials(1) if trials(1) > 1 else 0
    nothing = dict.fromkeys((*TABLES, *MODELS))
    yard.sends({1: 2.2, 4: 2.2})
    deaths = CHAIN if count else (random.Random(SEED).choice(CHAIN),)
    seen: list[tuple[dict[str, Any], dict[str, int]]] = []
    for dies_in in deaths:
        assert yard.run(dies_in=dies_in)["ended"] == -signal.SIGKILL
        seen.append((yard.contents(), yard.versions()))
    done = yard.run()
    new, versions = yard.contents(), yard.versions()
    assert not wrong_after(yard, done, new, versions) and None not in new.values()
    assert set(versions.values()) == {1}, versions
    for dies_in, (found, counted) in zip(deaths, seen, strict=True):
        for number, name in enumerate(CHAIN):
            there = {one: counted[one] for one in OF[name]}
            if number < CHAIN.index(dies_in):
                assert set(there.values()) == {1} and all(found[one] == new[one] for one in there), (dies_in, there)
            elif name not in ("raw_forklift_snapshot", "training_dataset"):
                assert not any(there.values()), (dies_in, there)
    stood = [name for name in CHAIN[1:] if CHAIN.index(name) < CHAIN.index(deaths[-1])]
    assert {name: done["statuses"][name] for name in stood} == dict.fromkeys(stood, "skipped")
    if count:
        _at_random_moments(yard, count, nothing, new, versions, figure)


def _at_random_moments(
    yard: Yard, count: int, nothing: dict[str, Any], first: dict[str, Any], once: dict[str, int], figure: Any
) -> None:
    stages = [(None, nothing, first, once)]
    base = yard.kept("base")
    folders = [yard.home / "lake-of-1", yard.home / "lake-of-2"]
    shutil.copytree(yard.home / "lake", folders[0])
    yard.sends({4: 2.4, 7: 2.4})
    shutil.copytree(yard.home / "lake", folders[1])
    assert yard.run()["success"]
    stages.append((base, first, yard.contents(), yard.versions()))
    seconds = []
    for number, (folder, *_) in enumerate(stages):
        yard.becomes(folder)
        _repository_of(yard, folders[number])
        seconds.append(yard.run()["seconds"])
    wrong: list[str] = []
    outcomes: Counter[str] = Counter()
    seed, killed = SEED - 1, 0
    while killed < count and seed < SEED + 4 * count:
        seed += 1
        chance = random.Random(seed)
        number = seed % 2
        folder, old, new, versions = stages[number]
        yard.becomes(folder)
        _repository_of(yard, folders[number])
        before = yard.versions()
        ended = yard.run(after_s=chance.uniform(0.02, 1.0) * seconds[number])
        killed += ended["ended"] == -signal.SIGKILL
        published = sum(now > before[name] for name, now in yard.versions().items())
        outcomes[
            f"{('first', 'second')[number]} run, {published} published" if ended["ended"] else "after its end"
        ] += 1
        said = wrong_between(yard, old, new) + wrong_after(yard, yard.run(), new, versions)
        wrong += [f"seed {seed}: {one}" for one in said]
        if killed % 10 == 0:
            print(f"{killed} kills, {len(wrong)} wrong, {dict(outcomes)}", wrong[-3:], flush=True)
    figure(
        "kill -9 at a random moment of forklift_training_job",
        size=f"{killed} kills",
        seeds=f"{SEED}..{seed}",
        said=str(dict(sorted(outcomes.items()))),
        wrong=len(wrong),
    )
    assert not wrong, "\n".join(wrong)
    assert killed == count, "most runs had ended before the kill"


def _repository_of(yard: Yard, folder: Path) -> None:
    shutil.rmtree(yard.home / "lake")
    shutil.copytree(folder, yard.home / "lake")
