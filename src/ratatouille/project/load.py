"""Loading: a folder becomes a Project. Problems are collected, so one look shows all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ratatouille.errors import RequestError
from ratatouille.project.find import WORKSPACE_FILE, Found, attach_sidecars, duplicates, scan, wrong_name
from ratatouille.project.records import Problem, Project, Workspace
from ratatouille.project.workspace_file import as_error, expand, read_workspace_file

if TYPE_CHECKING:
    from ratatouille.project.draft import Draft


def load(root: Path, *, environment: Mapping[str, str] = os.environ, use_cache: bool = True) -> Project:
    """The project below `root`. Only a workspace.yaml that cannot be used raises RequestError."""
    root = Path(root).absolute()
    workspace_bytes = read_file(root, WORKSPACE_FILE)
    settings = read_workspace_file(root / WORKSPACE_FILE, workspace_bytes)
    workspace = expand(root, settings, environment)
    scanned = scan(root, workspace.name, workspace.layers)
    problems = list(scanned.problems)
    paths = {*(f.path for f in scanned.assets), *scanned.modules, *scanned.sidecars}
    files = {}
    for path in sorted(paths):
        try:
            files[path] = read_file(root, path)
        except RequestError as error:
            problems.append(Problem(error.what, path))
    found, more = _assets(scanned.assets, scanned.sidecars, files)
    problems += more
    drafts = _drafts(found, files, workspace, environment)
    from ratatouille.project.link import link

    assets, more = link(drafts)
    problems += more
    return Project(workspace, assets, tuple(sorted(problems, key=_order)))


def ensure_valid(project: Project) -> None:
    """Returns when no file has an error; RequestError with the first of them otherwise."""
    if not project.errors:
        return
    error = as_error(project.errors[0])
    more = len(project.errors) - 1
    step = f"{more} more; see rat check" if more else "See: rat check"
    raise RequestError(error.what, where=error.where, next=f"{error.next}\n{step}" if error.next else step)


def _order(problem: Problem) -> tuple[str, int, int, str]:
    return problem.path, problem.line, problem.column, problem.message


def read_file(root: Path, path: str) -> bytes:
    """The bytes of a file below the root. RequestError when it cannot be read."""
    try:
        return (root / path).read_bytes()
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.", where=str(root / path)) from error


def _assets(
    candidates: Sequence[Found], sidecars: Sequence[str], files: Mapping[str, bytes]
) -> tuple[list[Found], list[Problem]]:
    from ratatouille.project.python_code import has_build

    built = [f for f in candidates if f.path in files and (f.kind != "python" or has_build(files[f.path]))]
    attached, problems = attach_sidecars(built, [path for path in sidecars if path in files])
    named = []
    for found in built:
        problem = wrong_name(found)
        if problem:
            problems.append(replace(problem, asset=found.name))
        else:
            named.append(replace(found, sidecar=attached.get(found.path, "")))
    kept, more = duplicates(named)
    return kept, problems + more


def _drafts(
    found: Sequence[Found], files: Mapping[str, bytes], workspace: Workspace, environment: Mapping[str, str]
) -> dict[str, Draft]:
    from ratatouille.project.draft import draft_asset
    from ratatouille.project.python_code import imported_hash
    from ratatouille.project.templates import Values

    allowed = {name: environment[name] for name in workspace.env if name in environment}
    values = Values(workspace.vars, workspace.env, allowed, workspace.sources)
    modules = {path: raw for path, raw in files.items() if path.endswith(".py")}
    drafts = {}
    for one in found:
        imported = imported_hash(one.path, one.pipeline, modules) if one.kind == "python" else ""
        drafts[one.name] = draft_asset(one, files, values, imported)
    return drafts
