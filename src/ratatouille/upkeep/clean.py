"""Cleaning: what a lake need not keep goes, and nothing that anybody reads.

    delete files that no version has needed for a day -> expire versions -> delete what killed runs left -> compact

Order and age make it safe. A version leaves the catalog no sooner than a day after it stopped being the current one, and
its files a day after that: whoever reads it has long ended by then. Whoever looks back on purpose keeps versions from
expiring by a lock. What no catalog names is looked for only while no run is going on, and goes when it is a day old.
Killed at any moment, a clean leaves a lake that reads as before; the next one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ratatouille.engine.holds import bench_on
from ratatouille.engine.lease import leased
from ratatouille.engine.native import ARTIFACT
from ratatouille.engine.recorded import new_run_id
from ratatouille.engine.workbench import Workbench
from ratatouille.errors import RatError, RequestError
from ratatouille.lake import Entry, Hold, Journal, artifacts, checkpoint, heartbeat, ledger, standing
from ratatouille.lake.care import leftovers, upkeep
from ratatouille.lake.catalogs.lock import nobody_looks_back
from ratatouille.lake.journal import Owner, retention
from ratatouille.project.records import Project

DAY_S = 86_400.0
# A version stays so long after it was current, a file after the last version that needed it, an orphan untouched.
GRACE_S = DAY_S
KEEP_REJECTED_S = 7 * DAY_S  # candidates that a gate kept out, for people who look at them
KEEP_DROPPED_S = 7 * DAY_S  # versions of a table that was dropped, for people who want it back after all
KEEP_CHUNKS_S = 7 * DAY_S  # of a step that was stopped: it could go on after them
KEEP_STEPS_S = 30 * DAY_S  # values that steps hand each other, and the failing rows of blocked assets
_LEASE = "rat clean"


@dataclass(frozen=True, slots=True)
class Removed:
    """One line of what goes. what: versions, files, orphans, artifacts, steps, failing rows, table, runs, figures."""

    what: str
    name: str  # the asset, or the path below the workspace
    bytes: int  # on the disk, freed by this clean; of versions: freed a day later
    files: int = 0
    why: str = ""
    versions: tuple[int, ...] = ()  # that cannot be read any more


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What went, or would go. `bytes` are freed now, `later_bytes` a day after this clean or an earlier one."""

    dry_run: bool
    removed: tuple[Removed, ...] = ()
    compacted: tuple[Removed, ...] = ()
    bytes: int = 0
    later_bytes: int = 0
    expired: int = 0  # versions
    kept: int = 0  # versions that can be read
    waits_for: tuple[str, ...] = ()  # runs that are going on: nothing was done
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Broom:
    """One clean in progress."""

    bench: Workbench
    run_id: str
    dry_run: bool
    now: float
    removed: list[Removed] = field(default_factory=list)
    compacted: list[Removed] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    later_bytes: int = 0
    expired: int = 0
    kept: int = 0

    def done(self) -> Cleaned:
        freed = sum(one.bytes for one in self.removed if one.what not in ("versions", "table"))
        return Cleaned(
            self.dry_run, tuple(self.removed), tuple(self.compacted), freed, self.later_bytes, self.expired, self.kept,
            (), tuple(self.warnings),
        )  # fmt: skip


def clean(project: Project, *, dry_run: bool = False, removed: bool = False, now: float | None = None) -> Cleaned:
    """Expire old versions, delete what nothing names any more, and compact. `removed`: tables without a file go too.

    `now` in seconds since 1970. While a run is going on nothing is done. RequestError without a lake, and with
    `removed` while the files have errors: then what is missing cannot be told from what is broken.
    """
    if removed and project.errors:
        raise RequestError(
            "--removed needs files without errors: an asset that cannot be read would count as removed",
            where=project.errors[0].path,
            next="rat check",
        )
    with bench_on(project) as bench:
        bench.journal.reap()
        run_id = new_run_id()
        with _alone(bench.journal, run_id) as others:
            if others:
                return Cleaned(dry_run, waits_for=tuple(others))
            broom = _Broom(bench, run_id, dry_run, time.time() if now is None else now)
            if removed:
                _drop_removed(broom)
            _delete_scheduled(broom)
            _expire(broom)
            _delete_orphans(broom)
            _clean_artifacts(broom)
            _delete_old_steps(broom)
            _prune_journal(broom)
            _compact(broom)
            return broom.done()


