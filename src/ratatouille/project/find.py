"""Where the files are: the workspace's root, and the files below `pipelines/` that may be assets.

A file is an asset when it lies directly in a folder named like a declared layer; its path is its name:
`pipelines/sales/silver/sales.sql` is `silver.sales`. This module looks at paths only; whether a `.py`
file has a `build` is decided by whoever reads it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ratatouille.errors import RequestError, near_miss
from ratatouille.project.records import SEED_FORMATS, Problem

WORKSPACE_FILE = "workspace.yaml"
PIPELINES = "pipelines"
MACROS = "macros"
DBT_PROJECT = "dbt_project.yml"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SKIPPED_FOLDERS = {"macros", "tests", "__pycache__", "node_modules"}
_KINDS = {".sql": "sql", ".py": "python", **{f".{extension}": "seed" for extension in SEED_FORMATS}}
_SIDECARS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is an asset by its place. Paths are relative to the root, with forward slashes."""

    name: str
    layer: str
    table: str
    kind: str
    path: str
    pipeline: str
    sidecar: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    assets: tuple[Found, ...]
    modules: tuple[str, ...]  # every .py file: what an asset may import
    sidecars: tuple[str, ...]  # YAML files in layer folders
    problems: tuple[Problem, ...]
    dbt_projects: tuple[str, ...] = ()  # folders with a dbt_project.yml


def find_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds workspace.yaml. RequestError if there is none."""
    start = Path(start).absolute()
    for folder in (start, *start.parents):
        if (folder / WORKSPACE_FILE).is_file():
            return folder
    below = sorted(child.parent.name for child in _glob_safely(start))
    step = f"Go there: cd {below[0]}" if below else "Make a workspace here: rat init NAME"
    raise RequestError(
        "This folder is not in a workspace.",
        where=f"No {WORKSPACE_FILE} in {start} or in any folder above it.",
        next=step,
    )


def _glob_safely(start: Path) -> list[Path]:
    try:
        return [child for child in start.glob(f"*/{WORKSPACE_FILE}") if child.is_file()]
    except OSError:
        return []


def scan(root: Path, workspace: str, layers: Sequence[str]) -> Scan:
    """Every file below `pipelines/` that may be an asset, a module or a sidecar, in the order of their paths."""
    problems: list[Problem] = []
    assets: list[Found] = []
    modules: list[str] = []
    sidecars: list[str] = []
    dbt_projects: list[str] = []
    linked = (root / PIPELINES).is_symlink() and not _usable_link(root, PIPELINES, problems)
    for path in sorted(_walk(root, PIPELINES, problems)) if not linked else ():
        parts = PurePosixPath(path)
        if parts.name == DBT_PROJECT:
            dbt_projects.append(str(parts.parent))
            continue
        suffix = parts.suffix.lower()
        hidden = any(part.startswith("_") for part in parts.parts)
        if suffix == ".py":
            modules.append(path)
        if hidden or (suffix not in _KINDS and suffix not in _SIDECARS):
            continue
        if parts.parent.name not in layers or len(parts.parts) < 3:
            problems.extend(_misplaced(parts, layers))
        elif suffix in _SIDECARS:
            sidecars.append(path)
        else:
            assets.append(_found(parts, _KINDS[suffix], workspace))
    return Scan(tuple(assets), tuple(modules), tuple(sidecars), tuple(problems), tuple(dbt_projects))


def _found(path: PurePosixPath, kind: str, workspace: str) -> Found:
    layer, table = path.parent.name, path.stem
    pipeline = path.parts[1] if len(path.parts) > 3 else workspace
    return Found(f"{layer}.{table}", layer, table, kind, str(path), pipeline)


def _misplaced(path: PurePosixPath, layers: Sequence[str]) -> Iterator[Problem]:
    if path.suffix.lower() != ".sql":
        return
    above = next((part for part in path.parts[1:-1] if part in layers), "")
    if above:
        message = f"{path} lies too deep: an asset lies directly in its layer's folder"
        yield Problem(message, str(path), hint=f"move it to a folder called '{above}'")
        return
    near = near_miss(path.parent.name, layers)
    yield Problem(
        f"{path} is not in a layer's folder, so it builds nothing",
        str(path),
        hint=f"the layers are {', '.join(layers)}.{near}",
        severity="warn",
    )


def _walk(root: Path, folder: str, problems: list[Problem]) -> Iterator[str]:
    try:
        with os.scandir(root / folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(Problem(f"{folder} cannot be read: {error.strerror}", folder))
        return
    if any(entry.name == DBT_PROJECT for entry in found):
        yield f"{folder}/{DBT_PROJECT}"  # and nothing else: what lies in here is dbt's
        return
    for entry in found:
        path = f"{folder}/{entry.name}"
        if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS:
            continue
        if entry.is_symlink() and not _usable_link(root, path, problems):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path, problems)
        elif entry.is_file():
            yield path


def _usable_link(root: Path, path: str, problems: list[Problem]) -> bool:
    shown = _printable(path)
    try:
        target = (root / path).resolve()
        inside = target.is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links in a circle
        inside = False
    if not inside:
        problems.append(Problem(f"{shown} is a link that leads out of the workspace", shown))
    elif target.is_dir():
        problems.append(Problem(f"{shown} is a link to a folder, and those are not read", shown, severity="warn"))
        return False
    return inside


def wrong_name(found: Found) -> Problem | None:
    """The problem with an asset's name, if there is one: it must be usable in SQL without quotes."""
    table, path = found.table, _printable(found.path)
    if NAME.fullmatch(table):
        return None
    suffix = PurePosixPath(found.path).suffix
    suggestion = re.sub(r"[^A-Za-z0-9_]+", "_", table).strip("_")[:120] or "table"
    suggestion = f"t_{suggestion}" if suggestion[0].isdigit() else suggestion
    message = f"'{_printable(table)}' cannot be the name of a table: use letters, digits and _"
    return Problem(message, path, hint=f"rename the file to {suggestion}{suffix}", asset=_printable(found.name))


