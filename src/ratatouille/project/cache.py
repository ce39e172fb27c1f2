"""The project cache: what the last load found, so that a load of unchanged files needs no parser.

.rat/cache/project.json    the finished project, under one key for everything it comes from
.rat/cache/analysis.json   drafts and columns of each asset, under keys of their own; read when something changed
.rat/cache/state.json      what the engine last knew of the lake

Values of environment variables are in the keys as hashes only. All of it can be deleted at any time, a damaged
file is ignored, and a folder that cannot be written only makes the next load slower.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ratatouille.project.records import Asset, Check, Column, Native, OrderTerm, Problem, Retries, Source
from ratatouille.project.text_file import Mention, Place

FOLDER = ".rat/cache"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(slots=True)
class CachedProject:
    workspace_key: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    assets: dict[str, Asset] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    natives: dict[str, Native] = field(default_factory=dict)
    vars: dict[str, Any] = field(default_factory=dict)  # of files, under vars_key; never a value of the environment
    vars_key: str = ""


@lru_cache(maxsize=1)
def product_key() -> str:
    """Changes with this package's code and with Python: what another one has analysed is not ours."""
    here = Path(__file__).parent
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(here.glob("*.py"))]
    return key_of([stats, sys.version_info[:2]])


def key_of(facts: object) -> str:
    """A hash of JSON-safe facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def read_project(root: Path) -> CachedProject:
    """What the last load wrote; an empty record when there is nothing to use."""
    try:
        found = read_facts(root, "project.json")
        assets = {raw["name"]: _asset(raw) for raw in found["assets"]}
        problems = tuple(Problem(**raw) for raw in found["problems"])
        natives = {raw["name"]: Native(**raw) for raw in found["natives"]}
        settings = dict(found["settings"])
        of_files = dict(found["vars"]), str(found["vars_key"])
        return CachedProject(
            str(found["workspace_key"]), settings, str(found["key"]), assets, problems, natives, *of_files
        )
    except UNREADABLE:
        return CachedProject()


def write_project(root: Path, project: CachedProject) -> None:
    assets = list(project.assets.values())
    facts = {"workspace_key": project.workspace_key, "settings": project.settings, "key": project.key}
    facts |= {"vars": project.vars, "vars_key": project.vars_key}
    found = {"assets": assets, "problems": project.problems, "natives": list(project.natives.values())}
    write_facts(root, "project.json", {**facts, **found})


def read_analysis(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(drafts by path, columns by asset) as the last load left them."""
    from ratatouille.project.draft import Draft
    from ratatouille.project.link import Columns

    try:
        found = read_facts(root, "analysis.json")
        drafts = {}
        for raw in found["drafts"]:
            problems = tuple(Problem(**problem) for problem in raw["problems"])
            mentions = tuple(_mention(mention) for mention in raw["mentions"])
            draft = Draft(_asset(raw["asset"]), mentions, problems, str(raw["key"]))
            drafts[draft.asset.path] = draft
        columns = {name: Columns(**_columns(raw)) for name, raw in found["columns"].items()}
        return drafts, columns
    except UNREADABLE:
        return {}, {}


def write_analysis(root: Path, drafts: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    shown = [
        {"key": draft.key, "asset": draft.asset, "mentions": draft.mentions, "problems": draft.problems}
        for draft in drafts.values()
    ]
    write_facts(root, "analysis.json", {"drafts": shown, "columns": dict(columns)})


def read_facts(root: Path, name: str) -> dict[str, Any]:
    """What `write_facts` wrote under this name. Raises one of UNREADABLE if there is nothing to use."""
    found = json.loads((root / FOLDER / name).read_bytes())
    if found["product"] != product_key():
        raise ValueError("written by another version")
    return dict(found)


def write_facts(root: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Keep JSON-safe facts and records, all at once or not at all."""
    folder = root / FOLDER
    try:
        text = json.dumps({"product": product_key(), **facts}, default=_plain)
        for path in (folder.parent, folder):
            path.mkdir(mode=0o700, exist_ok=True)
        # mkstemp gives mode 0600; the rename shows a whole file or the old one.
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    except (OSError, TypeError, ValueError):
        return
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, folder / name)
    except OSError:
        Path(temporary).unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """A record as a mapping without the fields that hold their default."""
    if not is_dataclass(value):
        raise TypeError(f"{type(value).__name__} does not belong into the cache")
    plain = {}
    for one in fields(value):
        found = getattr(value, one.name)
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        if (one.default is MISSING and one.default_factory is MISSING) or found != default:
            plain[one.name] = found
    return plain


# --- back to records ------------------------------------------------------------------------------------------------

_TUPLES = (
    "unique_key",
    "partition_by",
    "sort_by",
    "tables",
    "owners",
    "tags",
    "triggers",
    "depends_on",
    "volatile",
    "outputs",
)


def _asset(raw: dict[str, Any]) -> Asset:
    values = dict(raw)
    for name in _TUPLES:
        if name in values:
            values[name] = tuple(values[name])
    if "columns" in values:
        values["columns"] = tuple(Column(**column) for column in values["columns"])
    if "checks" in values:
        values["checks"] = tuple(_check(check) for check in values["checks"])
    if "order" in values:
        values["order"] = tuple(OrderTerm(term["sql"], tuple(term["columns"])) for term in values["order"])
    if "retries" in values:
        values["retries"] = Retries(**values["retries"])
    if "sources" in values:
        values["sources"] = tuple(_source(source) for source in values["sources"])
    if "lineage" in values:
        values["lineage"] = _lineage(values["lineage"])
    return Asset(**values)


def _check(raw: dict[str, Any]) -> Check:
    return Check(**{**raw, "columns": tuple(raw.get("columns", ()))})


def _source(raw: dict[str, Any]) -> Source:
    values = {**raw, "columns": tuple((name, type) for name, type in raw.get("columns", ()))}
    for name in ("nulls", "optional"):
        if name in raw:
            values[name] = tuple(raw[name])
    if "aliases" in raw:
        values["aliases"] = tuple((name, tuple(also)) for name, also in raw["aliases"])
    return Source(**values)


def _lineage(raw: Mapping[str, Any]) -> dict[str, tuple[tuple[str, str], ...]]:
    return {name: tuple((asset, column) for asset, column in origins) for name, origins in raw.items()}


def _mention(raw: dict[str, Any]) -> Mention:
    return Mention(raw["kind"], raw["name"], Place(**raw["place"]))


def _columns(raw: dict[str, Any]) -> dict[str, Any]:
    values = {**raw, "names": tuple(raw.get("names", ())), "lineage": _lineage(raw.get("lineage", {}))}
    values["tables"] = tuple(_mention(mention) for mention in raw.get("tables", ()))
    values["problems"] = tuple(Problem(**problem) for problem in raw.get("problems", ()))
    return values
