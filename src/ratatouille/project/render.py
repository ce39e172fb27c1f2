"""Rendering for a run: the template of an asset becomes the one select that builds it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ratatouille.errors import RequestError
from ratatouille.project.graph import find_asset
from ratatouille.project.problems import as_error
from ratatouille.project.records import Asset, Check, Problem, Project, Rendered
from ratatouille.project.text_file import TextFile, decode

if TYPE_CHECKING:
    from ratatouille.project.templates import Bindings


def render(
    project: Project,
    asset_name: str,
    bindings: Bindings,
    *,
    is_select: Callable[[str], bool] = lambda sql: False,
    environment: Mapping[str, str] = os.environ,
) -> Rendered:
    """The SQL of a SQL asset. RequestError when the file changed since it was loaded, or is not one select.

    `is_select` is a quicker parser, if there is one: what it says yes to is not parsed again.
    """
    asset = find_asset(project, asset_name)
    if asset.kind != "sql":
        raise RequestError(
            f"{asset.name} is not a SQL asset: {asset.path}.", where=asset.path, next=f"See: rat show {asset.name}"
        )
    file = _unchanged(project, asset)
    return _rendered(file, project, asset, bindings, is_select, environment)


def render_check_sql(
    project: Project,
    asset_name: str,
    check: Check,
    bindings: Bindings,
    *,
    is_select: Callable[[str], bool] = lambda sql: False,
    environment: Mapping[str, str] = os.environ,
) -> Rendered:
    """The SQL of a custom gate: a select that returns the bad rows."""
    asset = find_asset(project, asset_name)
    file = TextFile(f"{asset.sidecar} (check {check.name})", str(check.arguments["sql"]))
    return _rendered(file, project, asset, bindings, is_select, environment)


def _rendered(
    file: TextFile,
    project: Project,
    asset: Asset,
    bindings: Bindings,
    is_select: Callable[[str], bool],
    environment: Mapping[str, str],
) -> Rendered:
    from ratatouille.project import templates

    workspace = project.workspace
    values = templates.Values(
        workspace.vars,
        workspace.env,
        {name: environment[name] for name in workspace.env if name in environment},
        {**workspace.sources, **{source.name: source for source in asset.sources}},
        workspace.macros,
        workspace.databases,
    )
    try:
        rendered = templates.render_text(file, bindings, values)
    except templates.Refused as refused:
        raise as_error(refused.problem) from None
    if is_select(rendered.text):
        return Rendered(rendered.text)
    from ratatouille.project import sql
    from ratatouille.project.draft import span_in_template

    try:
        return Rendered(sql.parse_query(rendered.text).text)
    except sql.SqlMistake as mistake:
        place = span_in_template(file, rendered, mistake.start, mistake.length)
        raise as_error(place.problem(str(mistake), hint=mistake.hint)) from None


def _unchanged(project: Project, asset: Asset) -> TextFile:
    """The plan was made for these bytes; other ones would be published under the wrong fingerprint."""
    try:
        raw = (Path(project.workspace.root) / asset.path).read_bytes()
    except OSError as error:
        raise RequestError(
            f"{asset.path} cannot be read: {error.strerror}.", where=asset.path, next="Run again: rat run"
        ) from error
    if hashlib.sha256(raw).hexdigest() != asset.file_hash:
        raise RequestError(
            f"{asset.path} changed while the run was going on.", where=asset.path, next="Run again: rat run"
        )
    file = decode(asset.path, raw)
    if isinstance(file, Problem):
        raise as_error(file)
    return file
