"""Chunks: a Python asset works through more rows than fit into memory, and goes on where it was stopped.

chunk       a range of the rows, as a frame; `build` yields what it makes of it before it asks for the next one
checkpoint  the chunks that are finished (lake/checkpoint.py); a later attempt at the same work begins after them
between     what `build` gives beside its chunks. If it does, or leaves the loop early, it must have seen every chunk,
            so a step that went on from a checkpoint is done again from the first one

The result of a chunk must depend on its rows alone. A running sum that lives in a variable of `build` begins at zero
when the step goes on after a kill; `resume=False` does every chunk again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ratatouille.engine.context import select_over
from ratatouille.engine.memory import CALM, MemoryGauge
from ratatouille.engine.plan import fingerprint, input_versions, is_volatile
from ratatouille.engine.work import Work
from ratatouille.errors import RatError, RequestError
from ratatouille.lake import Checkpoint, Session, Spool, budget_bytes, open_checkpoint

FORMS = ("polars", "arrow", "relation")
SHARE_OF_BUDGET = 1 / 32  # of one chunk: the frame, what build makes of it, and both once more on their way to disk
SMALLEST, LARGEST = 1_000, 1_000_000  # rows, where nobody says how many
LEAST = 16  # a chunk is not halved below this part of its size: then it is not the chunks that take the memory
NOTE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a step is with its chunks. Rows are those that are read."""

    chunks: int
    rows: int
    of_rows: int
    rows_per_s: float
    left_s: float
    taken_over: int = 0  # chunks that an earlier attempt had finished

    def __str__(self) -> str:
        share = self.rows / self.of_rows if self.of_rows else 1.0
        said = f"chunk {self.chunks}: {self.rows:,} of {self.of_rows:,} rows ({share:.0%})"
        if self.rows_per_s:
            said += f", {self.rows_per_s:,.0f} rows/s, {self.left_s:.0f} s left"
        return said


