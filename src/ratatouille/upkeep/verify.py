"""Verifying: is every file still what was published, and does the ledger say what the catalog has?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ratatouille.engine.workbench import journal_path, storage_of
from ratatouille.errors import RequestError, near_miss
from ratatouille.lake import artifacts, ledger, open_journal, open_lake
from ratatouille.lake.care import audit
from ratatouille.lake.care.audit import Damage
from ratatouille.lake.catalogs.lock import looking_back
from ratatouille.project.records import Project


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at, and what is wrong with it."""

    files: int
    bytes: int
    assets: int
    damaged: tuple[Damage, ...]

    @property
    def whole(self) -> bool:
        return not any(one.severity == "error" for one in self.damaged)


def verify(
    project: Project,
    assets: Sequence[str] = (),
    *,
    every_version: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verified:
    """Compare every file of the current versions (or of all) with its size and checksum, and catalog with ledger.

    `assets` are names; none means all. `progress` is told (bytes done, bytes in all). RequestError for an unknown name.
    """
    workspace = project.workspace
    storage = storage_of(workspace)
    with (
        looking_back(storage.catalog),
        open_lake(storage) as lake,
        open_journal(journal_path(workspace)) as journal,
        lake.pinned("verifying the lake") as session,
    ):
        wanted = _wanted(assets, {*ledger.heads(session), *artifacts.names(storage)})
        found = audit.stored_files(session, every_version=every_version)
        found = [file for file in found if wanted is None or file.asset in wanted]
        total = sum(file.bytes for file in found)
        damaged = list(audit.damaged_files(lake, journal, found, lambda done: progress(done, total)))
        damaged += audit.disagreements(session, found, wanted)
    extra = 0
    for one in audit.damaged_artifacts(storage, wanted, every_version=every_version):
        if isinstance(one, Damage):
            damaged.append(one)
        else:
            extra += one
    names = {file.asset for file in found if not file.asset.startswith(f"{ledger.SCHEMA}.")}
    return Verified(len(found), total + extra, len(names), tuple(damaged))


def _wanted(assets: Sequence[str], known: set[str]) -> list[str] | None:
    names = [name.strip().replace("/", ".") for name in assets]
    for name in names:
        if name not in known:
            raise RequestError(
                f"'{name}' was never published.{near_miss(name, known)}", where=f"asset {name}", next="rat history"
            )
    return names or None