@contextmanager
def _alone(journal: Journal, run_id: str) -> Iterator[list[str]]:
    """The runs and cleans that are going on; the block has the right to clean when there are none.

    A clean is no run: the next `rat run` goes on from the last run that was stopped, as if none had cleaned meanwhile.
    """
    others = living(journal)
    token = None if others else journal.take_lease(_LEASE, run_id)
    try:
        with heartbeat(journal, run_id):
            yield others or ([] if token else [journal.lease_holder(_LEASE) or "another clean"])
    finally:
        if token:
            journal.drop_lease(_LEASE, token)


def living(journal: Journal) -> list[str]:
    """Runs and lease holders whose process lives, as a person would name them."""
    now, process = journal.now(), "pid, started_ticks, boot_id, host, heartbeat_at"
    runs = journal.do(f"select run_id, 'run ' || run_id, {process} from runs where status = 'running'")
    leases = journal.do(
        f"select run_id, 'run ' || run_id, {process} from leases where held = 1 and asset <> ?", [_LEASE]
    )
    return sorted({said for _, said, *owner, beat in [*runs, *leases] if Owner(*owner).is_alive(beat, now)})


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


# Versions


def rules(project: Project) -> tuple[tuple[int, float], dict[str, tuple[int, float]]]:
    """The workspace's retention (versions, days), and that of each asset that has its own."""
    common = project.workspace.retention
    own = {name: {**common, **asset.retention} for name, asset in project.assets.items() if asset.retention}
    return _rule(common), {name: _rule(said) for name, said in own.items()}


def _rule(said: Mapping[str, float]) -> tuple[int, float]:
    return int(said["versions"]), float(said["days"])


def _expire(broom: _Broom) -> None:
    default, own = rules(broom.bench.project)
    with broom.bench.lake.pinned("looking for old versions") as session:
        known, heads, kinds = upkeep.versions(session), ledger.heads(session), standing(session)
        # A table that was dropped has no version that is current: after some days they all go by age, however few.
        recently = upkeep.dropped_since(session, _utc(broom.now - KEEP_DROPPED_S))
        tables = {name for name, head in heads.items() if head.materialize not in ("view", ARTIFACT)}
        dropped = tables - kinds.keys() - recently
        own |= {name: (0, own.get(name, default)[1]) for name in dropped}
        kept = upkeep.kept_by_rule(session, default, own, _utc(broom.now))
        kept |= pinned_versions({n: h for n, h in heads.items() if n not in dropped}, ledger.holds(session))
        kept |= upkeep.current_since(session, _utc(broom.now - GRACE_S))
        gone = known - kept
        freed = {one.asset: one for one in upkeep.freed_by(session, gone)} if gone else {}
        own_versions = upkeep.published_at(session, gone) if gone else {}
        waiting = upkeep.scheduled(session, broom.bench.lake.storage)
    broom.expired, broom.kept = len(gone), len(known - gone)
    waits = sum(size for _, size, since in waiting if since >= _utc(broom.now - GRACE_S))
    broom.later_bytes = waits + sum(one.bytes for one in freed.values())
    for name in sorted({*freed, *own_versions}):
        mine = tuple(own_versions.get(name, ()))
        one = freed.get(name, upkeep.Freed(name, 0, 0))
        why = f"beyond its retention: {', '.join(map(str, mine[:5]))}{' ...' if len(mine) > 5 else ''}" if mine else ""
        broom.removed.append(Removed("versions", name, one.bytes, one.files, why, mine))
    if not gone or broom.dry_run:
        return
    with nobody_looks_back(broom.bench.lake.storage.catalog) as alone:
        if alone:
            upkeep.expire(broom.bench.lake, gone)
            return
    broom.warnings.append("somebody is reading an earlier version: none has expired; clean again when that has ended")
    broom.removed = [one for one in broom.removed if one.what != "versions"]
    broom.expired, broom.kept, broom.later_bytes = 0, len(known), waits


