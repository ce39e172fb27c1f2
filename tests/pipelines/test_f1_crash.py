"""kill -9 at a random moment of each step of F1, a full disk, a disk that cannot be written.

A layer is the old one or the new one, and a rerun makes it new. Extraction is killed in test_f1_failures.py. `RATATOUILLE_TRIALS=20` kills two hundred times and prints what it met.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ratatouille.handle import Workspace

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("RATATOUILLE_SEED", "20261121"))
TRIALS = int(os.environ.get("RATATOUILLE_TRIALS", "1"))
SILVER, GOLD = "default_silver_clean", "default_gold_analytics"
LAYERS = {
    "bronze": [f"bronze_raw.bronze_{name}" for name in ("sessions", "drivers", "laps", "locations", "session_results", "starting_grid", "pit", "race_control")],
    "silver": [f"{SILVER}.silver_{name}" for name in ("sessions", "drivers", "laps", "locations")],
    "core": [f"{GOLD}.{name}" for name in ("dim_sessions", "dim_drivers", "fact_laps")],
    "marts": [f"{GOLD}.{name}" for name in ("driver_session_summary", "session_leaderboard", "team_performance")],
}  # fmt: skip
ENTITIES = ["sessions", "meetings", "drivers", "laps", "location", "pit", "race_control", "session_result", "starting_grid"]  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200), pytest.mark.usefixtures("quiet_retries")]
Digests = Mapping[str, Any]


def command(layer: str) -> list[str]:
    if layer == "bronze":
        return [sys.executable, "-m", "pipelines.f1.run_batch_load"]
    return [sys.executable, "-m", "pipelines.f1.run_dbt", "build", "--select", layer]


def start(root: Path, layer: str) -> subprocess.Popen[bytes]:
    """The step in a group of its own, so that dbt can die with it or live on."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    return subprocess.Popen(command(layer), cwd=root, env=environment(root), **quiet)


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "RATATOUILLE_WORKSPACE": str(root)}


def digests(root: Path, layer: str) -> Digests:
    """Rows and an order-free checksum of each table, without the columns that say when it was built."""
    clock = "exclude (_loaded_at, _run_id)" if layer == "bronze" else "exclude (updated_at, input_updated_at)"
    one = f"select '{{0}}' as name, count(*) as rows, sum(hash(t)::hugeint)::varchar as said from (select * {clock} from {{0}}) t"
    read = Workspace(root).query(" union all ".join(one.format(table) for table in LAYERS[layer]))
    return {name: (rows, said) for name, rows, said in read.rows()}


@pytest.fixture(scope="module")
def days(season: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Workspaces with two sessions in every layer, and a third in all layers before the one that is named."""
    from f1_bench import LATER, settings_of
    from pipelines.f1.extract import extract_sessions
    from pipelines.f1.openf1 import OpenF1
    from pipelines.f1.server import serve

    home = tmp_path_factory.mktemp("f1")
    root = home / "kitchen"
    (root / "pipelines").mkdir(parents=True)
    shutil.copy(ROOT / "workspace.yaml", root)
    ignored = shutil.ignore_patterns("target", "logs", "__pycache__")
    shutil.copytree(ROOT / "pipelines" / "f1", root / "pipelines" / "f1", ignore=ignored)
    # Its steps are commands here: the package needs nothing of Dagster.
    (root / "pipelines" / "f1" / "__init__.py").write_text("")
    (root / "pipelines" / "__init__.py").write_text("")
    stages: dict[str, Path] = {}
    with serve(season) as server, OpenF1(settings_of(server)) as client:
        for count in (2, 3):
            extract_sessions(
                client, root / "landing" / "f1", mode="oldest", sessions=count, entities=ENTITIES, now=LATER
            )
            for layer in LAYERS:
                if count == 3:
                    stages[layer] = Path(shutil.copytree(root, home / f"before-{layer}", symlinks=True))
                began = time.monotonic()
                assert start(root, layer).wait(120) == 0, layer
                (root / f"{layer}.seconds").write_text(str(time.monotonic() - began))
    return {**stages, "done": root}


def test_a_layer_is_the_old_or_the_new_one_whenever_its_step_is_killed(
    days: dict[str, Path], tmp_path: Path, figure: Callable[..., None]
) -> None:
    wrong: list[str] = []
    met: Counter[tuple[str, str]] = Counter()
    for number in range(TRIALS):
        for layer in (*LAYERS, *["bronze"] * (6 if TRIALS > 1 else 0)):  # without dbt a trial takes a moment
            random = Random(f"{SEED} {sum(met.values())}")
            root = tmp_path / "trial"
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(days[layer], root, symlinks=True)
            old, new = digests(root, layer), digests(days["done"], layer)
            assert all(old[table] != new[table] for table in (LAYERS[layer][0],)), "the third session must show"
            step = start(root, layer)
            time.sleep(random.uniform(0.2, 1.05) * float((days["done"] / f"{layer}.seconds").read_text()))
            alone = random.random() < 0.5  # dbt lives on without its parent
            step.kill() if alone else os.killpg(step.pid, signal.SIGKILL)
            step.wait()
            found = digests(root, layer)
            generation = {"old" if found[t] == old[t] else "new" if found[t] == new[t] else "mixed" for t in found if old[t] != new[t]}  # fmt: skip
            if "mixed" in generation or (len(generation) > 1 and layer != "bronze"):
                wrong.append(f"{layer} trial {number}: {sorted(generation)} after the kill")
            met[layer, "+".join(sorted(generation))] += 1
            if start(root, layer).wait(180) != 0:
                wrong.append(f"{layer} trial {number}: the rerun failed")
            elif digests(root, layer) != new:
                wrong.append(f"{layer} trial {number}: the rerun left other rows")
            if alone:
                _kill_what_lives_on(step.pid)
        print(f"{sum(met.values())} kills, {len(wrong)} wrong", flush=True)
    figure("kill -9 of a step of F1, and a rerun", size=f"{sum(met.values())} kills", seeds=str(SEED), said=str(dict(met)), wrong=len(wrong))  # fmt: skip
    assert not wrong, wrong


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_without_room_a_step_says_so_and_readers_keep_what_they_had(
    days: dict[str, Path], tmp_path: Path, mount: Callable[..., None], filled: Callable[..., Any], trouble: str
) -> None:
    small = tmp_path / "small"
    mount(small, "size=120m")
    for layer in ("bronze", "marts") if trouble == "full" else ("silver",):
        root = Path(shutil.copytree(days[layer], small / layer, symlinks=True))
        before = {name: digests(root, name) for name in LAYERS}
        with filled(small, 0) if trouble == "full" else nullcontext():
            if trouble == "read-only":
                mount(small, "ro")
            said = subprocess.run(command(layer), cwd=root, env=environment(root), capture_output=True, text=True, timeout=180, check=False)  # fmt: skip
            assert said.returncode != 0, said.stdout
            lines = [line for line in said.stderr.splitlines() if line.strip()]
            assert "Traceback" not in said.stderr and len(lines) >= 4, said.stderr
            assert ("full" in lines[0] or "No space" in said.stderr) if trouble == "full" else "writ" in said.stderr, said.stderr  # fmt: skip
            assert {name: digests(root, name) for name in LAYERS} == before
        if trouble == "read-only":
            mount(small, "rw")
        assert start(root, layer).wait(180) == 0
        assert digests(root, layer) == digests(days["done"], layer)


def _kill_what_lives_on(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
