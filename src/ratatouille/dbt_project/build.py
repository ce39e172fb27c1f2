"""A selection of a dbt project, built with the guarantees of every asset: candidates, tests, one commit or none.

    leases -> pin the lake -> dbt builds candidates and tests them -> seal -> one publish for the whole selection

Any test of severity error that fails keeps all of it out: readers stay on the last good version of every model.
"""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from ratatouille import project as files
from ratatouille.dbt_project import process
from ratatouille.dbt_project.copy import Asked, Copy, copied
from ratatouille.dbt_project.process import Said
from ratatouille.dbt_project.project import Model, Selection, read_selection
from ratatouille.dbt_project.publish import Batch, Now, inputs_of, publication, staged
from ratatouille.dbt_project.results import Told, read_results
from ratatouille.engine.lease import leased
from ratatouille.engine.native import held_back, step_result
from ratatouille.engine.plan import Outer
from ratatouille.engine.recorded import new_run_id, recorded
from ratatouille.engine.records import CheckResult, PlannedStep, StepResult, as_json
from ratatouille.engine.workbench import Workbench, has_lake, open_workbench
from ratatouille.errors import RatError, RequestError, StepFailed
from ratatouille.lake import (
    Entry,
    Session,
    Staged,
    UnknownOutcome,
    attempt_folder,
    damaged_tables,
    ledger,
    publish,
    seal,
    standing,
    storage_as_text,
    storage_secrets,
    table_columns,
)
from ratatouille.lake.faults import plainly
from ratatouille.project.records import Project

ORDER = "RATATOUILLE_DBT_ORDER"  # as in lake/dbt_plugin.py, which is loaded by dbt's process alone
LOG_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Built:
    """What became of a selection. status: built | skipped | held | failed."""

    status: str
    run_id: str
    selection: Selection
    reason: str = ""
    steps: tuple[StepResult, ...] = ()  # one for each model
    checks: tuple[CheckResult, ...] = ()  # one for each test that ran
    seconds: float = 0.0
    dbt_seconds: float = 0.0  # of them, in dbt's process
    log: str = ""
    error: RatError | None = None

    @property
    def tests_passed(self) -> int:
        return sum(check.passed for check in self.checks)


def build(
    root: Path,
    asked: Asked,
    *,
    outer: Outer | None = None,
    full_refresh: bool = False,
    skip_fresh: bool = False,
    listener: Callable[[str], None] | None = None,
) -> Built:
    """Build, test and publish a selection. A test or a model that failed is in the result; the rest raises.

    `outer` is the orchestrator's run that this belongs to; with `skip_fresh` nothing is done when nothing changed.
    """
    started = time.monotonic()
    project = files.load(root)
    copy, selection = read_selection(project.workspace, asked)
    _refuse_names(project, selection)
    outer = outer or Outer(new_run_id(), f"dbt {selection.label}")
    with (
        open_workbench(root, write=True, project=project) as bench,
        recorded(bench.journal, {"label": outer.label}, outer.resumes, outer.run_id) as run,
        ExitStack() as stack,
    ):
        names = sorted(selection.names)
        tokens = {name: stack.enter_context(leased(bench.journal, name, outer.run_id)) for name in names}
        now = _look(bench, selection)
        stands = _stands(selection, now, outer, full_refresh=full_refresh, skip_fresh=skip_fresh)
        if stands is not None:
            run.status = "done"
            return replace(stands, seconds=time.monotonic() - started)
        for name in names:
            bench.journal.record_step(outer.run_id, name, outer.attempt, "running")
        try:
            with plainly("building with dbt"):
                built = _Run(bench, copy, asked, selection, outer, now, tokens).go(full_refresh, listener)
        except RatError as error:
            _write_down(bench, outer, _failed(selection, error, (), now, outer, time.monotonic() - started))
            raise
        built = replace(built, seconds=time.monotonic() - started)
        _write_down(bench, outer, built.steps)
        run.status = "failed" if built.status == "failed" else "done"
        return built


