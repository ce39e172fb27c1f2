"""Native assets: what an orchestrator's own code returned, kept like any other version of the lake.

native     an asset that no file builds; its record says kind "native", and its ledger entries materialize "native"
returned   what its function gave: a polars, pandas or Arrow frame, a DuckDB relation, or batches of them
gate       a check that an orchestrator runs by itself, later and perhaps in another process: until every listed one
           has passed, the version is a candidate (`lake/candidates.py`) that only its own run's checks can read

Storing is one attempt: make the version durable, and publish it (built) or let it wait for its gates (waiting).
`engine/native_tables.py` does it for frames, `engine/artifacts.py` for the rest; `engine/verdicts.py` goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratatouille import project as files
from ratatouille.engine.lease import leased
from ratatouille.engine.plan import Outer
from ratatouille.engine.recorded import recorded
from ratatouille.engine.records import Answer, CheckResult, PlannedStep, StepResult, as_json, step_from_json
from ratatouille.engine.workbench import Workbench, has_lake, journal_path, open_workbench
from ratatouille.errors import RatError, RequestError
from ratatouille.lake import Entry, Hold, Journal, Session, Storage, artifacts, candidates, ledger, open_journal
from ratatouille.lake.candidates import Candidate
from ratatouille.project.records import Asset

NATIVE = "native"
ARTIFACT = "artifact"
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


def heads_of(session: Session, storage: Storage, names: Sequence[str]) -> dict[str, Entry]:
    """The newest version of each of `names`, be it a table or an artifact."""
    found = ledger.heads(session, names)
    for name in names:
        newest = artifacts.current(storage, name)
        if newest is not None and (name not in found or _is_newer(newest[1], found[name])):
            found[name] = newest[1]
    return found


def _is_newer(one: Entry, other: Entry) -> bool:
    return bool(one.published_at and other.published_at and one.published_at > other.published_at)


@dataclass(frozen=True, slots=True)
class _Standing:
    """What there is of an asset, and of what it reads, before a step."""

    head: Entry | None
    hold: Hold | None
    partition: Entry | None  # the newest version of the partition that is asked for; the head where there is none
    inputs: Mapping[str, int]


def _standing(bench: Workbench, asset: Asset, partition: str = "") -> _Standing:
    name, storage = asset.name, bench.lake.storage
    with bench.lake.pinned("planning") as session:
        heads = heads_of(session, storage, [name, *asset.depends_on])
        head, held = heads.get(name), ledger.holds(session).get(name)
        mine = head
        if partition and head is not None and head.action == "build":
            mine = next((one for one in ledger.entries(session, name) if one.token == partition), None)
    if head is not None and head.materialize == ARTIFACT:
        held = artifacts.hold(storage, name)
    inputs = {above: heads[above].data_version for above in asset.depends_on if above in heads}
    return _Standing(head, held, mine, inputs)


def plan_native(root: Path, asset: Asset, *, force: bool = False) -> PlannedStep:
    """What a run would do with a native asset, and why, as far as the lake can tell."""
    if not has_lake(files.load(root).workspace):
        return PlannedStep(asset.name, "build", "new", "never built")
    with open_workbench(root) as bench:
        there = _standing(bench, asset)
    rule, reason = _rule(asset, there)
    version = there.head.version if there.head else None
    if rule == "on hold" and not force:
        return PlannedStep(asset.name, "hold", rule, reason, version=version)
    if force and there.head is not None:
        rule, reason = "forced", "asked for with -f"
    return PlannedStep(asset.name, "skip" if rule == "fresh" else "build", rule, reason, version=version)


def _rule(asset: Asset, there: _Standing) -> tuple[str, str]:
    """(rule, reason), as `engine/plan.py` has them for files: the first that applies."""
    head, mine = there.head, there.partition
    if head is not None and there.hold is not None and there.hold.code_hash == asset.code_hash:
        return "on hold", _on_hold(asset.name, there.hold)
    if mine is None:
        return "new", "never built"
    if mine.code_hash != asset.code_hash:
        return "code changed", "its code or config changed"
    if mine.action == "rollback":
        return "released", "its hold was released"
    if mine.inputs != there.inputs:
        changed = [n for n in {**there.inputs, **mine.inputs} if there.inputs.get(n) != mine.inputs.get(n)]
        return "inputs changed", f"{', '.join(changed[:3])}{' ...' if len(changed) > 3 else ''} changed"
    if not asset.depends_on:
        return "always", "reads nothing that the lake can see"
    unseen = [name for name in asset.depends_on if name not in there.inputs]
    if unseen:
        return "always", f"reads {', '.join(unseen[:3])}, which the lake cannot see"
    return "fresh", f"unchanged since version {mine.version}"


def _on_hold(name: str, hold: Hold) -> str:
    return f"on hold at version {hold.version}; rat release {name} lets it go on"


def steps_of_run(root: Path, run_id: str, names: Sequence[str]) -> dict[str, StepResult]:
    """What the journal says of the steps of a run: the last attempt at each of `names` that it knows."""
    path = journal_path(files.load(root).workspace)
    if not path.exists():
        return {}
    with open_journal(path) as journal:
        found = [step["record"] for step in journal.steps(run_id) if step["asset"] in names]
    return {record["asset"]: step_from_json(record) for record in found if record}


def held_back(head: Entry, hold: Hold) -> StepResult:
    """The result of a step that may not replace what a rollback brought back."""
    return StepResult(head.asset, "held", _on_hold(head.asset, hold), version=head.version, entry=head)


def stands(root: Path, asset: Asset, outer: Outer, partition: str = "") -> StepResult | None:
    """Why `asset` need not be built by a run that nobody asked for just now; None if it must be.

    It is held; or a run that this one goes on from has made it from the same code and inputs; or it is fresh, as far
    as everything that it reads can be seen in the lake.
    """
    name, runs = asset.name, (outer.run_id, *outer.resumes)
    if not has_lake(files.load(root).workspace):
        return None
    with open_workbench(root) as bench:
        there = _standing(bench, asset, partition)
        found = candidates.find(bench.journal, name, runs)
    rule, reason = _rule(asset, there)
    head, mine = there.head, there.partition
    if rule == "on hold" and head is not None and there.hold is not None:
        return held_back(head, there.hold)
    same = (asset.code_hash, there.inputs)
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
    return StepResult(name, "skipped", reason, version=mine.version, entry=mine) if rule == "fresh" else None


def step_result(
    entry: Entry, status: str, reason: str, version: int | None, preview: Answer | None, attempts: int
) -> StepResult:
    return StepResult(
        asset=entry.asset,
        status=status,
        reason=reason,
        mode=entry.mode,
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
        measured=entry.measured,
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
