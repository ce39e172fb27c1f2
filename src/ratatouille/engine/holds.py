"""Going back: an earlier version becomes the current one, and the asset is held there until it is released."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ratatouille import project as files
from ratatouille.engine.native import ARTIFACT, heads_of
from ratatouille.engine.recorded import recorded
from ratatouille.engine.records import StepResult, as_json
from ratatouille.engine.workbench import Workbench, journal_path, storage_of
from ratatouille.errors import RatError, RequestError, near_miss
from ratatouille.lake import Entry, Hold, Session, artifacts, ledger, open_journal, open_lake
from ratatouille.lake import release as release_hold
from ratatouille.lake import roll_back as publish_again
from ratatouille.project.records import Project


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What stands after a rollback. `below` names the assets that read it and are stale now."""

    entry: Entry
    replaced: int  # the version that was current before
    below: tuple[str, ...]


@contextmanager
def bench_on(project: Project) -> Iterator[Workbench]:
    """A workbench on a lake that is there, for writing. RequestError if there is no lake."""
    workspace = project.workspace
    with open_lake(storage_of(workspace), write=True) as lake, open_journal(journal_path(workspace)) as journal:
        yield Workbench(project, lake, journal)


def roll_back(bench: Workbench, asset: str, to: int) -> RolledBack:
    """Publish version `to` of `asset` again and put it on hold. RequestError when it has no such version."""
    with bench.lake.session() as session:
        asset = known_asset(session, bench, asset)
        replaced = heads_of(session, bench.lake.storage, [asset])
    bench.journal.reap()
    with recorded(bench.journal, {"rollback": asset, "to": to}) as journalled:
        entry = _under_lease(bench, journalled.run_id, asset, to, _is_artifact(replaced.get(asset)))
        journalled.status = "done"
    below = files.downstream(bench.project, asset) if asset in bench.project.assets else ()
    return RolledBack(entry, replaced[asset].version if asset in replaced else 0, below)


def _is_artifact(head: Entry | None) -> bool:
    return head is not None and head.materialize == ARTIFACT


def _under_lease(bench: Workbench, run_id: str, asset: str, to: int, is_artifact: bool) -> Entry:
    token = bench.journal.take_lease(asset, run_id)
    if token is None:
        raise RequestError(
            f"{asset} is being built by {bench.journal.lease_holder(asset)}",
            where=asset,
            next="wait for it (rat runs), then run the same command again",
        )
    started = time.monotonic()
    try:
        if is_artifact:
            entry = artifacts.roll_back(bench.lake.storage, asset, to, run_id)
        else:
            entry = publish_again(bench.lake, bench.journal, run_id, asset, to, token)
        seconds = time.monotonic() - started
        bench.journal.record_step(run_id, asset, 1, "built", as_json(_step(entry, seconds)))
        return entry
    except RatError as failed:
        record = StepResult(asset, "failed", failed.what, error=failed.as_record())
        bench.journal.record_step(run_id, asset, 1, "failed", as_json(record))
        raise
    finally:
        bench.journal.drop_lease(asset, token)


def _step(entry: Entry, seconds: float) -> StepResult:
    return StepResult(
        asset=entry.asset,
        status="built",
        reason=f"rolled back to version {entry.restored_version}",
        version=entry.version,
        rows_written=entry.rows_written,
        rows_total=entry.rows_total,
        bytes_written=entry.bytes_written,
        seconds=seconds,
    )


def release(bench: Workbench, asset: str) -> Hold:
    """Take the hold off `asset`: the next run builds it again. RequestError when it is not on hold."""
    with bench.lake.session() as session:
        asset = known_asset(session, bench, asset)
        head = heads_of(session, bench.lake.storage, [asset]).get(asset)
    return artifacts.release(bench.lake.storage, asset) if _is_artifact(head) else release_hold(bench.lake, asset)


def known_asset(session: Session, bench: Workbench, name: str) -> str:
    """The full name of an asset that has a file or was once published. RequestError with the near miss."""
    name = name.strip().replace("/", ".")
    if name in bench.project.assets or name in bench.project.natives:
        return name
    published = {*ledger.heads(session), *artifacts.names(bench.lake.storage)}
    if name in published:
        return name
    known = {*bench.project.assets, *published}
    raise RequestError(
        f"There is no asset called '{name}'.{near_miss(name, known)}", where=str(bench.root), next="List them: rat show"
    )
