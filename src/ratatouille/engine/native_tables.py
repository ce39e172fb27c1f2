"""Native tables: frames as versions of a table, whole or one partition at a time.

partition    the rows that one run makes of an asset that Dagster has cut into parts; they carry their key in
             `_partition`, and publishing replaces the rows that have it, so partitions may come in any order and again
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ratatouille.engine.ask import answer, arrow
from ratatouille.engine.context import batches, is_batches, select_over, tabular
from ratatouille.engine.measured import disk, facts_of, figures
from ratatouille.engine.memory import MemoryGauge
from ratatouille.engine.native import (
    NATIVE,
    Given,
    candidate_of,
    heads_of,
    held_back,
    refuse_name,
    step_result,
    written_down,
)
from ratatouille.engine.plan import fingerprint
from ratatouille.engine.records import StepResult
from ratatouille.engine.stages import user
from ratatouille.engine.workbench import Workbench, open_workbench
from ratatouille.errors import RatError, RequestError, StepFailed
from ratatouille.lake import (
    Entry,
    Journal,
    Publication,
    Session,
    Staged,
    Superseded,
    UnknownOutcome,
    attempt_folder,
    candidates,
    damaged_tables,
    discard,
    ledger,
    publish,
    seal,
    stage,
    stage_batches,
    standing,
    table_columns,
)
from ratatouille.lake.candidates import Candidate
from ratatouille.lake.quoting import ident, table, text, texts

PARTITION = "_partition"


def store(root: Path, given: Given, returned: Any, *, preview_rows: int = 0) -> StepResult:
    """Stage what a function returned, seal it, and publish it; with gates it waits for their verdicts instead.

    Raises what went wrong, after writing it down; nothing is visible then and nothing is left behind.
    """
    started = given.began if given.began is not None else time.monotonic()

    def attempt(bench: Workbench, token: int) -> StepResult:
        refuse_name(bench, given.asset)
        return _stored(bench, given, returned, token, preview_rows, started)

    return written_down(root, given.asset.name, given.outer, attempt)


def _stored(bench: Workbench, given: Given, returned: Any, token: int, preview_rows: int, started: float) -> StepResult:
    asset, outer, gauge = given.asset, given.outer, MemoryGauge(disk=partial(disk, bench.lake))
    name = asset.name
    folder = attempt_folder(bench.lake.storage, name, outer.run_id, f"{token}.{outer.attempt}")
    with bench.lake.pinned(f"building {name}") as session:
        # What was an artifact until now has no table to build on.
        head, hold = ledger.heads(session, [name]).get(name), ledger.holds(session).get(name)
        heads = heads_of(session, bench.lake.storage, asset.depends_on)
        if head is not None and hold is not None and hold.code_hash == asset.code_hash:
            return held_back(head, hold)
        if head is not None and head.run_id == outer.run_id and head.action == "build":
            # A further attempt at a step that had published before it failed: once per run is enough.
            return StepResult(name, "built", "published by an earlier attempt", version=head.version, entry=head)
    # Not in the transaction that pinned the ledger: one that is open keeps every frame it has ever seen.
    with bench.lake.session(f"building {name}") as session:
        with gauge, gauge.step(name):
            staged = _stage(session, given, returned, folder)
        try:
            preview = answer(session, staged.relation, preview_rows, ours=True) if preview_rows else None
            facts = facts_of(session, asset, staged)
            staged = seal(staged, bench.lake.storage.data)
        except BaseException:
            discard(staged)
            raise
    unseen = {above: heads[above].data_version for above in asset.depends_on if above in heads}
    seconds = time.monotonic() - started
    entry = _entry(given, unseen, head, staged, seconds, gauge.peak(name))
    entry = replace(entry, measured=figures(bench.lake, asset, {"build": seconds}, gauge.used(name), facts))
    if given.gates:
        candidates.put(bench.journal, Candidate(entry, staged, token, given.gates))
        waits = f"waits for {', '.join(given.gates)}"
        return step_result(entry, "waiting", waits, head.version if head else None, preview, outer.attempt)
    try:
        published = publish_table(bench, entry, staged, token)
    except UnknownOutcome:
        raise
    except BaseException:
        discard(staged)
        raise
    return step_result(published, "built", "", published.version, preview, outer.attempt)


def _stage(session: Session, given: Given, returned: Any, folder: Path) -> Staged:
    name, keyed = given.asset.name, _with_key(session, given)
    try:
        if is_batches(returned):
            selects = (keyed(select) for _, select in batches(session, returned, given.asset))
            return stage_batches(session, selects, name, folder)
        return stage(session, keyed(select_over(session, tabular(returned), "returned")), name, folder)
    except RatError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:500]
        raise StepFailed(
            f"{name}: what it returned cannot be stored: {type(error).__name__}: {said}",
            where=_place(error) or name,
            next="mend the asset, then materialize it again",
        ) from error


def _with_key(session: Session, given: Given) -> Callable[[str], str]:
    """What gives a SELECT the column with the partition's key."""

    def keyed(select: str) -> str:
        if not given.partition:
            return select
        if PARTITION in dict(session.describe(select)):
            raise StepFailed(
                f"{given.asset.name}: the column name {PARTITION} is reserved",
                where=f"{given.asset.name}, column {PARTITION}",
                next="rename the column, then materialize it again",
            )
        return f"select *, {text(given.partition)} as {ident(PARTITION)} from (\n{select}\n)"

    return keyed


