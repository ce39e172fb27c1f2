"""Which commit and which rows made a model, and which models there are.

    python -m pipelines.forklift.lineage                the model in production
    python -m pipelines.forklift.lineage 894bfc2b       the model of a run (its id, or the beginning of it)
    python -m pipelines.forklift.lineage --list         every model with its stage

The rows are read again, at the version that was trained on, and compared with the hash that training has noted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ratatouille import RatError, workspace
from ratatouille.handle import Workspace

from . import registry
from .models import MADE_FROM, METRICS, MODEL, WITHOUT, ModelError, read_json, rows_sha256, sha256

MODELS, SERVED = "forklift.trained_model", "forklift.production_model"
KEYS = ("machine", "window_start")


def models(here: Workspace) -> list[dict[str, Any]]:
    """Every model of the lake with its stage, newest first: version, run_id, published_at, stage, served_as."""
    trained = [one for one in _history(here, MODELS) if one["action"] == "build"]
    made_by = {one["version"]: one["run_id"] for one in trained}
    # A model may be promoted by a later run than the one that trained it.
    served = [
        {**one, "model_run": made_by.get(one["inputs"].get(MODELS), one["run_id"])} for one in _history(here, SERVED)
    ]
    by_version = {one["version"]: one["model_run"] for one in served}
    # A rollback serves the model of the version that it brought back.
    for one in served:
        if one["action"] == "rollback":
            one["model_run"] = by_version.get(one["restored_version"], one["model_run"])
    kept = ("version", "run_id", "published_at")
    return registry.stages([{name: one[name] for name in kept} for one in trained], served)


def _history(here: Workspace, name: str) -> list[dict[str, Any]]:
    try:
        return here.history(name, 1_000_000)
    except RatError:
        return []


def lineage(here: Workspace, run: str = "") -> dict[str, Any]:
    """What made a model: its files and hashes, the table's version, its rows, their commits. ModelError: there is none."""
    listed = models(here)
    found = [one for one in listed if one["run_id"].startswith(run)] if run else listed
    found = found if run else [one for one in listed if one["stage"] == registry.PRODUCTION]
    if len({one["run_id"] for one in found}) != 1:
        known = ", ".join(one["run_id"][:8] for one in listed[:5]) or "none"
        what = f"{len(found)} models are called {run}" if run else "no model is in production"
        raise ModelError(f"{what}; there are {known}", "python -m pipelines.forklift.lineage --list")
    model = found[0]
    folder = _folder(here, model)
    made, said = read_json(folder / MADE_FROM), read_json(folder / MODEL)["models"][WITHOUT]
    whole = sha256(folder / said["file"]) == said["sha256"]
    about = {**model, "folder": str(folder), "sha256": said["sha256"], "file_is_whole": whole, "kind": said["kind"]}
    about |= {"made_from": made, "rows": _read_again(here, made)}
    return about | {"scores": read_json(folder / METRICS)["scores"][WITHOUT]}


def _folder(here: Workspace, model: dict[str, Any]) -> Path:
    """The folder of a version, by the current ones first: only those are sure to be on this machine."""
    for name in (MODELS, SERVED):
        try:
            folder = here.artifact(name)
        except RatError:
            continue
        if read_json(folder / MODEL)["run_id"] == model["run_id"]:
            return folder
        beside = folder.with_name(model["run_id"])
        if (beside / MODEL).exists():
            return beside
    raise ModelError(
        f"the files of the model of run {model['run_id'][:8]} are not here any more",
        "rat history forklift.trained_model",
    )


def _read_again(here: Workspace, made: dict[str, Any]) -> dict[str, Any]:
    """Whether the rows that were trained on can still be read, and are the same."""
    sql = f"select * from {made['table']}"  # noqa: S608 - our own table
    command = f'rat query --at {made["version"]} "{sql}"'
    try:
        rows = here.query(sql, at=made["version"])
    except RatError as error:
        return {"there": False, "same": False, "why": error.what, "command": command}
    return {"there": True, "same": rows_sha256(rows, KEYS) == made["rows_sha256"], "command": command}


def told(about: dict[str, Any]) -> str:
    """A lineage for a person."""
    made, rows = about["made_from"], about["rows"]
    state = (
        "are there, and are the same" if rows["same"] else "are there and DIFFER" if rows["there"] else "have expired"
    )
    lines = [
        f"model      {about['run_id']}, {about['stage']}, {about['kind']}, published {about['published_at']}",
        f"file       sha256 {about['sha256']}{'' if about['file_is_whole'] else ', and the file is DAMAGED'}",
        f"rows       {made['rows']:,} of {made['table']} version {made['version']} (run {made['run_id']}); they {state}",
        f"           {rows['command']}",
    ]
    for one in made["commits"]:
        of = ", ".join(one["machines"][:6]) + (" ..." if len(one["machines"]) > 6 else "")
        lines.append(f"commit     {one['commit_id']}: {one['windows']:,} windows, {one['from']} to {one['to']}, {of}")
    lines.append(
        "telemetry  select * from bronze.forklift_telemetry where commit_id = '...' and machine = '...': each window is"
        " its machine's rows from window_start to target_at"
    )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="", help="the run that trained it (default: the model in production)")
    parser.add_argument("--list", action="store_true", help="every model with its stage")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    try:
        if asked.list:
            listed = models(workspace())
            rows = [f"{one['stage']:<10} {one['run_id']}  {one['published_at']}" for one in listed]
            print(
                json.dumps(listed, indent=1, default=str) if asked.json else "\n".join(rows) or "No model was trained."
            )
            return 0
        about = lineage(workspace(), asked.run)
        print(json.dumps(about, indent=1, default=str) if asked.json else told(about))
    except (ModelError, RatError) as error:
        cure = getattr(error, "cure", "") or getattr(error, "next", "") or "rat runs"
        print(f"{error}\nNext: {cure}" if isinstance(error, ModelError) else str(error), file=sys.stderr)
        return 2
    return 0 if about["file_is_whole"] and (about["rows"]["same"] or not about["rows"]["there"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
