"""Native assets: what an orchestrator's own code returned, kept like any other version of the lake.

native     an asset that no file builds; its record says kind "native", and its ledger entries materialize "native"
returned   what its function gave: a polars, pandas or Arrow frame, a DuckDB relation, or batches of them
gate       a check that an orchestrator runs by itself, later and perhaps in another process: until every listed one
           has passed, the version is a candidate (`lake/candidates.py`) that only its own run's checks can read

Storing is one attempt: make the version durable, and publish it (built) or let it wait for its gates (waiting).
`engine/native_tables.py` does it for frames, `engine/artifacts.py` for the rest; `engine/verdicts.py` goes on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratatouille import project as files
from ratatouille.engine.plan import Outer
from ratatouille.engine.recorded import recorded
from ratatouille.engine.records import Answer, CheckResult, StepResult, as_json
from ratatouille.engine.workbench import Workbench, open_workbench, storage_of
from ratatouille.errors import RatError, RequestError, StepFailed
from ratatouille.lake import Entry, Journal, candidates, ledger
from ratatouille.lake.candidates import Candidate
from ratatouille.project.records import Asset

NATIVE = "native"
LEASE_WAIT_S = 600.0
RESERVED = ("rat", "main", "information_schema", "pg_catalog")


@dataclass(frozen=True, slots=True)
class Given:
    """What a step says of the value that its function gave.

    `inputs` are the versions that were handed to it; of whatever else the asset depends on, those that are current
    count. `began` is the time.monotonic() at which the function started.
    """

    asset: Asset
    outer: Outer
    inputs: Mapping[str, int] = field(default_factory=dict)
    gates: tuple[str, ...] = ()
    began: float | None = None
    partition: str = ""  # the key of the one partition that the rows are of; "": they are all


def native_asset(name: str, code_hash: str, *, reads: Sequence[str] = (), description: str = "") -> Asset:
    """The record of a native asset called `layer.table`."""
    layer, _, short = name.partition(".")
    return Asset(
        name=name,
        layer=layer,
        table=short,
        kind=NATIVE,
        path="",
        description=description,
        code_hash=code_hash,
        depends_on=tuple(reads),
    )


def written_down(root: Path, name: str, outer: Outer, attempt: Callable[[Workbench, int], StepResult]) -> StepResult:
    """One attempt at an asset, under its lease and with what becomes of it in the journal."""
    started = time.monotonic()
    with (
        open_workbench(root, write=True) as bench,
        recorded(bench.journal, {"label": outer.label}, outer.resumes, outer.run_id) as run,
    ):
        try:
            with leased(bench.journal, name, outer.run_id) as token:
                bench.journal.record_step(outer.run_id, name, outer.attempt, "running")
                step = attempt(bench, token)
        except RatError as error:
            seconds = time.monotonic() - started
            failed = StepResult(
                name, "failed", error.what, seconds=seconds, attempts=outer.attempt, error=error.as_record()
            )
            bench.journal.record_step(outer.run_id, name, outer.attempt, "failed", as_json(failed))
            raise
        run.status = "done"
        bench.journal.record_step(outer.run_id, name, outer.attempt, step.status, as_json(step))
        return step


@contextmanager
def leased(journal: Journal, name: str, run_id: str) -> Iterator[int]:
    """The right to publish `name`; waits while a living process has it."""
    deadline, pause = time.monotonic() + LEASE_WAIT_S, 0.01
    while (token := journal.take_lease(name, run_id)) is None:
        if time.monotonic() > deadline:
            raise StepFailed(
                f"{name} is being built by {journal.lease_holder(name)}",
                where=name,
                next="wait for it (rat runs), then materialize it again",
            )
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
        pause = min(0.5, pause * 1.5)
    try:
        yield token
    finally:
        journal.drop_lease(name, token)


def refuse_name(bench: Workbench, asset: Asset) -> None:
    known = bench.project.assets.get(asset.name)
    if known is not None:
        raise RequestError(
            f"a native asset and a file are both called {asset.name}",
            where=f"{known.path} builds it",
            next="rename one of them, or give the native asset metadata={'table': 'layer.name'}",
        )
    if not asset.layer or not asset.table or asset.layer in RESERVED or "." in asset.table:
        raise RequestError(
            f"'{asset.name}' is no name for a table",
            where=f"a name is layer.table, and no layer is called {', '.join(RESERVED)}",
            next="give the asset metadata={'table': 'layer.name'}",
        )


def stands(root: Path, asset: Asset, outer: Outer, partition: str = "") -> StepResult | None:
    """Why `asset` need not be built by a run that nobody asked for just now; None if it must be.

    It is held; or a run that this one goes on from has made it from the same code and inputs; or it is fresh, as far
    as everything that it reads can be seen in the lake.
    """
    name, runs = asset.name, (outer.run_id, *outer.resumes)
    if not storage_of(files.load(root).workspace).catalog.exists():
        return None
    with open_workbench(root) as bench, bench.lake.pinned("planning") as session:
        heads = ledger.heads(session, [name, *asset.depends_on])
        head, hold = heads.get(name), ledger.holds(session).get(name)
        found = candidates.find(bench.journal, name, runs)
        mine = head
        if partition and head is not None and head.action == "build":
            mine = next((one for one in ledger.entries(session, name) if one.token == partition), None)
    inputs = {above: heads[above].data_version for above in asset.depends_on if above in heads}
    if head is not None and hold is not None and hold.code_hash == asset.code_hash:
        reason = f"on hold at version {hold.version}; rat release {name} lets it go on"
        return StepResult(name, "held", reason, version=head.version, entry=head)
    same = (asset.code_hash, inputs)
    if (
        found is not None
        and found.state in ("waiting", "passed")
        and (found.entry.code_hash, found.entry.inputs) == same
    ):
        return StepResult(name, "waiting", "built before the run was stopped", entry=found.entry)
    if mine is None or (mine.code_hash, mine.inputs) != same:
        return None
    if mine.run_id in runs and mine.action == "build":
        return StepResult(name, "skipped", "published before the run was stopped", version=mine.version, entry=mine)
    if not asset.depends_on or len(inputs) < len(asset.depends_on):
        return None  # it reads what the lake cannot see
    return StepResult(name, "skipped", f"unchanged since version {mine.version}", version=mine.version, entry=mine)


def step_result(
    entry: Entry, status: str, reason: str, version: int | None, preview: Answer | None, attempts: int
) -> StepResult:
    return StepResult(
        asset=entry.asset,
        status=status,
        reason=reason,
        version=version,
        rows_in=entry.rows_in,
        rows_written=entry.rows_written,
        rows_total=entry.rows_total,
        bytes_written=entry.bytes_written,
        seconds=entry.seconds,
        peak_memory_bytes=entry.peak_memory_bytes,
        attempts=attempts,
        inputs=entry.inputs,
        checks=tuple(CheckResult(**{**check, "columns": (), "sample": ()}) for check in entry.checks),
        preview=preview,
        entry=entry,
    )


def is_frame(value: Any) -> bool:
    """Whether `store` can make a table of it; batches are what is_batches says."""
    kind = type(value)
    if kind.__name__ in ("DuckDBPyRelation", "LazyFrame"):
        return True
    known = hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__") or hasattr(value, "iloc")
    return known and kind.__name__ not in ("Series", "ChunkedArray", "Array")


def candidate_of(journal: Journal, name: str, runs: Sequence[str]) -> Candidate | None:
    return candidates.find(journal, name, runs) or candidates.newest_open(journal, name)
