"""The crew that works through a plan.

Workers take an asset each through the STAGES; the calling thread publishes whatever candidates are ready in one
commit and hands out the assets that became ready by it. One failed asset blocks what is below it and nothing else.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ratatouille import project as files
from ratatouille.engine import landing, outcomes, stages
from ratatouille.engine.backfill import Backfill, begin_backfill
from ratatouille.engine.build import render
from ratatouille.engine.fresh import skipped
from ratatouille.engine.lease import wait_for_lease
from ratatouille.engine.measured import disk
from ratatouille.engine.memory import MemoryGauge
from ratatouille.engine.plan import Request, State, decide, read_state, reads, version_tokens
from ratatouille.engine.recorded import Recorded
from ratatouille.engine.records import Listener, Plan, PlannedStep, Progress, RunResult, StepResult, as_json
from ratatouille.engine.stages import STAGES
from ratatouille.engine.work import UnreadableFiles, Work, with_borrowed
from ratatouille.engine.workbench import Workbench
from ratatouille.errors import RatError, RequestError, StepFailed, TransientError
from ratatouille.lake import (
    Entry,
    LandingFile,
    Publication,
    Session,
    Superseded,
    UnknownOutcome,
    budget_bytes,
    discard,
    publish,
)

# More steps at a time than this only share the same cores and memory.
MAX_WORKERS = 4
_SUPERSEDED_TRIES = 20
SHARE_VERSION_S = 2.0
# Candidates in one commit: a commit costs tens of milliseconds, one more candidate in it a few.
COMMIT_TOGETHER = 500
COMMIT_AFTER_S = 1.0

current: ContextVar[Crew | None] = ContextVar("ratatouillecurrent_run", default=None)


@dataclass(slots=True)
class _Ready:
    """A candidate that waits for its commit."""

    work: Work
    publication: Publication
    attempts: int
    started: float
    built: float  # time.monotonic(), as is started


class Crew:
    """One run in progress. Only the calling thread changes its state; workers read it."""

    def __init__(
        self,
        bench: Workbench,
        request: Request,
        journalled: Recorded,
        planned: Plan,
        state: State,
        already: dict[str, Entry],
        listener: Listener | None,
        first_attempt: int = 1,
        resumes: Sequence[str] = (),
    ) -> None:
        self.bench = bench
        self.request = request
        self.run_id = journalled.run_id
        self._journal_may_fail = journalled.journal_may_fail
        self.planned = planned
        self.already = already
        self.listener = listener
        self._first_attempt = first_attempt
        self.results: dict[str, StepResult] = {}
        self.gauge = MemoryGauge(
            budget_bytes(bench.lake.storage.memory_bytes),
            bench.lake.limit_memory,
            budget_bytes(),
            partial(disk, bench.lake),
        )
        self._states = {state.version: state}
        self.state = state  # the newest
        self._superseded: dict[str, int] = {}
        self._seen_before = 0.0  # sessions entered before this moment do not show what somebody else published
        self.damaged: dict[str, str] = {}  # assets whose files are not what was published, and why
        self._published: dict[str, int] = {}  # by this run: asset -> version
        self._backfills: dict[str, Backfill] = {}  # by asset, where partitions were asked for
        self._runs = {journalled.run_id, *resumes}
        self._worker = threading.local()
        self._kept: list[ExitStack] = []  # sessions that workers may still hold
        self._total = len(planned.to_build)

    # The calling thread

    def go(self) -> tuple[StepResult, ...]:
        order = [step.asset for step in self.planned.steps]
        for step in self.planned.steps:
            if step.action != "build":
                self._finish(skipped(step, self.state))
        waiting = {step.asset for step in self.planned.to_build}
        running: dict[Future[_Ready | StepResult], str] = {}
        ready: list[_Ready] = []
        workers = max(1, min(MAX_WORKERS, self._total, self.bench.lake.threads))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="step")
        try:
            with self.gauge:
                while waiting or running or ready:
                    self._block_below_failures(waiting)
                    for name in self._startable(order, waiting, running, ready):
                        waiting.discard(name)
                        running[pool.submit(self._step, name)] = name
                    if running:
                        ready += self._collect(running)
                    if self._is_time_to_publish(ready, running, workers):
                        self._publish(ready, waiting)
                        ready = []
        except BaseException:
            self.bench.lake.interrupt()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for session in self._kept:
                session.close()
        return tuple(self.results[name] for name in order)

    def _startable(
        self,
        order: Sequence[str],
        waiting: set[str],
        running: dict[Future[_Ready | StepResult], str],
        ready: Sequence[_Ready],
    ) -> list[str]:
        unfinished = waiting | set(running.values()) | {one.work.asset.name for one in ready}
        assets = self.bench.project.assets
        able = [name for name in order if name in waiting and unfinished.isdisjoint(assets[name].depends_on)]
        # One at a time, until there is room for two.
        return able if not able or not self.gauge.is_high else able[: 0 if running else 1]

    def _is_time_to_publish(
        self, ready: Sequence[_Ready], running: dict[Future[_Ready | StepResult], str], workers: int
    ) -> bool:
        """At once when a worker has nothing to do; else when enough came together, or the first waited long enough."""
        if not ready:
            return False
        idle = len(running) < workers
        return idle or len(ready) >= COMMIT_TOGETHER or time.monotonic() - ready[0].built > COMMIT_AFTER_S

    def _block_below_failures(self, waiting: set[str]) -> None:
        for name in list(self.bench.project.assets):
            if name not in waiting:
                continue
            for above in self.bench.project.assets[name].depends_on:
                result = self.results.get(above)
                if result is not None and result.status in ("failed", "blocked"):
                    waiting.discard(name)
                    self._finish(StepResult(name, "blocked", f"{above} {result.status}", version=self._version(name)))
                    break

    def _version(self, name: str) -> int | None:
        head = self.state.heads.get(name)
        return head.version if head else None

    def _collect(self, running: dict[Future[_Ready | StepResult], str]) -> list[_Ready]:
        """Wait for workers; note what is finished, and give the candidates that can be published."""
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        ready: list[_Ready] = []
        for future in done:
            running.pop(future)
            outcome = future.result()
            if isinstance(outcome, StepResult):
                self._finish(outcome)
            else:
                ready.append(outcome)
        return ready

    def _publish(self, ready: Sequence[_Ready], waiting: set[str]) -> None:
        for one in ready:
            self._tell(one.work.asset.name, "publish")
        began = time.monotonic()
        committed = publish(self.bench.lake, self.bench.journal, self.run_id, [one.publication for one in ready])
        published = {o.asset: o.entry for o in committed if o.entry is not None}
        if published:
            self._advance(published, ready)
        for one, outcome in zip(ready, committed, strict=True):
            name = one.work.asset.name
            self._drop_lease(name, one.work.token)
            if outcome.entry is not None:
                one.work.stage_s["publish"] = time.monotonic() - began  # of all that shared the commit
                step = outcomes.built(one.work, outcome.entry, one.attempts, one.started)
                if one.work.checkpoint is not None:
                    one.work.checkpoint.start_over()  # its files have their names in the table's folder
                if one.work.gone is not None:
                    discard(one.work.gone)
                if name in self._backfills and self._backfills[name].goes_on_after(step):
                    self._tell(name, "publish", self._backfills[name].progress)
                    waiting.add(name)
                    continue
                self._finish(self._backfills[name].result() if name in self._backfills else step)
                continue
            if not isinstance(outcome.error, UnknownOutcome):
                stages.drop(one.work)
            if isinstance(outcome.error, Superseded) and self._superseded.get(name, 0) < _SUPERSEDED_TRIES:
                self._superseded[name] = self._superseded.get(name, 0) + 1
                self._states.clear()
                self._seen_before = time.monotonic()
                time.sleep(random.uniform(0, 0.05))  # noqa: S311  jitter: do not meet the same rival again
                waiting.add(name)
            elif outcome.error is not None:
                self._finish(outcomes.failed(name, outcome.error, one.attempts, one.started, self._version(name)))

    def _advance(self, published: dict[str, Entry], ready: Sequence[_Ready]) -> None:
        """The state after our commit, so that steps below need not read the ledger again."""
        version = max(entry.version for entry in published.values())
        kinds = {n: "view" if e.materialize == "view" else "table" for n, e in published.items()}
        self._published |= {name: entry.version for name, entry in published.items()}
        previous = self.state
        self.state = replace(
            previous,
            version=version,
            heads={**previous.heads, **published},
            standing={**previous.standing, **kinds},
            holds={n: h for n, h in previous.holds.items() if n not in published},
            landing={**previous.landing, **_remembered(previous, published, ready)},
        )
        if previous.version != version - 1:
            # Somebody else committed in between: what we know of the others is old.
            with self.bench.lake.pinned("reading the ledger") as session:
                self.state = read_state(session, self.bench.project, aside=previous.aside_rows)
        self._states[self.state.version] = self.state
        for old in sorted(self._states)[:-50]:
            del self._states[old]
        with self._journal_may_fail():
            # Their checksums were computed a moment ago.
            self.bench.journal.note_verified([file["path"] for entry in published.values() for file in entry.manifest])
        for one in ready:
            if one.work.asset.sources and one.work.asset.name in published:
                with self._journal_may_fail():
                    self.bench.journal.accepted(one.work.asset.name, list(one.work.landing.files))

    def _finish(self, result: StepResult) -> None:
        if result.status == "failed":
            result = outcomes.without_values(result, self.bench.project.assets)
            result = replace(result, measured=self.gauge.used(result.asset))
        self.results[result.asset] = result
        if result.status in ("built", "failed", "blocked"):
            with self._journal_may_fail():
                self.bench.journal.record_step(
                    self.run_id, result.asset, result.attempts, result.status, as_json(result)
                )
        self._tell(result.asset, "done", result=result)

    def _tell(self, asset: str, stage: str, text: str = "", result: StepResult | None = None) -> None:
        if self.listener is not None:
            done = sum(1 for r in self.results.values() if r.status not in ("skipped", "held"))
            self.listener(Progress(asset, stage, done, self._total, text, result))

    def join(self, request: Request) -> RunResult:
        """A run asked for inside this one: what this run has built already is not built again."""
        chosen = files.select(self.bench.project, request.selectors)
        steps = tuple(self.results.get(name) or self._built_inside(name) for name in chosen)
        return RunResult(self.run_id, "failed" if any(s.status == "failed" for s in steps) else "done", steps)

    def _built_inside(self, name: str) -> StepResult:
        raise RequestError(
            f"run('{name}') was called while {name} is still to be built in the same run",
            where=name,
            next=f"say that the calling asset depends on it: depends_on: [{name}] in its YAML file",
        )

    # Workers

    def _step(self, name: str) -> _Ready | StepResult:
        """One asset through its stages, with retries for what may pass. Never raises."""
        asset = self.bench.project.assets[name]
        started = time.monotonic()
        token, attempt = 0, self._first_attempt - 1
        aside: dict[str, str] = {}
        marker = current.set(self)
        try:
            token = self._take_lease(name)
            while True:
                attempt += 1
                try:
                    outcome = self._attempt(name, token, attempt, aside, started)
                    if isinstance(outcome, StepResult):
                        self._drop_lease(name, token)
                    return outcome
                except UnreadableFiles as unreadable:
                    aside |= unreadable.reasons
                except TransientError as error:
                    if attempt > asset.retries.max or not self.request.retry:
                        raise
                    time.sleep(outcomes.pause_s(asset.retries.delay_s, asset.retries.backoff, attempt))
                    self._tell(name, "build", f"trying again: {error.what}")
        except RatError as error:
            self._drop_lease(name, token)
            return outcomes.failed(name, error, attempt, started, self._version(name), aside)
        except KeyboardInterrupt:  # somebody pressed Ctrl-C, or build() raises it
            self._drop_lease(name, token)
            stopped = StepFailed(f"{name}: it was interrupted", where=asset.path, next=f"rat run {name}")
            return outcomes.failed(name, stopped, attempt, started, self._version(name), aside)
        except BaseException as error:  # a bug of ours: it reaches the person as four lines, the traceback as cause
            self._drop_lease(name, token)
            failed = StepFailed(
                f"{name}: {type(error).__name__}: {error}",
                where=outcomes.place(error),
                next="report this; it is a defect",
            )
            return outcomes.failed(name, failed, attempt, started, self._version(name), aside)
        finally:
            current.reset(marker)

    def _drop_lease(self, name: str, token: int) -> None:
        if token:
            with self._journal_may_fail():
                self.bench.journal.drop_lease(name, token)

    def _take_lease(self, name: str) -> int:
        token, waited = wait_for_lease(self.bench.journal, name, self.run_id)
        if waited:
            self._seen_before = time.monotonic()  # whoever held the lease has published
        return token

    def _attempt(
        self, name: str, token: int, attempt: int, aside: dict[str, str], started: float
    ) -> _Ready | StepResult:
        asset = self.bench.project.assets[name]
        with self._pinned(name) as (session, version), self.gauge.step(name):
            state = self._state_seen_by(session, version, name)
            tokens = version_tokens(self.bench.project, [name], session)
            forced = self.request.force and self._superseded.get(name, 0) == 0
            step = decide(self.bench.project, name, state, self.request, {}, forced, tokens)
            if step.action != "build":
                return skipped(step, state)
            if step.mode != "partition" and self._was_finished(state, step):
                return skipped(step, state, "published before the run was stopped")
            self._refuse_damaged_inputs(name, step.mode)
            self.bench.journal.record_step(self.run_id, name, attempt, "running")
            work = Work(
                bench=self.bench, asset=with_borrowed(asset, state), planned=step, request=self.request, run_id=self.run_id,
                started_at=outcomes.stamp(state.heads.get(name)), session=session, state=state, token=token, attempt=attempt,
                version_token=tokens.get(name, ""), aside=aside, gauge=self.gauge, runs=self._runs,
                tell=partial(self._tell, name), note=partial(self._note_progress, name, attempt),
            )  # fmt: skip
            try:
                for stage in STAGES:
                    self._tell(name, stage.__name__)
                    stages.timed(stage, work)
                    if stage is render and (nothing := self._nothing_to_read(work) or self._no_partition_left(work)):
                        return nothing
            except BaseException:
                stages.drop(work)
                raise
            self._note_set_aside(work)
            if self.request.preview_rows:
                work.preview = outcomes.first_rows(work)
            seconds = time.monotonic() - started
            return _Ready(
                work,
                stages.publication(work, seconds, self.gauge.peak(name), recreate=name in self.damaged),
                attempt,
                started,
                time.monotonic(),
            )

    @contextmanager
    def _pinned(self, name: str) -> Iterator[tuple[Session, int]]:
        """A session that sees everything `name` needs: this worker's last one, if it is new enough.

        Entering a version costs 10 ms with a thousand tables, so tiny steps share it. A step that fails, or
        takes its time, leaves the session behind.
        """
        assets = self.bench.project.assets
        needed = max((self._published.get(above, 0) for above in (name, *assets[name].depends_on)), default=0)
        kept: tuple[ExitStack, Session, int, float] | None = getattr(self._worker, "kept", None)
        self._worker.kept = None
        if kept is not None and (
            kept[2] < needed or kept[3] < self._seen_before or time.monotonic() - kept[3] > SHARE_VERSION_S
        ):
            kept[0].close()
            kept = None
        if kept is None:
            opened = ExitStack()
            session = opened.enter_context(self.bench.lake.pinned("building"))
            self._kept.append(opened)
            kept = (opened, session, session.snapshot, time.monotonic())
        stack, session, version, _ = kept
        session.doing = f"building {name}"
        try:
            yield session, version
        except BaseException:
            stack.close()
            raise
        self._worker.kept = kept

    def _state_seen_by(self, session: Session, version: int, name: str) -> State:
        known = self._states.get(version)
        if known is not None:
            return known
        return read_state(session, self.bench.project, [name], aside=self.state.aside_rows)

    def _refuse_damaged_inputs(self, name: str, mode: str) -> None:
        """A full build may replace its own damaged files; nothing may be computed from them."""
        for above in (*reads(self.bench.project, name), *([name] if mode == "incremental" else [])):
            if above in self.damaged and above not in self._published:
                raise StepFailed(
                    f"{name} was not built: a file of {above} is damaged",
                    where=self.damaged[above],
                    state="Nothing was built from it. Other versions of it may be whole: rat history",
                    next=f"rat run {above} -f",
                )

    def _was_finished(self, state: State, step: PlannedStep) -> bool:
        """Whether this run has built the asset, or the killed one that it continues and only time went by since."""
        head, finished = state.heads.get(step.asset), self.already.get(step.asset)
        if head is None or finished is None or head.version != finished.version:
            return False
        return head.run_id == self.run_id or step.rule in ("always", "refresh due", "forced", "asked again")

    def _nothing_to_read(self, work: Work) -> StepResult | None:
        """An incremental step all of whose new files had to be set aside has nothing to do."""
        if not work.asset.sources or work.landing.files or not work.aside:
            return None
        self._note_set_aside(work)
        if work.incremental:
            version = work.head.version if work.head else None
            return StepResult(
                work.asset.name,
                "skipped",
                "no new file can be read",
                version=version,
                entry=work.head,
                set_aside=outcomes.set_aside(work),
            )
        file, reason = next(iter(work.aside.items()))
        raise StepFailed(
            f"{work.asset.name}: none of its landing files can be read",
            where=f"{file}: {reason}",
            next=f"mend the file, then: rat run {work.asset.name}",
        )

    def _no_partition_left(self, work: Work) -> StepResult | None:
        """Choose the partition that this attempt builds. The result of the step if all of them stand."""
        if work.planned.mode != "partition":
            return None
        name = work.asset.name
        if name not in self._backfills:
            self._backfills[name] = begin_backfill(work, self._runs)
        work.partition = self._backfills[name].current
        if work.partition is not None:
            return None
        return skipped(work.planned, work.state, self._backfills[name].progress)

    def _note_progress(self, name: str, attempt: int, said: str, record: Mapping[str, Any]) -> None:
        with self._journal_may_fail():
            self.bench.journal.record_step(
                self.run_id, name, attempt, "running", {"reason": said, "chunks": dict(record)}
            )

    def _note_set_aside(self, work: Work) -> None:
        for file, reason in work.aside.items():
            size, modified_ns = landing.status(work.root, file)
            self.bench.journal.set_aside(work.asset.name, file, size, modified_ns, reason, self.run_id)


def _remembered(
    previous: State, published: Mapping[str, Entry], ready: Sequence[_Ready]
) -> dict[str, Sequence[LandingFile]]:
    """What the published assets remember of landing files now."""
    found: dict[str, Sequence[LandingFile]] = {}
    for one in (one.publication for one in ready if one.publication.asset in published):
        if one.landing is not None:
            gone = {file.file for file in one.landing}
            stay = [] if one.how == "replace" else previous.landing.get(one.asset, ())
            found[one.asset] = [file for file in stay if file.file not in gone] + list(one.landing)
    return found
