"""Exporting: the rows of a version as files or tables that other programs read. Streamed, and whole or not there.

An export is written under a hidden name beside its target and renamed when it is complete. A Delta table that is there
already is overwritten by a transaction of its own log.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ratatouille import project as files
from ratatouille.engine.workbench import journal_path, storage_of
from ratatouille.errors import LakeError, RatError, RequestError
from ratatouille.lake import Session, Storage, damaged_tables, ledger, open_journal, open_lake, standing
from ratatouille.lake.care import upkeep
from ratatouille.lake.catalogs.lock import looking_back
from ratatouille.lake.faults import explain, plainly
from ratatouille.lake.places.durable import fsync_path
from ratatouille.lake.quoting import ident, table, text
from ratatouille.lake.types import retyped
from ratatouille.project.records import Project

FORMATS = ("parquet", "csv", "delta", "iceberg")
_NEEDS = {"delta": "deltalake", "iceberg": "pyiceberg"}
_BATCH_ROWS = 100_000
# Types that the open table formats have not; the nearest that loses nothing.
_PLAIN = (
    (re.compile(r"\bUBIGINT\b"), "DECIMAL(20,0)"),
    (re.compile(r"\bUINTEGER\b"), "BIGINT"),
    (re.compile(r"\b(UTINYINT|USMALLINT|TINYINT|SMALLINT)\b"), "INTEGER"),
    (re.compile(r"\bTIMESTAMP_(S|MS|NS)\b"), "TIMESTAMP"),
    (re.compile(r"(?<!WITH )\b(UUID|INTERVAL|JSON|TIME)\b(?! WITH)"), "VARCHAR"),
)


@dataclass(frozen=True, slots=True)
class Exported:
    """One asset as it was written. `bytes` on the disk."""

    asset: str
    version: int
    path: str
    format: str
    rows: int
    bytes: int


def export(
    project: Project,
    selectors: Sequence[str],
    to: Path,
    format: str = "parquet",
    *,
    version: int | None = None,
    overwrite: bool = False,
    listener: Callable[[Exported], None] = lambda done: None,
) -> list[Exported]:
    """Write the rows of each selected asset below the folder `to`, all as of one version of the lake.

    RequestError for what cannot be read, a format whose package is missing, and a target that is there already.
    """
    _refuse_format(format)
    workspace = project.workspace
    storage = storage_of(workspace)
    to = to.expanduser().absolute()
    _refuse_place(to, storage)
    with (
        looking_back(storage.catalog),
        open_lake(storage) as lake,
        open_journal(journal_path(workspace), create=False) as journal,
        lake.pinned("exporting") as session,
    ):
        chosen = _chosen(session, project, selectors, version)
        targets = _targets(project, chosen, to, format)
        for target in targets.values():
            if target.exists() and not overwrite:
                raise RequestError(f"{target} is there already", where=str(target), next="rat export ... --overwrite")
        if version is None:
            damaged = damaged_tables(session, journal, storage, chosen, workspace.verify_every_s)
            for name, why in damaged.items():
                raise LakeError(f"{name} was not exported: a file is damaged", where=why, next=f"rat verify {name}")
        with plainly("making the folder of the export"):
            for target in targets.values():
                target.parent.mkdir(parents=True, exist_ok=True)
        done = []
        for name, target in targets.items():
            done.append(_write(session, name, target, format, version))
            listener(done[-1])
    return done


def _targets(project: Project, chosen: Sequence[str], to: Path, format: str) -> dict[str, Path]:
    """Where each asset goes. RequestError where two would be one file."""
    ending = f".{format}" if format in ("parquet", "csv") else ""
    said = {name: project.assets[name].export_as if name in project.assets else "" for name in chosen}
    targets = {name: to / f"{said[name] or name}{ending}" for name in chosen}
    owner: dict[Path, str] = {}
    for name, target in targets.items():
        other = owner.setdefault(target, name)
        if other != name:
            raise RequestError(
                f"{other} and {name} would both be {target}",
                where=f"{project.assets[name].sidecar}, export_as",
                next="give each a path of its own",
            )
    return targets


def _refuse_format(format: str) -> None:
    if format not in FORMATS:
        raise RequestError(f"'{format}' is no format", where="--format", next=f"one of {', '.join(FORMATS)}")
    needed = _NEEDS.get(format)
    if needed and find_spec(needed) is None:
        raise RequestError(
            f"writing {format} needs the Python package {needed}",
            where=f"Python package {needed}",
            next="pip install 'ratatouille-lakehouse[export]'",
        )


def _refuse_place(to: Path, storage: Storage) -> None:
    resolved = to.resolve()
    if resolved.is_relative_to(storage.home.resolve()) or resolved.is_relative_to(storage.staging.resolve()):
        raise RequestError(
            "an export does not go into the lake's own folder", where=str(to), next="--to ANOTHER_FOLDER"
        )


def _chosen(session: Session, project: Project, selectors: Sequence[str], version: int | None) -> list[str]:
    """The assets that are meant, each with rows to export; tables that no file builds too, by their names."""
    kinds, heads = standing(session), ledger.heads(session)
    found: dict[str, None] = {}
    for said in selectors:
        name = said.strip().replace("/", ".")
        found |= dict.fromkeys(
            [name] if name in kinds and name not in project.assets else files.select(project, [said])
        )
    names = [name for name in found if name in kinds]
    if not names or (len(selectors) == 1 and len(names) < len(found) == 1):
        raise RequestError(
            f"{next(iter(found), 'nothing')} was never built, so there are no rows",
            where=" ".join(selectors),
            next="rat run",
        )
    if version is not None:
        if len(names) > 1:
            raise RequestError("a version is one asset's", where=" ".join(names), next="name one asset")
        known = {entry.version for entry in ledger.entries(session, names[0])}
        if version not in known or version not in upkeep.versions(session):
            said = "is not kept any more" if version in known else "was never published"
            raise RequestError(
                f"version {version} of {names[0]} {said}", where="--version", next=f"rat history {names[0]}"
            )
    missing = [name for name in names if name not in heads]
    if missing:
        raise RequestError(f"{missing[0]} was never published", where=missing[0], next="rat history")
    return names


def _write(session: Session, name: str, target: Path, format: str, version: int | None) -> Exported:
    at = f" at (version => {version})" if version is not None else ""
    relation = f"{table(name)}{at}"
    rows = int(session.value(f"select count(*) from {relation}"))
    written = version if version is not None else ledger.heads(session, [name])[name].version
    try:
        if format in ("parquet", "csv"):
            _copy(session, relation, target, format)
        elif format == "delta" and (target / "_delta_log").is_dir():
            _delta(session, relation, target, overwrite=True)
        else:
            with _aside(target) as folder:
                if format == "delta":
                    _delta(session, relation, folder)
                else:
                    from ratatouille.upkeep.iceberg import write_iceberg

                    write_iceberg(_stream(session, relation), name, folder, target)
    except (OSError, ValueError) as error:
        raise explain(error, f"exporting {name}") from error
    except RatError:
        raise
    except Exception as error:  # of the packages that write the open formats
        raise LakeError(
            f"{name} cannot be written as {format}: {' '.join(str(error).split())[:300]}",
            where=str(target),
            next="rat export ... --format parquet",
        ) from error
    size = sum(path.stat().st_size for path in ([target] if target.is_file() else target.rglob("*")) if path.is_file())
    return Exported(name, written, str(target), format, rows, size)


def _copy(session: Session, relation: str, target: Path, format: str) -> None:
    beside = _hidden(target)
    options = "format csv, header true" if format == "csv" else "format parquet, compression zstd"
    try:
        session.execute(f"copy (select * from {relation}) to {text(str(beside))} ({options})")
        fsync_path(beside)
        os.replace(beside, target)
        fsync_path(target.parent)
    finally:
        beside.unlink(missing_ok=True)


def _delta(session: Session, relation: str, target: Path, *, overwrite: bool = False) -> None:
    from deltalake import write_deltalake

    mode: Any = {"mode": "overwrite", "schema_mode": "overwrite"} if overwrite else {"mode": "error"}
    write_deltalake(str(target), _stream(session, relation), **mode)


def _stream(session: Session, relation: str) -> Any:
    """The rows as a pyarrow.RecordBatchReader, in types that the open table formats have."""
    columns = session.describe(f"select * from {relation}")
    listed = ", ".join(
        ident(name) if (plain := plain_type(kind)) == kind else f"cast({ident(name)} as {plain}) as {ident(name)}"
        for name, kind in columns
    )
    return session.execute(f"select {listed} from {relation}").to_arrow_reader(_BATCH_ROWS)


def plain_type(kind: str) -> str:
    """A DuckDB type as one that Delta and Iceberg know; names of struct fields stay as they are."""
    return retyped(kind, _PLAIN)


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A hidden folder that becomes `target` when the block ends well."""
    folder = _hidden(target)
    try:
        yield folder
        for path in folder.rglob("*"):
            fsync_path(path)
        old = target.with_name(f"{folder.name}.old")
        if target.exists():
            os.rename(target, old)
        os.rename(folder, target)
        fsync_path(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hidden(target: Path) -> Path:
    """A name beside the target; those of killed exports go."""
    for old in target.parent.glob(f".{target.name}.*.partial*"):
        pid = old.name.removeprefix(f".{target.name}.").partition(".")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    return target.with_name(f".{target.name}.{os.getpid()}.partial")
