"""Running cases: the stages of a real run (render, build, gate) on given rows, up to where it would publish.

Each case has a lake in memory and a workspace of links, both gone afterwards. The real `.rat/` is never opened, but by
a case that asks for what is published, and then for reading.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ratatouille import project as files
from ratatouille.engine import modes
from ratatouille.engine.build import Bindings, build, render
from ratatouille.engine.gates import Candidate, Verdict, judge
from ratatouille.engine.plan import Request, State, utc_now
from ratatouille.engine.quarantine import all_checks, gate
from ratatouille.engine.records import CheckResult, PlannedStep
from ratatouille.engine.work import UnreadableFiles, Work
from ratatouille.engine.workbench import Workbench, storage_of
from ratatouille.errors import GateFailed, RatError, RequestError
from ratatouille.lake import Entry, Lake, Session, open_journal, open_lake, standing
from ratatouille.lake.quoting import ident, table
from ratatouille.lake.throwaway import put_table, throwaway_lake
from ratatouille.project.cases import Case, Expect, find_cases
from ratatouille.project.modes import grows
from ratatouille.project.records import Asset, Project
from ratatouille.testing.compare import Difference, compare, said_of_gates
from ratatouille.testing.mocks import give, mirror, select_of

STAGES: tuple[Callable[[Work], None], ...] = (render, build, gate)
_RUN = "20260101T000000-test00"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case. status: passed | failed. `error` are the four lines of what stopped it."""

    name: str
    asset: str
    path: str
    line: int
    status: str
    seconds: float
    differences: tuple[Difference, ...] = ()
    error: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Tested:
    cases: tuple[CaseResult, ...]
    seconds: float

    @property
    def failed(self) -> int:
        return sum(1 for one in self.cases if one.status == "failed")


def run_cases(
    project: Project,
    selectors: Sequence[str] = (),
    *,
    like: str = "",
    listener: Callable[[CaseResult], None] = lambda result: None,
) -> Tested:
    """Run the cases of the selected assets (all, if none are) whose name or file has `like` in it.

    RequestError when the files are wrong, or nothing is selected: a run that tests nothing must not look like a pass.
    """
    started = time.monotonic()
    chosen = set(files.select(project, selectors)) if selectors else set(project.assets)
    every = find_cases(project)
    cases = [c for c in every if c.asset in chosen and like.lower() in f"{c.path} {c.name}".lower()]
    if not cases:
        what = "no test fits" if every else "there are no tests yet"
        where = f"{len(every)} tests in {len({c.path for c in every})} files" if every else "pipelines/*/tests/*.yaml"
        raise RequestError(what, where=where, next="docs/testing.md shows how to write one")
    files.ensure_valid(project, sorted({case.asset for case in cases}))
    results = []
    for case in cases:
        results.append(_result(project, case))
        listener(results[-1])
    return Tested(tuple(results), time.monotonic() - started)


def _result(project: Project, case: Case) -> CaseResult:
    started = time.monotonic()
    error = None
    try:
        differences = _tried(project, case)
    except RatError as failed:
        differences, error = [], failed.as_record()
    status = "failed" if differences or error else "passed"
    took = time.monotonic() - started
    return CaseResult(case.name, case.asset, case.path, case.line, status, took, tuple(differences), error)


