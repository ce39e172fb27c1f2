"""A copy of a dbt project's files as they are now, in a folder named by what is in it.

What a run builds cannot change under it, and what dbt has parsed once is not parsed again. The copies lie below
`.rat/cache/dbt/` and may be deleted. Our macros are put among the project's own, where they stand before dbt's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from ratatouille.dbt_project import process
from ratatouille.errors import RequestError
from ratatouille.project.cache import FOLDER
from ratatouille.project.find import DBT_PROJECT
from ratatouille.project.records import Workspace

MACROS = Path(__file__).parent.parent / "lake" / "dbt_macros"
_READ = (".sql", ".yml", ".yaml", ".csv", ".md", ".py", ".dbtignore")  # what dbt reads; data of others may lie beside
_SKIPPED = {"target", "logs"}
_KEPT_COPIES = 16
_KEPT_S = 86_400.0  # a run may still read one that is older than the newest copies


@dataclass(frozen=True, slots=True)
class Asked:
    """Which part of which project: `select` and `exclude` as dbt knows them, `schema` that of the target."""

    project: Path
    select: str = ""
    exclude: str = ""
    vars: Mapping[str, Any] = field(default_factory=dict)
    schema: str = "default"

    @property
    def label(self) -> str:
        return self.select or self.project.name


@dataclass(frozen=True)
class Copy:
    """A copy of a project's files, and what dbt found in them."""

    folder: Path
    files: Mapping[str, str]  # path -> sha256

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def parsed(self) -> Path:
        return self.folder / "partial_parse.msgpack"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "manifest.json").read_text()))


def copied(workspace: Workspace, asked: Asked) -> Copy:
    """The project as it is now, in a folder that is named by what is in it."""
    top = asked.project
    if not (top / DBT_PROJECT).is_file():
        raise RequestError(
            f"there is no {DBT_PROJECT} in {top}",
            where=str(top),
            state="Nothing was built.",
            next="name the folder of the dbt project: project_dir=...",
        )
    contents = {path: (top / path).read_bytes() for path in sorted(_files(top, ""))}
    files = {path: hashlib.sha256(raw).hexdigest() for path, raw in contents.items()}
    everything = b"\n".join(contents.values())
    used = {name: os.environ[name] for name in workspace.env if name in os.environ and name.encode() in everything}
    said = [str(top), files, dict(asked.vars), asked.schema, hash_of(sorted(used.items())), _versions(), _ours()]
    copy = Copy(Path(workspace.root) / FOLDER / "dbt" / hash_of(*said)[:24], files)
    if (copy.folder / "profiles.yml").exists():
        os.utime(copy.folder)
        return copy
    aside = copy.folder.with_name(f"{copy.folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    for path, raw in contents.items():
        target = aside / "project" / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.write_bytes(raw)
    _put_our_macros(aside / "project", contents[DBT_PROJECT])
    (aside / "profiles.yml").write_text(process.profile(asked.schema))
    try:
        os.rename(aside, copy.folder)
    except OSError:  # somebody else was faster
        shutil.rmtree(aside, ignore_errors=True)
    _forget_old(copy.folder.parent)
    return copy


def _files(top: Path, below: str) -> Iterator[str]:
    with os.scandir(top / below) as found:
        entries = list(found)
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        hidden = entry.name.startswith(".") and entry.name != ".dbtignore"
        if hidden or path in _SKIPPED or entry.name in ("profiles.yml", "__pycache__", "node_modules", "venv"):
            continue
        if entry.is_dir():
            if entry.is_symlink():
                raise RequestError(
                    f"{path} is a link to a folder, and those are not read",
                    where=str(top / path),
                    state="Nothing was built.",
                    next="put the folder itself into the dbt project",
                )
            yield from _files(top, path)
        elif entry.is_file() and entry.name.endswith(_READ):
            yield path


def _put_our_macros(project: Path, raw: bytes) -> None:
    """Our macros become the project's own: those of packages may not replace a materialization."""
    said = yaml.safe_load(raw) or {}
    folder = "ratatouille_macros"
    shutil.copytree(MACROS, project / folder)
    said["macro-paths"] = [*(said.get("macro-paths") or ["macros"]), folder]
    said["flags"] = {**(said.get("flags") or {}), "send_anonymous_usage_stats": False}
    (project / DBT_PROJECT).write_text(yaml.safe_dump(said, sort_keys=False))


def _forget_old(folder: Path) -> None:
    known = sorted((path.stat().st_mtime, path) for path in folder.iterdir() if path.is_dir())
    for used_at, path in known[:-_KEPT_COPIES]:
        if time.time() - used_at > _KEPT_S:
            shutil.rmtree(path, ignore_errors=True)


def _versions() -> list[str]:
    try:
        return [version("dbt-core"), version("dbt-duckdb")]
    except PackageNotFoundError as error:
        raise RequestError(
            "dbt is not installed",
            where=f"Python package {error.name}",
            state="Nothing was built.",
            next="pip install 'ratatouille-lakehouse[dbt]'",
        ) from None


def _ours() -> str:
    """What a newer version of this package may do otherwise with the same files."""
    said = [*sorted(MACROS.glob("*.sql")), Path(__file__), Path(__file__).with_name("project.py")]
    return hash_of(*(path.read_text() for path in said))


def hash_of(*said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def write_aside(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.write_text(text)
    os.replace(aside, path)