def _entry(
    given: Given, unseen: dict[str, int], head: Entry | None, staged: Staged, seconds: float, peak_memory_bytes: int
) -> Entry:
    asset, inputs = given.asset, {**unseen, **given.inputs}
    return Entry(
        asset=asset.name,
        run_id=given.outer.run_id,
        materialize=NATIVE,
        mode="incremental" if given.partition else "full",
        fingerprint=fingerprint(asset, inputs, given.partition),
        code_hash=asset.code_hash,
        text_hash=asset.description,  # the text itself: it becomes the table's comment when a gate publishes later
        token=given.partition,
        base_version=head.version if head else 0,
        inputs=inputs,
        columns=staged.columns,
        rows_in=staged.rows,
        rows_written=staged.rows,
        rows_total=staged.rows,
        bytes_written=staged.bytes,
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes,
        published_by=user(),
    )


# Publishing


def publish_table(bench: Workbench, entry: Entry, staged: Staged, token: int) -> Entry:
    """Make a sealed version current. Raises Superseded if somebody else published since it was begun.

    A partition only minds somebody who published the same one.
    """
    name = entry.asset
    with bench.lake.pinned(f"publishing {name}") as session:
        was = standing(session).get(name, "")
        have = dict(table_columns(session, name)) if was == "table" else {}
        if entry.token:
            entry = _rebased(session, entry)
        damaged = damaged_tables(session, bench.journal, bench.lake.storage, [name] if have else [], math.inf)
    parts = _a_partition if entry.token and PARTITION in have else _all_rows
    publication = parts(bench, entry, staged, token, have, was)
    if damaged and publication.how == "replace":
        publication = replace(publication, recreate=True)  # even emptying the table would read its files
    outcome = publish(bench.lake, bench.journal, entry.run_id, [publication])[0]
    if outcome.entry is None:
        raise outcome.error or StepFailed(f"{name} was not published", where=name, next=f"rat history {name}")
    bench.journal.note_verified([file["path"] for file in outcome.entry.manifest])
    return outcome.entry


def _all_rows(
    bench: Workbench, entry: Entry, staged: Staged, token: int, have: dict[str, str], was: str
) -> Publication:
    want = dict(staged.columns)
    drop = tuple(column for column, kind in have.items() if want.get(column) != kind)
    return Publication(
        entry=entry,
        how="replace",
        token=token,
        columns=staged.columns,
        staged=staged,
        add=tuple((column, kind) for column, kind in staged.columns if have.get(column) != kind) if have else (),
        drop=drop,
        comment=entry.text_hash,
        was=was,
        # A table cannot lose its last column, so one of which nothing stays is made anew.
        recreate=bool(have) and len(drop) == len(have),
    )


def _a_partition(
    bench: Workbench, entry: Entry, staged: Staged, token: int, have: dict[str, str], was: str
) -> Publication:
    for column, kind in staged.columns:
        if have.get(column, kind) != kind:
            raise StepFailed(
                f"{entry.asset}: column {column} is {kind} in this partition and {have[column]} in the others",
                where=f"{entry.asset}, partition {entry.token}",
                next="cast it in the asset, then materialize the partition again",
            )
    others = _all_but(bench, entry, token) if not staged.files else None
    staged = others or staged
    add = tuple((column, kind) for column, kind in staged.columns if column not in have)
    return Publication(
        entry=entry,
        how="replace" if others is not None else "merge",
        token=token,
        columns=tuple((have | dict(add)).items()),
        staged=staged,
        unique_key=(PARTITION,),
        add=add,
        comment=entry.text_hash,
        was=was,
    )