def pinned_versions(heads: Mapping[str, Entry], holds: Mapping[str, Hold]) -> set[int]:
    """Versions that stay whatever their age: current, held, rolled back to, and what the current ones were built from."""
    found = {hold.version for hold in holds.values()}
    for head in heads.values():
        found |= {head.version, head.data_version, head.restored_version, *head.inputs.values()}
    return found - {0}


# Files


def _delete_scheduled(broom: _Broom) -> None:
    lake, moment = broom.bench.lake, _utc(broom.now - GRACE_S)
    with lake.session("looking for old files") as session:
        due = [(path, size) for path, size, since in upkeep.scheduled(session, lake.storage) if since < moment]
    if not due:
        return
    total = sum(size for _, size in due)
    broom.removed.append(
        Removed("files", str(lake.storage.data), total, len(due), "no version has needed them for a day")
    )
    if not broom.dry_run:
        upkeep.delete_scheduled(lake, moment)


def _delete_orphans(broom: _Broom) -> None:
    """Files first, names after: what is published between the two looks has a name by the second one."""
    bench = broom.bench
    found = leftovers.old_files(bench.lake.storage, broom.now - GRACE_S)
    if not found:
        return
    with bench.lake.session("looking for orphans") as session:
        named = upkeep.named_files(session, bench.lake.storage)
    named |= leftovers.candidate_files(bench.journal, broom.now - KEEP_REJECTED_S)
    files = bench.lake.storage.files
    orphans = [one for one in found if (files.absolute(one.in_bucket) if one.in_bucket else str(one.path)) not in named]
    _remove(broom, "orphans", orphans, "no version has them, and no run")


def _remove(broom: _Broom, what: str, found: Collection[leftovers.Leftover], why: str) -> None:
    """Delete, and note it by folder of the attempt or of the asset."""
    root = broom.bench.root
    by_folder: dict[Path, list[leftovers.Leftover]] = {}
    for one in found:
        by_folder.setdefault(one.path if what != "orphans" else one.path.parent, []).append(one)
    for folder, ones in sorted(by_folder.items()):
        shown = folder.relative_to(root) if folder.is_relative_to(root) else folder
        size, count = sum(one.bytes for one in ones), sum(one.files for one in ones)
        broom.removed.append(Removed(what, str(shown), size, count, why))
    if broom.dry_run:
        return
    storage = broom.bench.lake.storage
    if objects := [one.in_bucket for one in found if one.in_bucket]:
        try:
            storage.files.remove(objects)
        except RatError as error:
            broom.warnings.append(error.what)
    for one in found:
        if one.in_bucket:
            continue
        try:
            leftovers.remove(one.path)
        except OSError as error:
            broom.warnings.append(f"{one.path} cannot be deleted: {error.strerror}")
    leftovers.remove_emptied([one.path for one in found if not one.in_bucket], storage.staging)


def _clean_artifacts(broom: _Broom) -> None:
    bench, storage = broom.bench, broom.bench.lake.storage
    default, own = rules(bench.project)
    with bench.lake.session("reading the ledger") as session:
        read = {v for head in ledger.heads(session).values() for v in head.inputs.items()}
    open_ones = leftovers.candidate_files(bench.journal, broom.now - KEEP_REJECTED_S)
    for asset in artifacts.names(storage):
        known, hold = leftovers.artifact_versions(storage, asset)
        count, days = own.get(asset, default)
        pinned = pinned_versions({asset: known[-1].entry}, {asset: hold} if hold else {})
        pinned |= {version for name, version in read if name == asset}
        young = {
            one.entry.version
            for one in known
            if one.entry.published_at
            and one.entry.published_at.replace(tzinfo=UTC).timestamp() > broom.now - days * DAY_S
        }
        newest = {one.entry.version for one in known[-count:]}
        gone = {one.entry.version for one in known} - newest - young - pinned
        named = {one.folder for one in known if one.entry.version not in gone} | {Path(one).name for one in open_ones}
        if gone and not broom.dry_run:
            artifacts.expire(storage, asset, gone)
        before = broom.now - GRACE_S
        found = leftovers.artifact_folders(storage, asset, named, before)
        _remove(broom, "artifacts", found, "beyond its retention, or never published")