def plan(root: Path, asked: Asked, *, force: bool = False) -> PlannedStep:
    """What a run would do with a selection, and why. The step is called by the selection."""
    project = files.load(root)
    selection = read_selection(project.workspace, asked)[1]
    if not has_lake(project.workspace):
        return PlannedStep(selection.label, "build", "new", "never built")
    with open_workbench(root, project=project) as bench:
        now = _look(bench, selection)
    stands = _stands(selection, now, Outer("", "planning"), full_refresh=force, skip_fresh=True)
    versions = [now.heads[name].version for name in selection.names if name in now.heads]
    newest = max(versions, default=None)
    if stands is not None and not force:
        action, rule = ("hold", "on hold") if stands.status == "held" else ("skip", "fresh")
        return PlannedStep(selection.label, action, rule, stands.reason, version=newest)
    return PlannedStep(selection.label, "build", *_why(selection, now, force), version=newest)


def _why(selection: Selection, now: Now, force: bool) -> tuple[str, str]:
    """(rule, reason) of a selection that would be built: the first that applies to one of its models."""
    heads = {model: now.heads.get(model.name) for model in selection.models}
    for model, head in heads.items():
        if head is None or model.name not in now.standing:
            return "new", f"{model.name} was never built"
    if force:
        return "forced", "asked for with -f"
    for model, head in heads.items():
        if head is not None and head.code_hash != model.code_hash:
            return "code changed", f"{model.name}: its code or config changed"
        if head is not None and head.action != "build":
            return "released", f"{model.name}: its hold was released"
        if head is not None and head.inputs != inputs_of(selection, model, now):
            return "inputs changed", f"what {model.name} reads changed"
    unseen = next((model.name for model in selection.models if model.unseen), "")
    return "always", f"{unseen} reads what the lake cannot see"


def _refuse_names(project: Project, selection: Selection) -> None:
    taken = {name.lower(): native.path for name, native in project.natives.items()}
    taken |= {name.lower(): asset.path for name, asset in project.assets.items()}
    for model in selection.models:
        if model.name.lower() in taken:
            raise RequestError(
                f"a dbt model and another asset are both called {model.name}",
                where=f"{taken[model.name.lower()]} builds it, and {model.path} does",
                state="Nothing was built.",
                next="rename one of them, or give the model another alias or schema",
            )


def _write_down(bench: Workbench, outer: Outer, steps: Sequence[StepResult]) -> None:
    for step in steps:
        bench.journal.record_step(outer.run_id, step.asset, outer.attempt, step.status, as_json(step))


# What is there


def _look(bench: Workbench, selection: Selection) -> Now:
    with bench.lake.pinned("planning") as session:
        there = standing(session)
        missing = next((name for name in selection.needs if name not in there), None)
        if missing is not None:
            raise RequestError(
                f"{selection.needs[missing]} reads {missing}, which is not in the lake",
                where=f"schema {missing.partition('.')[0]}, table {missing.partition('.')[2]}",
                state="Nothing was built; readers see what they saw before.",
                next=f"build {missing} first, or correct the name in the dbt project",
            )
        mine = [name for name in selection.names if there.get(name) == "table"]
        return Now(
            version=session.snapshot,
            heads=ledger.heads(session),
            holds=ledger.holds(session),
            standing=there,
            columns={name: dict(table_columns(session, name)) for name in mine},
        )


def _stands(selection: Selection, now: Now, outer: Outer, *, full_refresh: bool, skip_fresh: bool) -> Built | None:
    """Why nothing need be built, if so: a hold, an earlier attempt of this run, or nothing has changed."""
    runs = (outer.run_id, *outer.resumes)
    heads = {model: now.heads.get(model.name) for model in selection.models}
    for model, head in heads.items():
        hold = now.holds.get(model.name)
        if hold is not None and head is not None and hold.code_hash == model.code_hash and not full_refresh:
            step = held_back(head, hold)
            return Built("held", outer.run_id, selection, step.reason, (step,))
    _refuse_overlap(selection, now, outer)
    if not all(
        head is not None and head.action == "build" and name.name in now.standing for name, head in heads.items()
    ):
        return None
    known = {model: head for model, head in heads.items() if head is not None}
    if all(head.run_id == outer.run_id for head in known.values()):
        return _standing(selection, known, outer, "built", "published by an earlier attempt")
    same = all(
        head.code_hash == model.code_hash and head.inputs == inputs_of(selection, model, now)
        for model, head in known.items()
    )
    if not same or full_refresh:
        return None
    if outer.resumes and all(head.run_id in runs for head in known.values()):
        return _standing(selection, known, outer, "skipped", "published before the run was stopped")
    unseen = [model.name for model in selection.models if model.unseen]
    if skip_fresh and not unseen:
        newest = max(head.version for head in known.values())
        return _standing(selection, known, outer, "skipped", f"unchanged since version {newest}")
    return None


