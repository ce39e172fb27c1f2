"""Rows of the quarantine, once more: those that pass their gates now flow into the table, or none of them ever will.

replay    candidate -> gates -> publish, of the rows that gates kept out; those that still fail stay, with the reason
          of now. A row whose key the table has already stays too: what is in the table is newer.
discard   rows leave the quarantine, with a reason that the ledger keeps. A rebuild reads and judges all rows anew.

Both are versions: `rat history` names them, `rat rollback` brings back what was before, the quarantine too. Neither
makes an asset fresh or stale. Lines that could not be read are no rows: mend their file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ratatouille.engine import fitting, stages
from ratatouille.engine.gates import Candidate, flag, repeated_rows
from ratatouille.engine.lease import leased
from ratatouille.engine.outcomes import stamp
from ratatouille.engine.plan import Request, read_state
from ratatouille.engine.quarantine import all_checks, gate
from ratatouille.engine.recorded import recorded
from ratatouille.engine.records import CheckResult, PlannedStep, StepResult, as_json
from ratatouille.engine.work import Work
from ratatouille.engine.workbench import Workbench
from ratatouille.errors import LakeError, RatError, RequestError, near_miss
from ratatouille.lake import Entry, Publication, Staged, attempt_folder, ledger, publish, stage, table_columns
from ratatouille.lake.quoting import ident, idents, member, table, text
from ratatouille.project.records import Asset


@dataclass(frozen=True, slots=True)
class Replayed:
    """`joined` rows are in the table now, `stayed` ones in the quarantine: check -> how many."""

    asset: str
    joined: int
    stayed: dict[str, int]
    version: int | None  # None: nothing was published


@dataclass(frozen=True, slots=True)
class Discarded:
    asset: str
    rows: int
    version: int


def replay(bench: Workbench, name: str, *, run: str = "", check: str = "") -> Replayed:
    """Let rows in that pass now: all that gates kept out, or those of one run or check."""
    asset = _asset_of(bench, name)
    some = _some(run, check) + " and origin = 'gate'"
    with _at_work(bench, asset, {"replay": asset.name}) as work:
        n_waiting = _put_waiting(work, some)
        if not n_waiting:
            raise RequestError(
                f"no row of {asset.name} is in the quarantine that a gate kept out{_of(run, check)}",
                where=asset.name,
                next=f"rat quarantine {asset.name}",
            )
        reasons = _reasons(work)
        stay = f"concat_ws(', ', {', '.join(reasons)})"
        rows = f"select {idents(work.existing)} from waiting where {stay} = ''"
        n_good = int(work.session.value(f"select count(*) from ({rows})"))
        stayed = dict(
            work.session.rows(f"select {stay}, count(*) from waiting where {stay} <> '' group by all order by 1")
        )
        if not n_good:
            return Replayed(asset.name, 0, stayed, None)
        work.staged = stage(work.session, rows, asset.name, work.folder(""), layout=work.layout)
        try:
            # What is left passes row by row; whether the whole still does only the gates can tell.
            strict = replace(work, asset=replace(asset, on_fail="block"))
            gate(strict)
            work.verdicts = strict.verdicts
            if stayed:
                work.kept_out = _stage_again(work, stay)
            work.n_kept_out = sum(stayed.values())
            stages.seal(work)
            note = f"replay: {n_good:,} of {n_waiting:,} rows joined"
            entry = _publish(work, "replay", note, some, rows_in=n_waiting)
        except BaseException:
            stages.drop(work)
            raise
        return Replayed(asset.name, n_good, stayed, entry.version)


def discard(bench: Workbench, name: str, reason: str, *, run: str = "", check: str = "") -> Discarded:
    """Let rows leave the quarantine: all of the asset's in the quarantine, or those of one run or check."""
    asset = _asset_of(bench, name)
    if not reason.strip():
        raise RequestError(
            "a discard needs a reason: the ledger keeps it",
            where=asset.name,
            next=f"rat quarantine discard {asset.name} --reason 'test orders'",
        )
    some = _some(run, check)
    with _at_work(bench, asset, {"discard": asset.name}) as work:
        rows = int(
            work.session.value(f"select count(*) from {ledger.QUARANTINE} where asset = {text(asset.name)} and {some}")
        )
        if not rows:
            raise RequestError(
                f"no row of {asset.name} is in the quarantine{_of(run, check)}",
                where=asset.name,
                next=f"rat quarantine {asset.name}",
            )
        entry = _publish(work, "discard", f"{rows:,} row{'s' * (rows != 1)} discarded: {reason.strip()}", some)
        return Discarded(asset.name, rows, entry.version)