def _delete_old_steps(broom: _Broom) -> None:
    """Values that Dagster's steps hand each other, failing rows, fetched objects, chunks of assets that were stopped."""
    rat, lake = broom.bench.root / ".rat", broom.bench.lake.storage.home
    for what, folder, keep_s in (
        ("steps", rat / "steps", KEEP_STEPS_S),
        ("failing rows", rat / "failed", KEEP_STEPS_S),
        ("fetched objects", rat / "s3", KEEP_STEPS_S),
        ("chunks", lake / checkpoint.FOLDER, KEEP_CHUNKS_S),
    ):
        found = leftovers.folders_below(folder, broom.now - keep_s)
        _remove(broom, what, found, f"untouched for {keep_s / DAY_S:.0f} days")


def _prune_journal(broom: _Broom) -> None:
    """Records of runs beyond their age: each day stays as a line, and the figures of their steps longer."""
    said = broom.bench.project.workspace.observe
    pruned = retention.prune(
        broom.bench.journal, broom.now - said.keep_runs_s, broom.now - said.keep_figures_s, dry_run=broom.dry_run
    )
    if pruned.runs:
        why = f"older than {said.keep_runs_s / DAY_S:.0f} days, {pruned.steps:,} steps; each day stays as a line"
        broom.removed.append(Removed("runs", "journal", 0, pruned.runs, why))
    if pruned.points:
        why = f"figures of steps older than {said.keep_figures_s / DAY_S:.0f} days"
        broom.removed.append(Removed("figures", "journal", 0, pruned.points, why))


# Compaction


def _compact(broom: _Broom) -> None:
    """Tables in many small files, but for those that are held at a version or were just brought back to one."""
    bench = broom.bench
    with bench.lake.pinned("looking for small files") as session:
        heads, holds = ledger.heads(session), ledger.holds(session)
        kinds = standing(session)
        able = [n for n, h in heads.items() if kinds.get(n) == "table" and n not in holds and h.action != "rollback"]
        crowded = upkeep.crowded(session, able)
        without = upkeep.unsealed(session, able)  # by a compaction that was killed
    broom.compacted += [
        Removed("compacted", one.asset, one.bytes, max(one.files, one.deletes), "many small files") for one in crowded
    ]
    if broom.dry_run:
        return
    full = {one.asset: one for one in crowded}
    for name in sorted({*full, *without}):
        try:
            with leased(bench.journal, name, broom.run_id) as token:
                if name in full:
                    upkeep.compact(bench.lake, bench.journal, broom.run_id, full[name], token)
                else:
                    upkeep.write_checksums(bench.lake, bench.journal, broom.run_id, name, token)
        except RatError as error:  # the table stands as it was
            broom.warnings.append(f"{name} was not compacted: {error.what}")


# Tables whose file is gone


def removed_tables(bench: Workbench) -> dict[str, str]:
    """Tables and views that a file of this workspace once built, and none builds any more: name -> table | view."""
    project = bench.project
    with bench.lake.pinned("looking for removed assets") as session:
        heads, kinds = ledger.heads(session), standing(session)
    elsewhere = ("native", "dbt", ARTIFACT)
    return {
        name: kinds[name]
        for name, head in heads.items()
        if name in kinds
        and name not in project.assets
        and name not in project.natives
        and head.materialize not in elsewhere
        and head.token not in elsewhere
    }


def _drop_removed(broom: _Broom) -> None:
    bench = broom.bench
    for name, kind in removed_tables(bench).items():
        below = [a.name for a in bench.project.assets.values() if name in a.depends_on]
        if below:
            broom.warnings.append(f"{name} has no file, but {', '.join(below)} reads it: it stays")
            continue
        why = f"its file is gone; the {kind} is dropped, its versions stay until they are old"
        broom.removed.append(Removed("table", name, 0, 0, why))
        if not broom.dry_run:
            with leased(bench.journal, name, broom.run_id):
                upkeep.drop_table(bench.lake, name, kind)


__all__ = ["Cleaned", "Removed", "clean", "living", "pinned_versions", "removed_tables", "rules"]
