"""A process that materializes the chain and, if told so, kills itself with SIGKILL in the middle.

    python recipes_worker.py WORKSPACE DIES_IN [settings as JSON]

DIES_IN   the asset to die in, and after how many of its writes: `tokenized_dataset:2`; `-` lives
Parts are small (16 texts) and a checkpoint is saved at each step, so that there is a middle.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import dagster as dg


def main(root: str, dies_in: str, settings: str = "{}") -> None:
    warnings.simplefilter("ignore")
    os.chdir(root)
    sys.path[:0] = [root, str(Path(__file__).parent)]
    from recipes_bench import CHAIN, STALE_ONLY, Larder, statuses

    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        larder = Larder(Path(root), instance)
        from pipelines.recipes import shards

        shards.ROWS = 16
        asset, _, after = dies_in.partition(":")
        if asset == "trained_model":
            from pipelines.recipes import training

            _die_after(training._Training, "_save", int(after))
        elif asset in CHAIN:
            _die_after(shards, "write" if asset in CHAIN[:3] else "write_json", int(after), f"/{asset}/")
        wish = json.loads(settings)
        config = {"trained_model": {"checkpoint_every_s": 0.0, "device": "cpu"}, **wish}
        result = larder.run(*CHAIN, config=config, tags=STALE_ONLY)
        print(json.dumps({"success": result.success, "statuses": statuses(result)}))


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


if __name__ == "__main__":
    main(*sys.argv[1:])