def _asset_of(bench: Workbench, name: str) -> Asset:
    name = name.strip().replace("/", ".")
    if name not in bench.project.assets:
        raise RequestError(
            f"There is no asset called '{name}'.{near_miss(name, bench.project.assets)}",
            where=str(bench.root),
            next="List what is kept out: rat quarantine",
        )
    return bench.project.assets[name]


def _some(run: str, check: str) -> str:
    chosen = [f"starts_with(run_id, {text(run)})"] if run else []
    chosen += [f"list_contains(string_split(checks, ', '), {text(check)})"] if check else []
    return " and ".join(chosen) or "true"


def _of(run: str, check: str) -> str:
    return "".join([f", of run {run}" if run else "", f", by {check}" if check else ""])


@contextmanager
def _at_work(bench: Workbench, asset: Asset, request: dict[str, str]) -> Iterator[Work]:
    """The lease, a pinned session and a Work that adds to what stands. What happens is a run of its own."""
    bench.journal.reap()
    with recorded(bench.journal, request) as run, leased(bench.journal, asset.name, run.run_id) as token:
        with bench.lake.pinned(f"the quarantine of {asset.name}") as session:
            state = read_state(session, bench.project, [asset.name])
            head = state.heads.get(asset.name)
            if head is None or state.standing.get(asset.name) != "table":
                raise RequestError(f"{asset.name} has no table yet", where=asset.path, next=f"rat run {asset.name}")
            if asset.name in state.holds or head.action == "rollback":
                raise RequestError(
                    f"{asset.name} was rolled back to version {head.restored_version}, and its rows are those of then",
                    where=asset.name,
                    next=f"rat release {asset.name} && rat run {asset.name}, then the same again",
                )
            planned = PlannedStep(asset.name, "build", next(iter(request)), "", "incremental", head.version)
            work = Work(
                bench=bench, asset=asset, planned=planned, request=Request(), run_id=run.run_id, started_at=stamp(head),
                session=session, state=state, token=token, existing=dict(table_columns(session, asset.name)), only_adds=True,
            )  # fmt: skip
            started = time.monotonic()
            try:
                yield work
            except RatError as error:
                record = StepResult(
                    asset.name, "failed", error.what, version=head.version, error=error.as_record(),
                    checks=tuple(c for c in getattr(error, "checks", ()) if isinstance(c, CheckResult)),
                )  # fmt: skip
                bench.journal.record_step(run.run_id, asset.name, 1, "failed", as_json(record))
                raise
        run.status = "done"
        done = StepResult(asset.name, "built", next(iter(request)), seconds=time.monotonic() - started)
        bench.journal.record_step(run.run_id, asset.name, 1, "built", as_json(done))


def _put_waiting(work: Work, some: str) -> int:
    """`waiting`: the rows that gates kept out, in the types of the table, beside what the quarantine says of them."""
    names = ", ".join(_cell(name, kind) for name, kind in work.existing.items())
    said = ", ".join(f"{ident(name)} as {ident('_rat_' + name)}" for name, _ in ledger.QUARANTINE_COLUMNS)
    work.session.execute(
        f"create or replace temp table waiting as select {said}, row_number() over () as _rat_number, {names}"
        f" from {ledger.QUARANTINE} q where asset = {text(work.asset.name)} and {some}"
    )
    return int(work.session.value("select count(*) from waiting"))


