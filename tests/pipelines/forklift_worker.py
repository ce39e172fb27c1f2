"""A process that runs the chain again and again and dies, by SIGKILL, in the asset that it is told to die in.

    python forklift_worker.py WORKSPACE training_dataset trained_model ... -

`-` is a run that lives. Everything is imported once, and a fork is what runs and dies: while its value is stored, when
all the work of the step is done and nothing of it is published. A line of JSON tells of each run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
sys.path[:0] = [str(Path(__file__).resolve().parent)]

import altair  # noqa: E402, F401 - imported once, for all forks
import dagster as dg  # noqa: E402
import sklearn.ensemble  # noqa: E402
import sklearn.inspection  # noqa: E402
import sklearn.linear_model  # noqa: E402, F401
import skops.io  # noqa: E402, F401
from forklift_bench import CHAIN, STALE_ONLY, Yard, metadata  # noqa: E402

CONFIG = {"trained_model": {"kinds": ["logistic"]}}
TABLES = ["gold.forklift_training", *(f"forklift.{name}" for name in CHAIN[1:])]


def run_once(root: Path, told: Path, dies_in: str) -> None:
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        yard = Yard(root, instance)
        managers = yard.module("io_managers")
        whole = managers.WithViews.handle_output

        def dying(self: Any, context: dg.OutputContext, value: Any) -> None:
            if context.has_asset_key and context.asset_key.path[-1] == dies_in:
                os.kill(os.getpid(), signal.SIGKILL)
            whole(self, context, value)

        managers.WithViews.handle_output = dying
        result = yard.run(config=CONFIG, tags=STALE_ONLY)
        said = {name: metadata(result, name) for name in CHAIN}
        statuses = {name: "skipped" if one.get("status") == "skipped" else "built" for name, one in said.items()}
        told.write_text(json.dumps({"success": result.success, "statuses": statuses}))


def forked(root: Path, told: Path, dies_in: str) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")
            os.dup2(sys.stderr.fileno(), 2)
            run_once(root, told, dies_in)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def versions(root: Path) -> dict[str, int]:
    """How many versions were published of each, asked in a fork: what reads the lake starts threads."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        from ratatouille.errors import RatError
        from ratatouille.handle import Workspace

        found = {}
        for name in TABLES:
            try:
                found[name] = len(Workspace(root).history(name))
            except RatError:
                found[name] = 0
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader) as answer:
        return dict(json.load(answer))


def main(root: Path, deaths: list[str]) -> None:
    told = root.parent / "told.json"
    sys.path.insert(0, str(root))
    for module in ("duckdb", "sqlglot", "vl_convert", "ratatouille.dagster.code_location", "pipelines.forklift.repo"):
        import_module(module)
    for dies_in in deaths:
        told.unlink(missing_ok=True)
        ended = forked(root, told, dies_in)
        said = json.loads(told.read_text()) if told.exists() else {}
        print(json.dumps({"dies_in": dies_in, "ended": ended, **said, "versions": versions(root)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