def _refuse_overlap(selection: Selection, now: Now, outer: Outer) -> None:
    """A run publishes a table once, so its selections may not share one: the second would build on what is not kept."""
    heads = [now.heads.get(name) for name in selection.names]
    mine = [head.asset for head in heads if head is not None and head.run_id == outer.run_id and head.action == "build"]
    if mine and len(mine) < len(heads):
        raise RequestError(
            f"{selection.label} builds {mine[0]}, which this run has published with another selection",
            where=f"{mine[0]}, run {outer.run_id}",
            state="Nothing was built.",
            next="give the selections of one run no model in common",
        )


def _standing(selection: Selection, heads: Mapping[Model, Entry], outer: Outer, status: str, reason: str) -> Built:
    steps = tuple(_step(head, status, reason, outer) for head in heads.values())
    checks = tuple(check for step in steps for check in step.checks)
    return Built(status, outer.run_id, selection, reason, steps, checks)


def _step(entry: Entry, status: str, reason: str, outer: Outer) -> StepResult:
    return replace(step_result(entry, status, reason, entry.version, None, outer.attempt), mode=entry.mode)


# A run


@dataclass(slots=True)
class _Run:
    bench: Workbench
    copy: Copy
    asked: Asked
    selection: Selection
    outer: Outer
    now: Now
    tokens: Mapping[str, int]
    attempt: str = field(default_factory=lambda: f"dbt-{secrets.token_hex(4)}")
    keep: bool = False  # the files are published, or may be

    def go(self, full_refresh: bool, listener: Callable[[str], None] | None) -> Built:
        self._refuse_damaged(full_refresh)
        with process.run_folder(self.bench.lake.storage.home / "dbt") as folder:
            began = time.monotonic()
            try:
                said, told = self._dbt(folder, full_refresh, listener)
                seconds = time.monotonic() - began
                self._refuse_changed_files()
                if told.error is not None:
                    error = self._with_state(told.error)
                    steps = _failed(self.selection, error, told.checks, self.now, self.outer, seconds)
                    made = Built("failed", self.outer.run_id, self.selection, error.what, steps, told.checks)
                    return replace(made, dbt_seconds=seconds, log=said.log[-LOG_CHARACTERS:], error=error)
                steps = self._publish(told)
            finally:
                if not self.keep:
                    self._discard()
        made = Built("built", self.outer.run_id, self.selection, "", steps, told.checks)
        return replace(made, dbt_seconds=seconds, log=said.log[-LOG_CHARACTERS:])

    def _dbt(self, folder: Path, full_refresh: bool, listener: Callable[[str], None] | None) -> tuple[Said, Told]:
        storage, report = self.bench.lake.storage, folder / "staged.jsonl"
        own = [m.name for m in self.selection.models if self._is_shown(m)]
        order = {
            "storage": storage_as_text(storage),
            "version": self.now.version,
            "views": sorted({*self.selection.needs, *own}),
            "run_id": self.outer.run_id,
            "attempt": self.attempt,
            "report": str(report),
        }
        (folder / "order.json").write_text(json.dumps(order))
        report.touch()
        said = process.run_dbt(
            self.bench.project.workspace,
            self.copy.project,
            self.copy.folder,
            folder,
            process.build_words(
                self.asked.select, self.asked.exclude, self.selection.left_out, full_refresh=full_refresh
            ),
            self.asked.vars,
            more_environment={ORDER: str(folder / "order.json")},
            secrets=storage_secrets(storage),
            listener=listener,
        )
        return said, read_results(self.selection, folder, said)

    def _is_shown(self, model: Model) -> bool:
        """Whether the published table is there from the start, as `this`. One that a view stands for is not."""
        stands = self.now.standing.get(model.name, "")
        return stands == "table" or (stands == "view" and model.kind != "incremental")

    def _refuse_damaged(self, full_refresh: bool) -> None:
        read = {name for model in self.selection.models for name in inputs_of(self.selection, model, self.now)}
        read |= {m.name for m in self.selection.models if m.kind == "incremental" and not full_refresh}
        read = {name for name in read if self.now.standing.get(name) == "table"}
        every_s = self.bench.project.workspace.verify_every_s
        with self.bench.lake.pinned("verifying the inputs") as session:
            found = self._damaged(session, sorted(read), every_s)
        for name, why in found.items():
            raise StepFailed(
                f"a file of {name} is damaged",
                where=why,
                state="Nothing was read from it. Other versions of it may be whole: rat history",
                next=f"rat rollback {name} --to VERSION, or build it again in full",
            )

    def _damaged(self, session: Session, names: Sequence[str], every_s: float) -> dict[str, str]:
        return damaged_tables(session, self.bench.journal, self.bench.lake.storage, names, every_s)

    def _refuse_changed_files(self) -> None:
        if copied(self.bench.project.workspace, self.asked).folder != self.copy.folder:
            raise StepFailed(
                "the dbt project changed while it was built",
                where=str(self.asked.project),
                next="run it again: it builds what the files say now",
            )

    def _with_state(self, error: RatError) -> RatError:
        """The error with what readers see now."""
        heads = [self.now.heads[name] for name in self.selection.names if name in self.now.heads]
        if heads:
            newest = max(heads, key=lambda head: head.version)
            when = f" of {newest.published_at:%Y-%m-%d %H:%M} (UTC)" if newest.published_at else ""
            state = f"Nothing was published. Readers still see version {newest.version}{when} of all its models."
        else:
            state = "Nothing was published. Readers see nothing: no version of its models was ever published."
        return type(error)(error.what, where=error.where, state=state, next=error.next)

    def _discard(self) -> None:
        """Remove what this attempt staged and did not publish."""
        for name in self.selection.names:
            folder = self._folder(name)
            for path in (folder, Path(f"{folder}.whole")):
                shutil.rmtree(path, ignore_errors=True)

    def _folder(self, name: str) -> Path:
        return attempt_folder(self.bench.lake.storage, name, self.outer.run_id, self.attempt)

    # Publishing

    def _publish(self, told: Told) -> tuple[StepResult, ...]:
        data = self.bench.lake.storage.data
        made: dict[str, Staged | None] = {}
        for model in self.selection.models:
            said = told.staged[model.name]
            made[model.name] = seal(staged(said), data) if said["how"] != "view" else None
        with self.bench.lake.pinned("verifying what is replaced") as session:
            replaced = [n for n, said in told.staged.items() if said["how"] == "replace" and n in self.now.columns]
            damaged = self._damaged(session, sorted(replaced), math.inf)
        batch = Batch(self.selection, told, self.now, self.outer, self.tokens, made, damaged)
        publications = [publication(batch, model) for model in self.selection.models]
        outcomes = publish(self.bench.lake, self.bench.journal, self.outer.run_id, publications, together=True)
        failed = next((outcome.error for outcome in outcomes if outcome.error is not None), None)
        if failed is not None:
            self.keep = isinstance(failed, UnknownOutcome)
            raise failed
        self.keep = True
        entries = {outcome.asset: outcome.entry for outcome in outcomes if outcome.entry is not None}
        with contextlib.suppress(RatError):  # what was published stays published
            paths = [file["path"] for entry in entries.values() for file in entry.manifest]
            self.bench.journal.note_verified(paths)
        return tuple(_step(entries[n], "built", "its tests passed", self.outer) for n in self.selection.names)


def _failed(
    selection: Selection, error: RatError, checks: Sequence[CheckResult], now: Now, outer: Outer, seconds: float
) -> tuple[StepResult, ...]:
    """A failed step for each model, with what its tests found: none of them was published."""
    mine = {model.name: {test.name for test in selection.tests_on(model.name)} for model in selection.models}
    return tuple(
        StepResult(
            model.name,
            "failed",
            error.what,
            version=now.heads[model.name].version if model.name in now.heads else None,
            seconds=seconds,
            attempts=outer.attempt,
            checks=tuple(check for check in checks if check.name in mine[model.name]),
            error=error.as_record(),
        )
        for model in selection.models
    )
