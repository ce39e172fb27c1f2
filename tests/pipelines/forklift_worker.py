"""A process that runs the whole job again and again and dies, by SIGKILL, where or when it is told to.

    python forklift_worker.py WORKSPACE

Each line on its standard input is a run, in JSON: `dies_in` the asset to die in, or `after_s` seconds after which it is
killed, or neither. A line of JSON tells how it ended. Everything is imported once; a fork is what runs and dies.

In an asset that runs a file the process dies when one machine of it is staged; in raw_forklift_snapshot when the files
of the commit are in place and the manifest is not; in the others while the value is stored, when all the work is done.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
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
from forklift_bench import STALE_ONLY, Yard, metadata  # noqa: E402

FILES = {
    "header_assigned_dataset": "silver.forklift_header",
    "cleaned_height_dataset": "silver.forklift_heights",
    "carrying_dataset": "silver.forklift_carrying",
}
STORED = ("training_dataset", "trained_model", "model_performance_report", "production_model", "results_in_lakefs")
JOB = ("raw_forklift_snapshot", *FILES, *STORED)
CONFIG = {"trained_model": {"config": {"kinds": ["logistic"]}}}


def run_once(yard: Yard, told: Path, dies_in: str) -> None:
    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if dies_in == JOB[0]:
        yard.module("arrival").write_manifest = die
    elif dies_in in FILES:
        _dies_when_a_machine_is_staged(yard, FILES[dies_in], die)
    elif dies_in:
        managers = yard.module("io_managers")
        whole = managers.WithViews.handle_output

        def dying(self: Any, context: dg.OutputContext, value: Any) -> None:
            if context.has_asset_key and context.asset_key.path[-1] == dies_in:
                die()
            whole(self, context, value)

        managers.WithViews.handle_output = dying
    local = {"lakefs": {"config": {"fallback_local_path": str(yard.root.parent / "lake")}}}
    job = yard.definitions.get_repository_def().get_job("forklift_training_job")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            run_config={"resources": local, "ops": CONFIG}, tags=STALE_ONLY, instance=instance, raise_on_error=False
        )
    statuses = {name: str(metadata(result, name).get("status", "")) for name in JOB}
    failed = [str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure]
    told.write_text(json.dumps({"success": result.success, "statuses": statuses, "failed": failed[:1]}))


def _dies_when_a_machine_is_staged(yard: Yard, table: str, die: Any) -> None:
    """The modules of file assets are imported anew for each build, so this is done where they take it from."""
    stepwise = import_module("pipelines.forklift.stepwise")
    whole = stepwise.by_machine

    def dying(context: Any, *given: Any) -> Any:
        for number, relation in enumerate(whole(context, *given)):
            if number == 2 and context.asset == table:
                die()
            yield relation

    stepwise.by_machine = dying
    stepwise.batches = lambda machines: ([machine] for machine, _ in machines)


def forked(yard: Yard, told: Path, dies_in: str = "", after_s: float | None = None) -> dict[str, Any]:
    """How a run ended: `ended` is 0, or the number of the signal as a negative one, or 1 with `error`."""
    told.unlink(missing_ok=True)
    began, child = time.monotonic(), os.fork()
    if not child:
        code = 1
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")
            os.dup2(sys.stderr.fileno(), 2)
            run_once(yard, told, dies_in)
            code = 0
        except BaseException:
            told.write_text(json.dumps({"error": traceback.format_exc()}))
        finally:
            os._exit(code)
    done, status = 0, 0
    while not done:
        done, status = os.waitpid(child, os.WNOHANG)
        if not done and after_s is not None and time.monotonic() - began > after_s:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    said = json.loads(told.read_text()) if told.exists() and told.stat().st_size else {}
    return {"ended": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began, **said}


def main(root: Path) -> None:
    sys.path.insert(0, str(root))
    for module in ("duckdb", "sqlglot", "vl_convert", "ratatouille.dagster.code_location", "pipelines.forklift.repo"):
        import_module(module)
    yard = Yard(root, None)
    for line in sys.stdin:
        print(json.dumps(forked(yard, root.parent / "told.json", **json.loads(line))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