def _tried(project: Project, case: Case) -> list[Difference]:
    if case.data == "published":
        return _gates_on_published(project, case)
    asset = project.assets[case.asset]
    folder = Path(tempfile.mkdtemp(prefix="rat-test-", dir=_fast_folder()))
    try:
        (folder / "mocks").mkdir()
        root = mirror(Path(project.workspace.root), folder, asset.sources)
        workspace = replace(project.workspace, root=str(root), vars={**project.workspace.vars, **case.vars})
        with (
            _environment(case.env),
            throwaway_lake(folder, workspace.layers, workspace.resources.memory_bytes) as lake,
            open_journal(root / "journal.sqlite", create=False) as journal,
        ):
            bench = Workbench(replace(project, workspace=workspace), lake, journal)
            stand_ins = give(lake, project, asset, case, root, folder / "mocks")
            return _Attempt(bench, asset, case, folder / "mocks", stand_ins).differences()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fast_folder() -> str | None:
    """Memory, where there is some: what a test stages is gone in a moment."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Attempt:
    """One case in progress, in its own lake."""

    def __init__(self, bench: Workbench, asset: Asset, case: Case, mocks: Path, stand_ins: Mapping[str, str]) -> None:
        self.bench, self.asset, self.case, self.mocks, self.stand_ins = bench, asset, case, mocks, stand_ins
        self.lake: Lake = bench.lake
        self.work: Work | None = None

    def differences(self) -> list[Difference]:
        expect = self.case.expect
        with self.lake.session(f"testing {self.asset.name}") as session:
            try:
                published = self._publish(session)
                failed = self._build(session, published)
            except RatError as error:
                return _as_expected(error, expect)
            if expect.error:
                return _as_expected(failed, expect) if failed else [_no_error(expect)]
            return self._compared(session, failed)

    def _publish(self, session: Session) -> str:
        """The current version of the asset, if the case has one: its mode is incremental then."""
        case, asset = self.case, self.asset
        if case.published is None and not case.watermark:
            return ""
        shape = dict(self._shape(session)) if asset.kind == "sql" else {}
        declared = {c.name: c.type for c in asset.columns if c.type} | shape
        if case.published is None:
            if not shape:
                raise RequestError(
                    "a watermark of a Python asset needs the published rows", where=case.path, next="published: [...]"
                )
            select = ", ".join(f"cast(null as {kind}) as {ident(name)}" for name, kind in shape.items())
            select = f"select {select} where false"
        else:
            select = select_of(session, case.published, self.mocks, declared, shape)
        put_table(self.lake, asset.name, select)
        return "incremental" if grows(asset) else "full"

    def _shape(self, session: Session) -> tuple[tuple[str, str], ...]:
        """The columns that a full build gives."""
        work = self._work(session, "", {})
        while True:
            try:
                render(work)
                return modes.columns_of(self.asset, session.describe(work.select))
            except UnreadableFiles as unreadable:
                work.aside |= unreadable.reasons

    def _work(self, session: Session, mode: str, aside: dict[str, str], attempt: int = 1) -> Work:
        asset = self.asset
        kinds = dict.fromkeys(asset.depends_on, "table") | ({asset.name: "table"} if mode else {})
        head = Entry(asset.name, _RUN, version=1, materialize=asset.materialize, rows_total=1, published_at=utc_now())
        return Work(
            bench=self.bench,
            asset=asset,
            planned=PlannedStep(asset.name, "build", "", "", mode or "full"),
            request=Request(accept_loss=True),
            run_id=_RUN,
            started_at=utc_now(),
            session=session,
            state=State(version=1, heads={asset.name: head} if mode else {}, standing=kinds),
            token=1,
            attempt=attempt,
            aside=aside,
            watermarks=self._watermarks(session) if mode else {},
            stand_ins=self.stand_ins,
        )

    def _watermarks(self, session: Session) -> dict[str, tuple[str, str]]:
        known = dict(session.describe(f"select * from {table(self.asset.name)}"))
        return {
            column: (str(value), known.get(column, _type_of(value))) for column, value in self.case.watermark.items()
        }

    def _build(self, session: Session, mode: str) -> GateFailed | None:
        """Through the stages; the error of a gate that kept the candidate out, so that its rows can still be looked at."""
        aside: dict[str, str] = {}
        for attempt in range(1, 100):
            self.work = self._work(session, mode, aside, attempt)
            try:
                for stage in STAGES:
                    stage(self.work)
                return None
            except UnreadableFiles as unreadable:
                aside |= unreadable.reasons
                if not set(unreadable.reasons) - set(self.work.aside) and attempt > 50:
                    raise RequestError(
                        "its files cannot be read", where=str(aside), next="mend the given files"
                    ) from None
            except GateFailed as failed:
                return failed
        return None

    def _compared(self, session: Session, failed: GateFailed | None) -> list[Difference]:
        work, expect = self.work, self.case.expect
        assert work is not None  # noqa: S101  built just now
        checks = failed.checks if failed else [verdict.result for verdict in work.verdicts]
        found = said_of_gates({c.name: (c.passed, c.bad) for c in checks if isinstance(c, CheckResult)}, expect.gates)
        if failed and not expect.gates:
            failed.state, failed.next = "", "mend the query or the rows, or expect it: gates: {NAME: fail}"
            raise failed
        if work.aside:
            found += [Difference(f"{file} cannot be read: {reason}") for file, reason in work.aside.items()]
        seen = modes.candidate(work)
        for what, relation, rows, count in (
            ("rows", seen.whole, expect.rows, expect.count),
            ("new rows", seen.delta, expect.new_rows, expect.new_count),
        ):
            if count is not None:
                came = int(session.value(f"select count(*) from ({relation})"))
                if came != count:
                    found.append(Difference(f"{what}: {count:,} expected, {came:,} came"))
            if rows is not None:
                found += compare(session, what, relation, rows, self.mocks, expect.columns, expect.ordered)
        kept_out = work.n_kept_out + len(work.rejects)
        if expect.quarantined is not None and kept_out != expect.quarantined:
            found.append(Difference(f"rows kept out: {expect.quarantined:,} expected, {kept_out:,} came"))
        return found


def _as_expected(error: RatError, expect: Expect) -> list[Difference]:
    """Nothing, if the error is the one that was expected."""
    if not expect.error:
        raise error
    if expect.error.lower() in f"{error.what}\n{error.where}".lower():
        return []
    return [Difference(f"the error does not say '{expect.error}': {error.what}")]


def _no_error(expect: Expect) -> Difference:
    return Difference(f"an error was expected that says '{expect.error}', and there was none")


def _type_of(value: Any) -> str:
    if isinstance(value, bool | int):
        return "BOOLEAN" if isinstance(value, bool) else "BIGINT"
    if isinstance(value, float):
        return "DOUBLE"
    try:
        datetime.fromisoformat(str(value)).astimezone(UTC)
    except ValueError:
        return "VARCHAR"
    return "TIMESTAMP"


# Gates on what is published


def _gates_on_published(project: Project, case: Case) -> list[Difference]:
    asset = project.assets[case.asset]
    with open_lake(storage_of(project.workspace)) as lake, lake.pinned(f"testing {asset.name}") as session:
        kinds = standing(session)
        if asset.name not in kinds:
            raise RequestError(f"{asset.name} was never built", where=case.path, next=f"rat run +{asset.name}")
        relation = f"select * from {table(asset.name)}"
        found = []
        count = case.expect.count
        if count is not None and (came := session.value(f"select count(*) from ({relation})")) != count:
            found.append(Difference(f"rows: {count:,} expected, {came:,} there"))
        verdicts = _judged(project, asset, session, lake, relation, kinds)
    return found + said_of_gates(
        {v.result.name: (v.result.passed, v.result.bad) for v in verdicts}, case.expect.gates or "pass"
    )


def _judged(
    project: Project, asset: Asset, session: Session, lake: Lake, relation: str, kinds: Mapping[str, str]
) -> list[Verdict]:
    with open_journal(Path("/nowhere"), create=False) as journal:
        work = Work(
            bench=Workbench(project, lake, journal), asset=asset, planned=PlannedStep(asset.name, "build", "", ""),
            request=Request(), run_id=_RUN, started_at=utc_now(), session=session, state=State(standing=kinds), token=1,
        )  # fmt: skip
        bindings = Bindings(work)  # `this` is the table itself
        return judge(
            session, asset, all_checks(asset), Candidate(relation, relation),
            lambda check: files.render_check_sql(project, asset.name, check, bindings, is_select=session.is_select).sql,
        )  # fmt: skip
