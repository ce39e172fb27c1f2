"""kill -9 at random moments of the whole chain, and a rerun: by hand, because it takes a while.

    python tests/pipelines/recipes_kills.py 200 [first seed]

A trial starts the chain in a fresh workspace, kills it after a random part of a run's usual time, and starts it again.
Then: the second run ends well; every step that had published before the kill was skipped and its files are the same;
nothing was published twice; every current version is whole; nothing is left of the first attempt. A process with
everything imported is forked for each run, so that a trial costs seconds.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from recipes_bench import CHAIN, ROOT  # noqa: E402
from recipes_worker import forked, published  # noqa: E402


def prepare(root: Path) -> None:
    root.mkdir(parents=True)
    shutil.copy(ROOT / "workspace.yaml", root)
    shutil.copytree(
        ROOT / "pipelines/recipes", root / "pipelines/recipes", ignore=shutil.ignore_patterns("__pycache__")
    )
    (root / "pipelines/__init__.py").write_text("")


def files(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_ino for path in (root / ".rat/artifacts").glob("recipes.*/[!.]*/*")}


def whole(root: Path) -> list[str]:
    """What is wrong with the current versions, by their own manifests."""
    import hashlib

    wrong = []
    for name, versions in published(root).items():
        if not versions:
            wrong.append(f"{name} was not published")
            continue
        folder = root / ".rat/artifacts" / f"recipes.{name}" / versions[-1]["folder"]
        for file in json.loads((folder / "manifest.json").read_text())["files"]:
            if hashlib.sha256((folder / file["path"]).read_bytes()).hexdigest() != file["sha256"]:
                wrong.append(f"{name}/{file['path']} is damaged")
    return wrong


def trial(seed: int, home: Path, usual_s: float, outcomes: Counter[str]) -> list[str]:
    root, told = home / f"t{seed}" / "kitchen", home / f"t{seed}" / "told.json"
    prepare(root)
    ended = forked(root, told, random.Random(seed).uniform(0.0, usual_s)) == 0
    before, kept = published(root), files(root)
    stood = [name for name in CHAIN if before[name]]
    outcomes["it had ended" if ended else f"{len(stood)} of 5 steps were published"] += 1
    told.unlink(missing_ok=True)
    if forked(root, told):
        error = told.with_suffix(".error")
        return [f"seed {seed}: the rerun did not end well: {error.read_text()[-600:] if error.exists() else ''}"]
    said, after, now = json.loads(told.read_text()), published(root), files(root)
    wrong = [f"seed {seed}: {one}" for one in whole(root)]
    if not said["success"]:
        wrong.append(f"seed {seed}: the rerun failed: {said}")
    for name in CHAIN:
        built = [one for one in after[name] if one["entry"]["action"] == "build"]
        if len(built) != 1:
            wrong.append(f"seed {seed}: {name} was published {len(built)} times")
        if name in stood and said["statuses"].get(name) != "skipped":
            wrong.append(f"seed {seed}: {name} stood and was {said['statuses'].get(name)}")
    changed = [path for path, inode in kept.items() if now.get(path) != inode and _is_published(path, before)]
    wrong += [f"seed {seed}: {path} changed" for path in changed]
    left = [path for path in (root / ".rat/work/recipes").rglob("*") if path.is_file() and path.name != ".lock"]
    wrong += [f"seed {seed}: {path} is left over" for path in left[:1]]
    shutil.rmtree(home / f"t{seed}")
    return wrong


def _is_published(path: str, before: dict[str, list[dict[str, Any]]]) -> bool:
    return any(f"/recipes.{name}/{one['folder']}/" in path for name, versions in before.items() for one in versions)


def main(trials: int, first_seed: int) -> int:
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        home = Path(folder)
        usual_s = 1e9
        for number in range(2):  # the first also warms the machine's caches
            prepare(home / f"usual{number}/kitchen")
            started = time.monotonic()
            if forked(home / f"usual{number}/kitchen", home / f"usual{number}/told.json"):
                print("the faultless run failed", (home / f"usual{number}/told.error").read_text())
                return 1
            usual_s = min(usual_s, time.monotonic() - started)
        print(f"a faultless run takes {usual_s:.1f} s", flush=True)
        for seed in range(first_seed, first_seed + trials):
            wrong += (found := trial(seed, home, usual_s, outcomes))
            for one in found:
                print(one, flush=True)
            if (seed - first_seed + 1) % 10 == 0:
                print(f"{seed - first_seed + 1} trials, {len(wrong)} wrong, {dict(outcomes)}", flush=True)
    print(f"{trials} trials, {len(wrong)} wrong: {dict(sorted(outcomes.items()))}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, int(sys.argv[2]) if len(sys.argv) > 2 else 20_261_121))
