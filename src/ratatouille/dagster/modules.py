"""Python modules with Dagster definitions: packages below `pipelines/`, files dropped into a workspace's `pipelines/`.

lists     `all_assets`, `all_asset_checks`, `all_jobs`, `all_schedules`, `all_sensors`: what a package exports, and
          `all_resources`, by their keys
broken    a file that cannot be imported; it becomes a placeholder asset that fails with the error, and the rest loads
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ratatouille.dagster.keys import word
from ratatouille.dagster.prefixing import give_way
from ratatouille.errors import StepFailed
from ratatouille.project.find import PIPELINES
from ratatouille.project.records import Project

_LISTS = {
    "all_assets": "assets",
    "all_asset_checks": "checks",
    "all_jobs": "jobs",
    "all_schedules": "schedules",
    "all_sensors": "sensors",
}
PREFIX = "prefix_where_taken"  # what a package says that gives way: prefixing.py
BROKEN = "error"  # metadata of a placeholder: the four lines of what is wrong with its file
_SKIPPED = {"macros", "tests", "__pycache__", "node_modules"}


@dataclass(slots=True)
class Found:
    """What modules define, each object once; and the errors of those that cannot be imported, by path."""

    assets: list[Any] = field(default_factory=list)
    checks: list[Any] = field(default_factory=list)
    jobs: list[Any] = field(default_factory=list)
    schedules: list[Any] = field(default_factory=list)
    sensors: list[dg.SensorDefinition] = field(default_factory=list)
    resources: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, StepFailed] = field(default_factory=dict)

    def add(self, other: Found) -> None:
        for name in _LISTS.values():
            mine = getattr(self, name)
            known = {id(one) for one in mine}
            mine += [one for one in getattr(other, name) if id(one) not in known]
        self.resources |= other.resources
        self.broken |= other.broken


def packages(root: Path) -> Found:
    """`pipelines/__init__.py` and `pipelines/<name>/__init__.py` of the workspace at `root`, which is the project's."""
    found, loaded = Found(), {}
    folder = root / PIPELINES
    names = [f"{PIPELINES}.{path.parent.name}" for path in sorted(folder.glob("*/__init__.py"))]
    names += [PIPELINES] if (folder / "__init__.py").is_file() else []
    importable(root)
    for name in names:
        path = "/".join([*name.split("."), "__init__.py"])
        try:
            module = importlib.import_module(name)
            loaded[name] = (in_module(module), str(getattr(module, PREFIX, "")))
        except Exception as error:
            found.broken[path] = broken_file(root, path, error)
    for name, (one, prefix) in loaded.items():
        if prefix:
            others = [other for known, (other, _) in loaded.items() if known not in (name, PIPELINES)]
            before = {id(each) for each in (*one.assets, *one.checks, *one.jobs)}
            give_way(one.assets, one.checks, one.jobs, prefix, [asset for other in others for asset in other.assets])
            # What the package of all pipelines lists too is the same thing under its old name.
            for listed in (loaded[PIPELINES][0],) if PIPELINES in loaded else ():
                for found_there in (listed.assets, listed.checks, listed.jobs):
                    found_there[:] = [each for each in found_there if id(each) not in before]
    for one, _ in loaded.values():
        found.add(one)
    return found


def dropped_files(root: Path, project: Project) -> Found:
    """Every `.py` below `pipelines/` that imports dagster and is neither a file asset nor part of a package."""
    found = Found()
    assets = {asset.path for asset in project.assets.values()} | {problem.path for problem in project.problems}
    for path in _python_files(root / PIPELINES):
        shown = path.relative_to(root).as_posix()
        if shown in assets or not _imports_dagster(path):
            continue
        try:
            found.add(in_module(_import_file(path, f"_workspace_{word(root.name)}_{word(shown.removesuffix('.py'))}")))
        except Exception as error:
            found.broken[shown] = broken_file(root, shown, error)
    return found


def in_module(module: ModuleType) -> Found:
    """The lists that a module exports; without them its Definitions; without those whatever it defines."""
    found = Found()
    if any(hasattr(module, name) for name in _LISTS):
        for exported, name in _LISTS.items():
            getattr(found, name).extend(getattr(module, exported, ()))
        found.resources |= getattr(module, "all_resources", {})
        return found
    objects = [value for name, value in vars(module).items() if not name.startswith("_")]
    for one in [value for value in objects if isinstance(value, dg.Definitions)] or objects:
        _sort(one, found)
    return found


def _sort(one: Any, found: Found) -> None:
    if isinstance(one, dg.Definitions):
        found.assets += list(one.assets or ())
        found.checks += list(one.asset_checks or ())
        found.jobs += list(one.jobs or ())
        found.schedules += list(one.schedules or ())
        found.sensors += list(one.sensors or ())
        found.resources |= dict(one.resources or {})
    elif isinstance(one, dg.AssetChecksDefinition):
        found.checks.append(one)
    elif isinstance(one, dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset):
        found.assets.append(one)
    elif isinstance(one, dg.JobDefinition | UnresolvedAssetJobDefinition):
        found.jobs.append(one)
    elif isinstance(one, dg.ScheduleDefinition):
        found.schedules.append(one)
    elif isinstance(one, dg.SensorDefinition):
        found.sensors.append(one)


def importable(root: Path) -> None:
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def _python_files(folder: Path) -> Iterator[Path]:
    """Files that stand for themselves: a folder with an `__init__.py` is a package, which its own file speaks for."""
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(("_", ".")) or part in _SKIPPED for part in inside.parts)
        packaged = any((folder.joinpath(*inside.parts[:n]) / "__init__.py").exists() for n in range(len(inside.parts)))
        if not hidden and not packaged:
            yield path


def _imports_dagster(path: Path) -> bool:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (SyntaxError, ValueError, OSError):
        return True  # importing it says what is wrong
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return any(name.split(".")[0] == "dagster" or name.startswith("ratatouille.dagster") for name in names)


def _import_file(path: Path, name: str) -> ModuleType:
    """A module under a name of its own: two workspaces may have files of one name."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    importable(path.parent)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def broken_file(root: Path, path: str, error: Exception) -> StepFailed:
    """What is wrong with a file that cannot be imported, with the line of the workspace that it came from."""
    where = path
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        where = f"{path}:{error.lineno}\n    {(error.text or '').strip()}"
    else:
        ours = [frame for frame in extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
        if ours:
            where = f"{Path(ours[-1].filename).relative_to(root)}:{ours[-1].lineno}\n    {ours[-1].line}"
    return StepFailed(
        f"{path} cannot be imported: {type(error).__name__}: {' '.join(str(error).split())[:500]}",
        where=where,
        state="Its assets are not here; everything else is loaded.",
        next="mend the file, then reload the definitions",
    )


def placeholder(key: dg.AssetKey, error: StepFailed, *, deps: Iterable[dg.AssetKey] = ()) -> dg.AssetsDefinition:
    """An asset that stands where a broken file would: it shows the error and fails with it."""

    @dg.asset(
        key=key,
        deps=list(deps),
        group_name="broken",
        description=f"**This file is broken.**\n\n```\n{error}\n```",
        tags={"broken": ""},
        kinds={"broken"},
        metadata={BROKEN: error.as_record()},
    )
    def broken() -> None:
        raise dg.Failure(description=str(error), allow_retries=False)

    return broken