def _all_but(bench: Workbench, entry: Entry, token: int) -> Staged | None:
    """The rows of the other partitions, staged again: no row says that this one has become empty. None if it was."""
    with bench.lake.pinned(f"emptying a partition of {entry.asset}") as session:
        mine = f"{ident(PARTITION)} is not distinct from {text(entry.token)}"
        if not session.value(f"select count(*) from {table(entry.asset)} where {mine}"):
            return None
        folder = attempt_folder(bench.lake.storage, entry.asset, entry.run_id, f"{token}.others")
        staged = stage(session, f"select * from {table(entry.asset)} where not ({mine})", entry.asset, folder)
    return seal(staged, bench.lake.storage.data)


def _rebased(session: Session, entry: Entry) -> Entry:
    """The entry on top of what is current, if nobody has published the same partition since it was begun."""
    since = [other for other in ledger.entries(session, entry.asset) if other.version > entry.base_version]
    if any(other.token == entry.token or other.action == "rollback" for other in since):
        raise Superseded(
            f"{entry.asset}, partition {entry.token}, was published by somebody else while this run built it",
            where=entry.asset,
            state="Readers see that version; this run's candidate was dropped.",
            next="materialize the partition again",
        )
    return replace(entry, base_version=since[0].version) if since else entry


# Reading


def read(
    root: Path, name: str, *, runs: Sequence[str] = (), as_check: bool = False, partitions: Sequence[str] | None = None
) -> tuple[Any, int]:
    """Rows of a table as a pyarrow.Table, and the version that they are of (0: a candidate).

    A check (`as_check`) reads the candidate of the first of its `runs` that has one, published or not; everybody else
    reads what is current, and of it the `partitions`, if given. Its files are verified first.
    """
    with open_workbench(root) as bench, bench.lake.pinned(f"reading {name}") as session:
        if as_check:
            found = candidate_of(bench.journal, name, runs)
            if found is not None and found.state != "published":
                return _rows(session, f"({found.staged.relation})", None), 0
            if found is not None:
                mine = [found.entry.token] if found.entry.token else None
                return _rows(session, f"{table(name)} at (version => {found.version})", mine), found.version
        head = ledger.heads(session, [name]).get(name)
        if head is None:
            raise RequestError(
                f"{name} has no version that can be read",
                where=name,
                state=_why_nothing(bench.journal, name),
                next=f"materialize the asset that builds {name}, with its checks",
            )
        every_s = bench.project.workspace.verify_every_s
        damaged = damaged_tables(session, bench.journal, bench.lake.storage, [name], every_s)
        if name in damaged:
            raise StepFailed(
                f"a file of {name} is damaged",
                where=damaged[name],
                state="Nothing was read from it. Other versions of it may be whole: rat history",
                next=f"rat rollback {name} --to VERSION, or materialize it again",
            )
        return _rows(session, table(name), partitions), head.data_version


def _rows(session: Session, relation: str, partitions: Sequence[str] | None) -> Any:
    """Rows without the column that says their partition."""
    if PARTITION not in dict(session.describe(f"select * from {relation}")):
        return arrow(session, f"select * from {relation}", ours=True)
    where = f" where {ident(PARTITION)} in (select unnest({texts(partitions)}))" if partitions is not None else ""
    return arrow(session, f"select * exclude ({ident(PARTITION)}) from {relation}{where}", ours=True)


def _why_nothing(journal: Journal, name: str) -> str:
    found = candidates.all_of(journal, name, 1)
    if found and found[0].failed:
        return f"Its only candidate was rejected by {', '.join(found[0].failed)}."
    if found and found[0].missing:
        return f"Its candidate waits for {', '.join(found[0].missing)}."
    return "It was never built."


def _place(error: BaseException) -> str:
    """The line of a person's file that an exception came from."""
    from traceback import extract_tb

    frames = [frame for frame in extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}\n    {frames[-1].line}" if frames else ""
