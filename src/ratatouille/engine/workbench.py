"""A workbench: one workspace opened, with its project, its lake and its journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ratatouille import project as files
from ratatouille.lake import Journal, Lake, Storage, open_journal, open_lake
from ratatouille.lake.catalogs import catalog_of
from ratatouille.lake.catalogs.server import SCHEMES, Server
from ratatouille.lake.places.bucket import Bucket
from ratatouille.project.records import Project, Workspace


@dataclass(frozen=True, slots=True)
class Workbench:
    project: Project
    lake: Lake
    journal: Journal

    @property
    def root(self) -> Path:
        return Path(self.project.workspace.root)


def has_lake(workspace: Workspace) -> bool:
    """Whether something may have been built: a catalog alone is what is left when its maker was killed."""
    return catalog_of(storage_of(workspace).catalog).has_tables()


def storage_of(workspace: Workspace) -> Storage:
    """Where a workspace's lake lives, as absolute paths."""
    root = Path(workspace.root)
    return Storage(
        catalog=_catalog(root, workspace.catalog),
        data=_data(root, workspace.data),
        spill=root / workspace.resources.spill,
        memory_bytes=workspace.resources.memory_bytes,
        threads=workspace.resources.threads,
        base_catalog=_catalog(root, workspace.base_catalog) if workspace.environment else None,
        base_data=_data(root, workspace.base_data) if workspace.environment else None,
        local=_home(root, workspace),
    )


def _catalog(root: Path, said: str) -> Path | Server:
    return Server.of(said) if said.startswith(SCHEMES) else root / said.removeprefix("sqlite:")


def _data(root: Path, said: str) -> Path | Bucket:
    return Bucket.of(said) if said.startswith("s3://") else root / said


def _home(root: Path, workspace: Workspace) -> Path | None:
    """A catalog in a file has everything else beside it."""
    if not workspace.catalog.startswith(SCHEMES):
        return None
    return root / ".rat" / (f"environments/{workspace.environment}" if workspace.environment else "")


def journal_path(workspace: Workspace) -> Path | Server:
    """Where the journal is: beside a catalog in a file, or on the catalog's server."""
    storage = storage_of(workspace)
    return storage.catalog if isinstance(storage.catalog, Server) else storage.home / "journal.sqlite"


@contextmanager
def open_workbench(
    start: Path, *, write: bool = False, at: int | datetime | None = None, project: Project | None = None
) -> Iterator[Workbench]:
    """Open the workspace at or above `start`. `write` creates the lake if there is none."""
    project = project or files.load(files.find_root(start))
    storage = storage_of(project.workspace)
    with (
        open_lake(storage, write=write, create=write, at=at) as lake,
        open_journal(journal_path(project.workspace), create=write) as journal,
    ):
        yield Workbench(project, lake, journal)
