"""Loading: a folder becomes a Project. Problems are collected, so one look shows all of them.

STAGES = workspace.yaml -> scan -> read bytes -> (cache) -> drafts -> link
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratatouille.errors import RequestError
from ratatouille.project import cache, dbt
from ratatouille.project.find import MACROS, WORKSPACE_FILE, Found, Scan, attach_sidecars, duplicates, scan, wrong_name
from ratatouille.project.problems import as_error
from ratatouille.project.records import Problem, Project, Workspace
from ratatouille.project.vars_files import laid_over, merged, overridden
from ratatouille.project.workspace_file import Settings, expand, read_workspace_file, vars_files

if TYPE_CHECKING:
    from ratatouille.project.draft import Draft
    from ratatouille.project.link import Columns


@dataclass(slots=True)
class _Files:
    """The bytes of every file that matters, their hashes, and what could not be read."""

    contents: dict[str, bytes] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    dbt: dict[str, bytes] = field(default_factory=dict)  # of dbt projects


def load(root: Path, *, environment: Mapping[str, str] = os.environ, use_cache: bool = True) -> Project:
    """The project below `root`. Only a workspace.yaml that cannot be used raises RequestError.

    With `use_cache` unchanged files are not parsed again; the result is the same.
    """
    root = Path(root).absolute()
    cached = cache.read_project(root) if use_cache else cache.CachedProject()
    settings, workspace_key = _settings(root, cached)
    workspace = replace(expand(root, settings, environment), macros=_macros(root))
    workspace, of_files, vars_key = _with_vars_of_files(workspace, settings, environment, cached)
    scanned = scan(root, workspace.name, workspace.layers)
    files = _read_files(root, scanned)
    allowed = {name: environment[name] for name in workspace.env if name in environment}
    said = [workspace.vars, workspace.env, allowed, _plain_sources(workspace), workspace.name]
    more = [dict(workspace.macros), repr(workspace.databases)] if workspace.macros or workspace.databases else []
    values_key = cache.key_of([*said, *more])
    scan_key = [_order(problem) for problem in (*scanned.problems, *files.problems)]
    key = cache.key_of([workspace_key, values_key, files.hashes, scan_key])
    if use_cache and cached.key == key:
        return Project(workspace, cached.assets, cached.problems, cached.natives)

    analysis = _Analysis(files, workspace, allowed, values_key)
    if use_cache:
        analysis.known_drafts, analysis.known_columns = cache.read_analysis(root)
    project = analysis.project(scanned)
    if use_cache:
        found = (dict(project.assets), project.problems, dict(project.natives))
        fresh = cache.CachedProject(workspace_key, settings, key, *found, of_files, vars_key)
        cache.write_project(root, fresh)
        cache.write_analysis(root, analysis.drafts, analysis.columns)
    return project


def ensure_valid(project: Project, about: Collection[str] = ()) -> None:
    """Returns when no file has an error; RequestError with the first of them otherwise.

    With `about` only the files of those assets count, and of what they read.
    """
    errors = list(project.errors)
    if about:
        named = {above for name in about if name in project.assets for above in project.assets[name].depends_on}
        errors = [problem for problem in errors if problem.asset in {*about, *named}]
    if not errors:
        return
    error = as_error(errors[0])
    more = len(errors) - 1
    step = f"{more} more; see rat check" if more else "See: rat check"
    raise RequestError(error.what, where=error.where, next=f"{error.next}\n{step}" if error.next else step)


def _settings(root: Path, cached: cache.CachedProject) -> tuple[Settings, str]:
    try:
        raw = (root / WORKSPACE_FILE).read_bytes()
    except OSError as error:
        step = "Make a workspace: rat init NAME"
        raise RequestError(f"{WORKSPACE_FILE}: {error.strerror}.", where=str(root), next=step) from error
    key = hashlib.sha256(raw).hexdigest()
    if cached.workspace_key == key:
        return cached.settings, key
    return read_workspace_file(root / WORKSPACE_FILE, raw), key


def _with_vars_of_files(
    workspace: Workspace, settings: Settings, environment: Mapping[str, str], cached: cache.CachedProject
) -> tuple[Workspace, dict[str, Any], str]:
    """The workspace with the variables of `vars_files:`; what the files alone say, under which key."""
    said = vars_files(Path(workspace.root), settings, environment)
    if not said:
        return workspace, {}, ""
    key = cache.key_of([[one.name, one.key] for one in said])
    of_files = cached.vars if cached.vars_key == key else {one.name: merged(one) for one in said}
    values = {
        one.name: overridden(one, laid_over(of_files[one.name], workspace.vars.get(one.name, {})), environment)
        for one in said
    }
    return replace(workspace, vars={**workspace.vars, **values}), of_files, key


def _read_files(root: Path, scanned: Scan) -> _Files:
    files = _Files()
    for path in sorted({*(found.path for found in scanned.assets), *scanned.modules, *scanned.sidecars}):
        try:
            raw = (root / path).read_bytes()
        except OSError as error:
            files.problems.append(Problem(f"{path} cannot be read: {error.strerror}", path))
            continue
        files.contents[path] = raw
        files.hashes[path] = hashlib.sha256(raw).hexdigest()
    files.dbt = dict(dbt.project_files(root, scanned.dbt_projects))
    files.hashes |= {path: hashlib.sha256(raw).hexdigest() for path, raw in files.dbt.items()}
    return files


def _macros(root: Path) -> dict[str, str]:
    """path -> text of the files that every template of the workspace may call macros of."""
    folder = root / MACROS
    return {
        f"{MACROS}/{path.name}": path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(folder.glob("*.sql"))
        if path.is_file() and path.resolve().is_relative_to(root.resolve())
    }


def _plain_sources(workspace: Workspace) -> list[str]:
    return [repr(source) for source in workspace.sources.values()]


def _order(problem: Problem) -> tuple[str, int, int, str]:
    return problem.path, problem.line, problem.column, problem.message


@dataclass(slots=True)
class _Analysis:
    """One load that has something to parse."""

    files: _Files
    workspace: Workspace
    allowed: Mapping[str, str]  # the environment variables that templates may read
    values_key: str
    known_drafts: dict[str, Draft] = field(default_factory=dict)  # by path
    known_columns: dict[str, Columns] = field(default_factory=dict)  # by name
    drafts: dict[str, Draft] = field(default_factory=dict)
    columns: dict[str, Columns] = field(default_factory=dict)

    def project(self, scanned: Scan) -> Project:
        from ratatouille.project.link import link
        from ratatouille.project.native import natives
        from ratatouille.project.python_code import odd_modules

        found, problems = _assets(scanned.assets, scanned.sidecars, self.files.contents)
        by_name = {one.name: one for one in found}
        modules = {path: raw for path, raw in self.files.contents.items() if path.endswith(".py")}
        modules_key = cache.key_of({path: self.files.hashes[path] for path in modules})
        for one in found:
            key = self.key(one, modules_key)
            known = self.known_drafts.get(one.path)
            self.drafts[one.name] = known if known and known.key == key else self.draft(one, key, modules)
        assets = {one.path for one in found}
        problems += odd_modules(modules, self.workspace.layers, assets)
        native = {n: one for n, one in natives(modules, self.workspace.layers).items() if n not in self.drafts}
        linked = link(self.drafts, native, self.known_columns, lambda name: self.draft(by_name[name], "", modules))
        self.columns = linked.columns
        problems = [*scanned.problems, *self.files.problems, *problems, *linked.problems, *dbt.refused(self.files.dbt)]
        return Project(self.workspace, linked.assets, tuple(sorted(problems, key=_order)), native)

    def key(self, found: Found, modules_key: str) -> str:
        hashes = self.files.hashes
        code = [hashes[found.path], hashes.get(found.sidecar, ""), modules_key if found.kind == "python" else ""]
        return cache.key_of([found.name, found.path, found.sidecar, found.pipeline, code, self.values_key])

    def draft(self, found: Found, key: str, modules: Mapping[str, bytes]) -> Draft:
        from ratatouille.project.draft import draft_asset
        from ratatouille.project.python_code import imported_hash
        from ratatouille.project.templates import Values

        imported = imported_hash(found.path, found.pipeline, modules) if found.kind == "python" else ""
        workspace = self.workspace
        values = Values(
            workspace.vars,
            workspace.env,
            self.allowed,
            workspace.sources,
            workspace.macros,
            workspace.databases,
        )
        draft = draft_asset(found, self.files.contents, values, imported)
        draft.key = key
        return draft


def _assets(
    candidates: Sequence[Found], sidecars: Sequence[str], contents: Mapping[str, bytes]
) -> tuple[list[Found], list[Problem]]:
    """The files that are assets, each with its sidecar, and what is wrong with their names."""
    from ratatouille.project.python_code import has_build

    built = [f for f in candidates if f.path in contents and (f.kind != "python" or has_build(contents[f.path]))]
    attached, problems = attach_sidecars(built, [path for path in sidecars if path in contents])
    named = []
    for found in built:
        problem = wrong_name(found)
        if problem:
            problems.append(problem)
        else:
            named.append(replace(found, sidecar=attached.get(found.path, "")))
    kept, more = duplicates(named)
    return kept, problems + more