def _cell(name: str, kind: str) -> str:
    """The value in the type of the table now, null where it does not fit any more; and whether it fits."""
    path = member(name)
    if fitting.is_nested(kind):
        return f"try_cast(json_extract(q.row, {path}) as {kind}) as {ident(name)}, true as {_fits(name)}"
    value = f"json_extract_string(q.row, {path})"
    found = fitting.fit(value, f"({fitting.converted(value, kind)})", "VARCHAR", kind)
    fits = f"coalesce({value} is null or {found.fits}, false)" if found else "true"
    return f"{fitting.converted(value, kind)} as {ident(name)}, {fits} as {_fits(name)}"


def _fits(name: str) -> str:
    return ident(f"_rat_fits:{name}")


def _reasons(work: Work) -> list[str]:
    """For each gate that keeps single rows out an expression: its name where a waiting row fails it, else null."""
    asset = work.asset
    seen = Candidate(f"select {idents(work.existing)} from waiting", "", f"select * from {table(asset.name)}")
    found = []
    for check in all_checks(asset):
        test = flag(check)
        if check.kind == "unique":
            keys = idents(check.columns)
            test = f"({keys}) in (select {keys} from ({repeated_rows(check.columns, seen)}))"
            if asset.deduplicate and check.columns == asset.unique_key:
                first = f"qualify row_number() over (partition by {keys} order by {asset.deduplicate}) = 1"
                test = f"({keys}) in (select {keys} from {table(asset.name)})"
                test += f" or _rat_number not in (select _rat_number from waiting {first})"
        if test and check.severity == "error" and not check.error_if:
            found.append(f"case when coalesce({test}, false) then {text(check.name)} end")
    found += [f"case when not {_fits(n)} then {text(f'{n}_{fitting.UNFIT}')} end" for n in work.existing]
    return found or ["null::varchar"]


def _stage_again(work: Work, reason: str) -> Staged:
    """The rows that stay, with the gates that they fail now; when and by which run they were kept out is as it was."""
    now = {"checks": reason, "reason": reason}
    columns = ", ".join(
        f"{now.get(name, ident('_rat_' + name))}::{kind} as {ident(name)}" for name, kind in ledger.QUARANTINE_COLUMNS
    )
    where = f"{work.asset.name}-{work.token}.{work.attempt}"
    folder = attempt_folder(work.bench.lake.storage, f"{ledger.SCHEMA}.quarantine", work.run_id, where)
    return stage(work.session, f"select {columns} from waiting where {reason} <> ''", work.asset.name, folder)


def _publish(work: Work, action: str, note: str, some: str, rows_in: int = 0) -> Entry:
    head, bench = work.head, work.bench
    if head is None:
        raise ValueError(f"{work.asset.name} has no version")
    entry = replace(
        head,
        run_id=work.run_id,
        version=0,
        action=action,
        note=note,
        mode="incremental",
        base_version=head.version,
        restored_version=0,
        unchanged_since=0,
        partitions={},
        checks=tuple(as_json(verdict.result) for verdict in work.verdicts) or head.checks,
        rows_in=rows_in,
        rows_quarantined=work.n_kept_out,
        rows_rejected=0,
        seconds=0.0,
        peak_memory_bytes=0,
        published_by=stages.user(),
    )
    publication = Publication(
        entry=entry,
        how="append",
        token=work.token,
        columns=head.columns,
        staged=work.staged,
        layout=work.layout,
        quarantine=work.kept_out,
        forget_quarantine=some,
        was="table",
    )
    outcome = publish(bench.lake, bench.journal, work.run_id, [publication])[0]
    if outcome.entry is None:
        raise outcome.error or LakeError(f"{work.asset.name}: nothing was published", where=action, next="rat history")
    return outcome.entry
