"""What the tests of recipes share: a copy of the workspace with this pipeline alone, a Dagster of its own, and damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
from own_modules import modules_of

ROOT = Path(__file__).resolve().parents[2]
CHAIN = ["raw_dataset", "cleaned_dataset", "tokenized_dataset", "train_val_splits", "trained_model"]
DATA = CHAIN[:-1]
STALE_ONLY = {"ratatouille/stale_only": "test"}
TINY = {
    "tokenized_dataset": {"vocabulary": 400, "max_seq_length": 128},
    "trained_model": {"size": "tiny", "epochs": 1, "batch_tokens": 1024},
}


class Larder:
    """The pipeline in a workspace of its own, run in this process."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        from ratatouille.dagster import definitions

        self.root, self.instance = root, instance
        self.definitions = definitions(root)

    def module(self, name: str) -> ModuleType:
        return import_module(f"pipelines.recipes.{name}")

    def receive(self, count: int = 120, seed: int = 1) -> None:
        """So many synthetic recipes as the source."""
        corpus = self.module("corpus")
        corpus.write(self.root / "landing/recipes/corpus.jsonl.gz", corpus.generate(count, seed))

    def run(
        self, *names: str, config: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materialize these assets with their checks; the settings of TINY under those of `config`."""
        names = names or tuple(DATA)
        wish = {name: {**TINY.get(name, {}), **(config or {}).get(name, {})} for name in names}
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            run_config={"ops": {name: {"config": one} for name, one in wish.items() if one}},
            instance=self.instance,
            asset_selection=[dg.AssetKey(name) for name in names],
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def current(self, asset: str) -> Path:
        """The folder of the current version, verified."""
        from ratatouille import workspace

        return workspace(self.root).artifact(f"recipes.{asset}")

    def versions(self) -> dict[str, str]:
        """Asset -> the folder of its current version, of those that have one (by their pointers, so nothing is verified)."""
        pointers = {name: self.home(name) / "current.json" for name in CHAIN}
        return {name: json.loads(path.read_text())["version"] for name, path in pointers.items() if path.exists()}

    def home(self, asset: str) -> Path:
        return self.root / ".rat" / "artifacts" / f"recipes.{asset}"

    def bytes_of(self, asset: str) -> dict[Path, bytes]:
        """Every file of the current version, and what is in it."""
        folder = self.home(asset) / self.versions()[asset]
        return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def statuses(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Asset -> built, skipped or failed; what never began is missing."""
    found = {}
    for event in result.all_events:
        if event.is_step_failure and event.step_key in CHAIN:
            found[event.step_key] = "failed"
        elif event.is_step_materialization and event.step_key in CHAIN:
            said = event.step_materialization_data.materialization.metadata.get("status")
            found[event.step_key] = "skipped" if said is not None and said.value == "skipped" else "built"
    return found


def checks(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, dict[str, Any]]]:
    """Check -> (passed, metadata)."""
    return {
        one.check_name: (one.passed, {name: value.value for name, value in one.metadata.items()})
        for one in result.get_asset_check_evaluations()
    }


@contextmanager
def larder_in(folder: Path, root: Path | None = None) -> Iterator[Larder]:
    """A larder below `folder`, its workspace at `root` if that is said; the modules of this pipeline are the copy's until the end, then what they were before."""
    root = root or folder / "kitchen"
    root.mkdir(parents=True)
    shutil.copy(ROOT / "workspace.yaml", root)
    pipeline = root / "pipelines" / "recipes"
    shutil.copytree(ROOT / "pipelines" / "recipes", pipeline, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pipelines" / "__init__.py").write_text("")
    (folder / "home").mkdir()
    with modules_of(root), dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        yield Larder(root, instance)


@contextmanager
def spoiled(larder: Larder, stage: str, damage: Callable[[Path], None]) -> Iterator[None]:
    """While the block runs, what the stage has written is damaged before it is stored."""
    stages = larder.module("stages")
    whole = getattr(stages, stage)

    def spoil(*arguments: Any, **named: Any) -> Any:
        about = whole(*arguments, **named)
        # raw(source, identity, root, work), cleaned(above, work, result), the others (above, work)
        damage(arguments[{"raw": 3, "cleaned": 2}.get(stage, 1)])
        return about

    setattr(stages, stage, spoil)
    try:
        yield
    finally:
        setattr(stages, stage, whole)