def attach_sidecars(assets: Sequence[Found], sidecars: Sequence[str]) -> tuple[dict[str, str], list[Problem]]:
    """Asset path -> sidecar path, and what is wrong with the sidecars that are left."""
    by_stem: dict[str, Found] = {}
    for found in assets:
        by_stem.setdefault(str(PurePosixPath(found.path).with_suffix("")), found)
    attached: dict[str, str] = {}
    problems: list[Problem] = []
    for sidecar in sidecars:
        path = PurePosixPath(sidecar)
        owner = by_stem.get(str(path.with_suffix("")))
        if owner is None:
            siblings = [other.table for other in assets if PurePosixPath(other.path).parent == path.parent]
            message = f"{_printable(sidecar)} belongs to no asset: there is no '{_printable(path.stem)}' beside it"
            problems.append(Problem(message, _printable(sidecar), hint=near_miss(path.stem, siblings).strip()))
        elif owner.path in attached:
            message = f"{owner.name} has two sidecars: {attached[owner.path]} and {sidecar}"
            problems.append(Problem(message, sidecar, hint="keep one of them", asset=owner.name))
        else:
            attached[owner.path] = sidecar
    return attached, problems


def duplicates(assets: Sequence[Found]) -> tuple[list[Found], list[Problem]]:
    """The first file of every name, and a problem for each further one. Case does not tell names apart."""
    first: dict[str, Found] = {}
    problems: list[Problem] = []
    for found in assets:
        other = first.setdefault(found.name.lower(), found)
        if other is not found:
            message = f"two files build {other.name}: {other.path} and {found.path}"
            problems.append(Problem(message, found.path, hint="rename one of them", asset=other.name))
    return list(first.values()), problems


def _printable(path: str) -> str:
    return path.encode("utf-8", "replace").decode("utf-8")
