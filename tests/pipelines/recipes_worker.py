"""A process that runs the chain again and again and kills itself, with SIGKILL, where it is told to.

    python recipes_worker.py WORKSPACE raw_dataset:2 tokenized_dataset:2 trained_model:3 -

Each word is a run: the asset to die in and after how many of its writes, or `-` for one that lives. Everything is
imported once, and a fork is what runs and dies. Parts are small (16 texts) and a checkpoint is saved at each step, so
that there is a middle. A line of JSON tells of each run: the signal, what became of each asset, what is published.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.simplefilter("ignore")
sys.path[:0] = [str(Path(__file__).resolve().parent)]

import dagster as dg  # noqa: E402
import torch  # noqa: E402, F401 - imported once, for all forks
import transformers.models.llama.modeling_llama  # noqa: E402, F401
from recipes_bench import CHAIN, STALE_ONLY, Larder, statuses  # noqa: E402

SETTINGS = {
    "tokenized_dataset": {"vocabulary": 300, "max_seq_length": 64},
    "trained_model": {"size": "tiny", "epochs": 1, "batch_tokens": 512, "checkpoint_every_s": 0.0, "device": "cpu"},
}


def run_once(root: Path, told: Path, dies_in: str = "-") -> None:
    """In a fork: the chain, skipping what is fresh; what became of each asset goes into the file `told`."""
    sys.path.insert(0, str(root))
    os.chdir(root)
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        larder = Larder(root, instance)
        shards = larder.module("shards")
        shards.ROWS = 16
        if not (root / "landing").exists():
            larder.receive(60)
        asset, _, after = dies_in.partition(":")
        if asset == "trained_model":
            _die_after(larder.module("training")._Training, "_save", int(after))
        elif asset in CHAIN:
            _die_after(shards, "write" if asset in CHAIN[:3] else "write_json", int(after), f"/{asset}/")
        result = larder.run(*CHAIN, config=SETTINGS, tags=STALE_ONLY)
        told.write_text(json.dumps({"success": result.success, "statuses": statuses(result)}))


def _die_after(owner: Any, verb: str, times: int, below: str = "") -> None:
    """SIGKILL right after the so-many-th call of a function that concerns a path with `below` in it."""
    whole, left = getattr(owner, verb), [times]

    def dying(*arguments: Any, **named: Any) -> Any:
        result = whole(*arguments, **named)
        if not below or any(below in str(one) for one in arguments):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, verb, dying)


def forked(root: Path, told: Path, kill_after_s: float | None = None, dies_in: str = "-") -> int:
    """How a run ended: 0, the number of the signal as a negative one, or 1 with the reason in `told`.error."""
    child = os.fork()
    if not child:
        code = 1
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")
            os.dup2(sys.stderr.fileno(), 2)
            run_once(root, told, dies_in)
            code = 0
        except BaseException:
            told.with_suffix(".error").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    until = time.monotonic() + (kill_after_s if kill_after_s is not None else 500)
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def published(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Asset -> everything that was ever published of it."""
    found = {}
    for name in CHAIN:
        pointer = root / ".rat/artifacts" / f"recipes.{name}" / "current.json"
        found[name] = json.loads(pointer.read_text())["published"] if pointer.exists() else []
    return found


def main(root: Path, deaths: list[str]) -> None:
    told = root.parent / "told.json"
    for dies_in in deaths:
        told.unlink(missing_ok=True)
        ended = forked(root, told, dies_in=dies_in)
        said = json.loads(told.read_text()) if told.exists() else {}
        folders = {name: [one["folder"] for one in versions] for name, versions in published(root).items()}
        work = [str(path.relative_to(root)) for path in (root / ".rat/work").rglob("*") if path.is_file()]
        print(json.dumps({"dies_in": dies_in, "ended": ended, **said, "published": folders, "work": work}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
