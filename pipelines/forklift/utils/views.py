"""Run-scoped views: artifacts/, models/ and metrics/ beside this pipeline, links into the lake and notes about it.

    artifacts/<run id>/<asset>           a link to the folder of an artifact
    artifacts/<run id>/<asset>.json      of a table: its name, its version, and the command that reads that version
    models/<run id>.skops                the estimator that a run has trained
    metrics/<run id>.json                what it scored

They are for people and may be deleted: nothing reads them. A link whose version has expired leads nowhere.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[1]
OF_MODELS = {"models": ("without_load.skops", ".skops"), "metrics": ("metrics.json", ".json")}


def link_folder(asset: str, folder: Path) -> None:
    """Show an artifact's version, in a folder that is called after its run; of a model its estimator and metrics too."""
    run_id = folder.name
    _link(HOME / "artifacts" / run_id / asset, folder)
    if asset == "trained_model":
        for view, (name, suffix) in OF_MODELS.items():
            _link(HOME / view / f"{run_id}{suffix}", folder / name)


def note_table(asset: str, run_id: str, about: dict[str, Any]) -> Path:
    """Note which version of which table stands for an asset in a run."""
    path = HOME / "artifacts" / run_id / f"{asset}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(about, indent=1, default=str), encoding="utf-8")
    os.replace(aside, path)
    return path


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(target, path.parent.resolve()))
    os.replace(aside, path)