class Chunks:
    """What `context.chunks` does for one step."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.checkpoint = _checkpoint_of(work)
        self.keeps = False  # set once build turns out to give its rows one by one
        self._gauge = work.gauge
        self._loops = 0
        self._noted_at = 0.0

    def over(self, rows: Any, size: int | None, by: Sequence[str], form: str, resume: bool) -> Iterator[Any]:
        """The rows as frames. RequestError for a wrong argument or a loop inside a loop."""
        size = size if size is not None else self.work.asset.chunk_rows or None
        self._refuse_nonsense(size, form)
        loop, self._loops = self._loops, self._loops + 1
        if not resume:
            self.checkpoint.begin_anew(loop)
        select = select_over(
            self.work.session, rows, f"rows_{self.work.run_id}_{self.work.asset.name}_{self.work.token}_{loop}"
        )
        with self.work.bench.lake.session(self.work.session.doing) as beside:
            spool = self.checkpoint.spool(loop, self.work.session, select, by)
            yield from self._each(beside, spool, loop, size, form)

    def _each(self, session: Session, spool: Spool, loop: int, size: int | None, form: str) -> Iterator[Any]:
        keeps, checkpoint = self.keeps, self.checkpoint
        at = first = checkpoint.done(loop) if keeps else 0
        n_taken = n_chunks = sum(1 for one in checkpoint.finished if one.loop == loop) if keeps else 0
        most = step = size or self._fitting(session, spool)
        started, whole = time.monotonic(), False
        if n_taken:
            self._tell(f"goes on after {n_taken} finished chunks, {at:,} of {spool.rows:,} rows")
        try:
            while at < spool.rows or (n_chunks == 0 and spool.rows == 0):
                step = self._by_pressure(step, most)
                end = spool.end_of_group(session, at + step)
                if keeps:
                    checkpoint.begin(loop, at, end)
                yield _frame(session, spool.select(at, end), form)
                if keeps:
                    checkpoint.end()
                at, n_chunks = end, n_chunks + 1
                took = time.monotonic() - started
                rate = (at - first) / took if took > 0 else 0.0
                self._note(Advance(n_chunks, at, spool.rows, rate, (spool.rows - at) / rate if rate else 0.0, n_taken))
            whole = True
        finally:
            checkpoint.needs_all |= not whole
        self.work.n_chunks += n_chunks - n_taken

    def _by_pressure(self, step: int, most: int) -> int:
        if self._gauge is None:
            return step
        self._gauge.refuse_when_full(self.work.asset.name)
        if self._gauge.is_high and not self._gauge.trim():
            smaller = max(step // 2, min(most, max(SMALLEST, most // LEAST)))
            if smaller < step:
                self._tell(f"memory is at {self._gauge.share():.0%}: chunks of {smaller:,} rows from here on")
            return smaller
        return min(step * 2, most) if step < most and self._gauge.share() < CALM else step

    def _fitting(self, session: Session, spool: Spool) -> int:
        """Rows of a chunk that takes SHARE_OF_BUDGET, by the width of the first ones."""
        sample = session.execute(spool.select(0, 4096)).to_arrow_table()
        width = max(1.0, sample.nbytes / max(1, sample.num_rows))
        return int(min(LARGEST, max(SMALLEST, self._budget * SHARE_OF_BUDGET / width)))

    @property
    def _budget(self) -> int:
        return budget_bytes(self.work.bench.lake.storage.memory_bytes)

    def _note(self, advance: Advance) -> None:
        self._tell(str(advance), "chunk")
        now = time.monotonic()
        if now - self._noted_at >= NOTE_EVERY_S:
            self._noted_at = now
            self.work.note(str(advance), asdict(advance))

    def _tell(self, said: str, stage: str = "build") -> None:
        self.work.tell(stage, said)

    def _refuse_nonsense(self, size: int | None, form: str) -> None:
        asset = self.work.asset
        if size is not None and size < 1:
            raise RequestError(
                f"{asset.name}: a chunk of {size} rows", where=asset.path, next="size=100_000, or leave it out"
            )
        if form not in FORMS:
            raise RequestError(
                f"{asset.name}: chunks come as {', '.join(FORMS)}, not as '{form}'",
                where=asset.path,
                next="form='polars'",
            )
        if self.checkpoint.in_chunk:
            raise RequestError(
                f"{asset.name}: context.chunks inside a loop over context.chunks",
                where=asset.path,
                next="join both with context.query first, then take that in chunks",
            )


def _frame(session: Session, select: str, form: str) -> Any:
    if form == "relation":
        return session.cursor.sql(select)
    table = session.execute(select).to_arrow_table()
    if form == "arrow":
        return table
    import polars

    return polars.from_arrow(table)


def _checkpoint_of(work: Work) -> Checkpoint:
    """The checkpoint of this work, and of no other: same code, inputs, variables, version below."""
    said = {
        "fingerprint": fingerprint(
            work.asset, input_versions(work.bench.project, work.asset.name, work.state.inputs), work.version_token
        ),
        "base": work.head.version if work.head else 0,
        "mode": work.planned.mode,
        "partition": work.partition.label if work.partition else "",
        "vars": dict(work.bench.project.workspace.vars),
        "env": [os.environ.get(name, "") for name in work.bench.project.workspace.env],
    }
    key = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]
    # Landing files are read anew: their rows carry the time and the run that read them, and each is accounted for.
    never = bool(work.asset.sources)
    # What changes unseen is continued only by the run that was stopped, not by one of tomorrow.
    anybody = not (is_volatile(work.asset) or work.request.force)
    return open_checkpoint(
        work.bench.lake.storage,
        work.asset.name,
        key,
        work.run_id,
        lambda run: not never and (anybody or run in work.runs),
    )


def refuse_when_full(gauge: MemoryGauge | None, asset: str, frames: Iterator[Any]) -> Iterator[Any]:
    """The frames of a generator, as long as there is memory for another."""
    while True:
        if gauge is not None:
            gauge.refuse_when_full(asset)
        try:
            frame = next(frames)
        except StopIteration:
            return
        yield frame
        del frame


def with_kept(error: RatError, kept: int) -> RatError:
    """The error, saying which chunks need not be done again."""
    if kept:
        error.state += f" {kept} finished chunk{'s are' if kept > 1 else ' is'} kept: the next run goes on after them."
    return error
