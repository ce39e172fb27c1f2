"""One asset, from its file to a candidate that may be published.

STAGES = (render, build, gate, seal): each takes the `Work` and adds to it. Publishing is the caller's, because
several candidates share one commit. Whatever a stage raises, nothing is visible and staged files are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import project as files
from ..errors import RatError, RequestError, StepFailed
from ..lake import Entry, Publication, QueryFailed, Session, Staged, attempt_folder, discard, stage, stage_batches, table_columns
from ..lake import seal as make_durable
from ..lake.quoting import ident, idents, literal, table
from ..project.records import ORIGIN_COLUMNS, Asset, Source
from . import context, evolve, landing, quarantine
from .gates import Candidate, Verdict
from .plan import Request, State, fingerprint, input_versions, stock_of
from .records import PlannedStep
from .workbench import Workbench


class UnreadableFiles(Exception):
    """Landing files that must be set aside before the step can go on: file -> reason."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = dict(reasons)


@dataclass(slots=True)
class Work:
    """One attempt at one asset."""

    bench: Workbench
    asset: Asset
    planned: PlannedStep
    request: Request
    run_id: str
    started_at: datetime
    session: Session
    state: State
    token: int  # of the lease
    attempt: int = 1
    version_token: str = ""
    aside: dict[str, str] = field(default_factory=dict)  # landing files set aside by earlier tries
    landing: landing.Landing = field(default_factory=landing.Landing)
    select: str = ""  # what is built, as one SELECT
    existing: dict[str, str] = field(default_factory=dict)  # columns that stand: name -> type
    change: evolve.Change = field(default_factory=lambda: evolve.Change())
    staged: Staged | None = None
    rejects: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    kept_out: Staged | None = None  # rows for the quarantine
    n_kept_out: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def head(self) -> Entry | None:
        return self.state.heads.get(self.asset.name)

    @property
    def incremental(self) -> bool:
        return self.planned.mode == "incremental"

    @property
    def root(self) -> Path:
        return self.bench.root

    @property
    def replaced_files(self) -> tuple[str, ...]:
        """Files whose earlier rows this step replaces."""
        remembered = {file.file for file in self.state.landing.get(self.asset.name, ())}
        return tuple(file for file in self.landing.files if file in remembered)

    def folder(self, what: str) -> Path:
        return attempt_folder(self.bench.lake.storage, self.asset.name, self.run_id, f"{self.token}.{self.attempt}{what}")


class _Bindings:
    """What the template functions mean while an asset is built."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def ref(self, name: str) -> str:
        if name not in self.work.state.standing:
            raise RequestError(
                f"{self.work.asset.name} reads {name}, which was never built",
                where=self.work.asset.path,
                next=f"rat run +{self.work.asset.name}",
            )
        return table(name)

    def source(self, source: Source) -> str:
        return _relation(self.work, source)

    def this(self) -> str:
        return table(self.work.asset.name)

    def is_incremental(self) -> bool:
        return self.work.incremental

    def watermark(self, column: str) -> str:
        return literal(_watermark(self.work, column))


def render(work: Work) -> None:
    """The asset's file as one SELECT, with its landing files looked at. Python assets render in `build`."""
    work.existing = _existing_columns(work)
    if work.asset.sources:
        _look_at_files(work)
    if work.asset.kind == "sql":
        work.select = files.render(work.bench.project, work.asset.name, _Bindings(work)).sql
    elif work.asset.kind == "seed":
        from .seeds import seed_select

        work.select = seed_select(work.session, work.root, work.asset)


def build(work: Work) -> None:
    """Run it: the candidate's rows as staged files."""
    if work.asset.kind == "python":
        _build_python(work)
    elif work.asset.materialize != "view":
        work.staged = _stage(work, work.select)
    else:
        _described(work, work.select)
    if work.asset.sources:
        _account_for_rows(work)


def gate(work: Work) -> None:
    """Ask every check; keep bad rows out or raise GateFailed."""
    quarantine.pass_gates(work)


def seal(work: Work) -> None:
    """fsync and checksum what will be registered."""
    data = work.bench.lake.storage.data
    if work.staged is not None:
        work.staged = make_durable(work.staged, data)
    if work.kept_out is not None:
        work.kept_out = make_durable(work.kept_out, data)


STAGES: tuple[Callable[[Work], None], ...] = (render, build, gate, seal)


def drop(work: Work) -> None:
    """Remove what an attempt staged and will not publish."""
    for staged in (work.staged, work.kept_out):
        if staged is not None:
            discard(staged)


def publication(work: Work, seconds: float, peak_memory_bytes: int) -> Publication:
    """The gated candidate, ready for a commit."""
    asset, head = work.asset, work.head
    how = "view" if asset.materialize == "view" else asset.materialize if work.incremental else "replace"
    inputs = input_versions(work.bench.project, asset.name, work.state.heads)
    from .records import as_json

    entry = Entry(
        asset=asset.name,
        run_id=work.run_id,
        materialize=asset.materialize,
        mode=work.planned.mode,
        fingerprint=fingerprint(asset, inputs, work.version_token),
        code_hash=asset.code_hash,
        text_hash=asset.text_hash,
        token=work.version_token,
        base_version=head.version if head else 0,
        inputs=inputs,
        checks=tuple(as_json(verdict.result) for verdict in work.verdicts),
        rows_in=rows_in(work),
        rows_quarantined=work.n_kept_out,
        rows_rejected=len(work.rejects),
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes,
        published_by=_user(),
    )
    return Publication(
        entry=entry,
        how="replace" if how == "table" else how,
        token=work.token,
        columns=_final_columns(work),
        staged=work.staged,
        view_sql=work.select if how == "view" else "",
        unique_key=asset.unique_key,
        add=work.change.add,
        drop=work.change.drop,
        replaced_files=work.replaced_files if work.incremental else (),
        landing=_memory(work) if asset.sources else None,
        quarantine=work.kept_out,
        clear_quarantine=bool(head and (head.rows_quarantined or head.rows_rejected or work.replaced_files)),
        comment=asset.description,
        column_comments={column.name: column.description for column in asset.columns},
        was=work.state.standing.get(asset.name, ""),
    )


def rows_in(work: Work) -> int:
    """Rows read: records of landing files, else the rows that the query gave before gates."""
    if work.asset.sources:
        return sum(file.rows_read + file.rejects for file in work.landing.files.values())
    return (work.staged.rows if work.staged else 0) + work.n_kept_out


# Landing files


def _look_at_files(work: Work) -> None:
    project, asset = work.bench.project, work.asset
    stock = stock_of(project, asset, work.state)
    if not work.incremental and stock.gone and not work.request.accept_loss:
        more = f" and {len(stock.gone) - 5} more" if len(stock.gone) > 5 else ""
        raise RequestError(
            f"{asset.name}: a rebuild would lose the rows of {len(stock.gone)} landing file(s) that are gone",
            where=", ".join(stock.gone[:5]) + more,
            next=f"put them back, or let the rows go: rat run {asset.name} -f --accept-loss",
        )
    for source in asset.sources:
        wanted = stock.to_read if work.incremental else stock.all
        for file in landing.matching_files(work.root, source.glob):
            if file not in wanted or file in work.aside or file in work.landing.files:
                continue
            try:
                work.landing.files[file] = landing.inspect(work.root, file, source)
            except ValueError as error:
                work.aside[file] = str(error)
    missing = _without_declared_columns(work)
    if missing:
        raise UnreadableFiles(missing)


def _without_declared_columns(work: Work) -> dict[str, str]:
    missing = {}
    for file in work.landing.files.values():
        have = {name.lower() for name in file.header}
        lacking = [name for name, _ in file.source.columns if name.lower() not in have] if file.header else []
        if lacking:
            missing[file.file] = f"its header has no column {', '.join(lacking)}"
    return missing


def _relation(work: Work, source: Source) -> str:
    mine = [file for file, one in work.landing.files.items() if one.source.glob == source.glob]
    stamp = (work.run_id, work.started_at)
    try:
        return landing.relation(work.session, work.root, work.landing, source, mine, work.existing, stamp)
    except QueryFailed as error:
        raise _blame_files(work, error) from error


def _blame_files(work: Work, error: RatError) -> Exception:
    """Which landing files made a read fail; the error itself if none did."""
    reasons = {}
    with work.bench.lake.session(work.session.doing) as session:
        for file, one in work.landing.files.items():
            alone = landing.Landing(files={file: one})
            try:
                stamp = (work.run_id, work.started_at)
                select = landing.relation(session, work.root, alone, one.source, [file], work.existing, stamp)
                session.execute(f"select count(columns(*)) from {select}").fetchall()
            except QueryFailed as failed:
                reasons[file] = failed.message.replace(f"{work.root}/", "")
    return UnreadableFiles(reasons) if reasons else error


def _account_for_rows(work: Work) -> None:
    """rows in = rows read + rejects, file by file; a file for which that is not so is set aside."""
    work.rejects = landing.collect_rejects(work.session, work.root, work.landing)
    read = _rows_by_file(work)
    lost = landing.unaccounted(work.root, work.landing, read)
    share = work.asset.max_quarantine
    for file, one in work.landing.files.items():
        total = one.rows_read + one.rejects
        if one.rejects and one.rejects > share * total:
            reason = next(r["reason"] for r in work.rejects if r["file"] == file)
            lost[file] = f"{one.rejects} of {total} rows cannot be read, more than {share:.0%}: {reason}"
    landing.forget_rejects(work.session, work.landing)
    if lost:
        raise UnreadableFiles(lost)


def _rows_by_file(work: Work) -> dict[str, int]:
    """Rows of each file that reached the candidate; where the query dropped some, rows that were read."""
    assert work.staged is not None
    if any(name == "_file" for name, _ in work.staged.columns):
        found = dict(work.session.rows(f"select _file, count(*) from ({work.staged.relation}) group by all"))
        if all(one.records in (None, found.get(f, 0) + one.rejects) for f, one in work.landing.files.items()):
            return found
    found = {}
    with work.bench.lake.session(work.session.doing) as session:
        for source in work.asset.sources:
            mine = [f for f, one in work.landing.files.items() if one.source.glob == source.glob]
            aside = landing.Landing(files={f: work.landing.files[f] for f in mine})
            stamp = (work.run_id, work.started_at)
            select = landing.relation(session, work.root, aside, source, mine, work.existing, stamp)
            # count(columns(*)) reads every column, so the same rows are rejected as in the build.
            counted = f"select _file, count(*), count(columns(* exclude _file)) from {select} group by _file"
            found |= {row[0]: row[1] for row in session.rows(counted)}
    return found


def _memory(work: Work) -> tuple[Any, ...]:
    from ..lake import LandingFile

    return tuple(
        LandingFile(
            asset=work.asset.name,
            file=one.file,
            bytes=one.bytes,
            modified_ns=one.modified_ns,
            sha256=one.sha256,
            rows_in=one.rows_read + one.rejects,
            rows_rejected=one.rejects,
            run_id=work.run_id,
        )
        for one in work.landing.files.values()
    )


# Building


def _build_python(work: Work) -> None:
    said = context.Context(
        work.asset,
        work.session,
        work.run_id,
        incremental=work.incremental,
        read_source=lambda name: _relation(work, _source_named(work, name)),
        watermark=lambda column: _watermark(work, column),
        variables=work.bench.project.workspace.vars,
        environment=_environment(work),
    )
    returned = context.call_build(work.root, work.asset, said)
    if context.is_batches(returned):
        try:
            selects = context.batches(work.session, returned)
            work.staged = stage_batches(work.session, selects, work.asset.name, work.folder(""))
        except RatError:
            raise
        except Exception as error:
            raise context.python_error(error, work.root, work.asset, "build() failed") from error
        _check_columns(work, work.staged.columns)
        return
    work.staged = _stage(work, context.select_over(work.session, returned, f"built_{work.run_id}_{work.token}"))


def _source_named(work: Work, name: str) -> Source:
    return next((s for s in work.asset.sources if name in (s.glob, s.name)), work.asset.sources[0])


def _environment(work: Work) -> dict[str, str]:
    import os

    return {name: os.environ[name] for name in work.bench.project.workspace.env if name in os.environ}


def _stage(work: Work, select: str) -> Staged:
    select = _described(work, select)
    if work.asset.deduplicate:
        select = _first_of_each_key(work.asset, select)
    try:
        return stage(work.session, select, work.asset.name, work.folder(""))
    except QueryFailed as error:
        raise _blame_files(work, error) if work.landing.files else _point_at(work, error) from error


def _described(work: Work, select: str) -> str:
    """`select` in the types that the sidecar and the standing table ask for; checks the change of columns."""
    try:
        columns = work.session.describe(select)
    except QueryFailed as error:
        raise _point_at(work, error) from error
    wanted = evolve.wanted_types(work.asset, columns, work.existing if work.incremental else {})
    _check_columns(work, tuple(wanted.items()))
    if wanted == dict(columns):
        return select
    casts = ", ".join(
        ident(n) if wanted[n] == kind else f"cast({ident(n)} as {wanted[n]}) as {ident(n)}" for n, kind in columns
    )
    return f"select {casts} from (\n{select}\n)"


def _check_columns(work: Work, columns: tuple[tuple[str, str], ...]) -> None:
    asset, names = work.asset, {name.lower() for name, _ in columns}
    needed = [*asset.unique_key, *(c.name for c in asset.columns if c.type), *(c for k in asset.checks for c in k.columns)]
    if asset.sources and asset.materialize in ("append", "merge"):
        needed.append("_file")
    for name in needed:
        if name.lower() not in names:
            raise evolve.missing_column(asset, name, names)
    if asset.materialize != "view":
        work.change = evolve.column_change(asset, work.existing, columns, work.incremental, work.request.accept_schema)


def _first_of_each_key(asset: Asset, select: str) -> str:
    return (
        f"select * from (\n{select}\n) qualify row_number() over"
        f" (partition by {idents(asset.unique_key)} order by {asset.deduplicate}) = 1"
    )


def _point_at(work: Work, error: QueryFailed) -> RatError:
    """The same error at the line of the asset's file, where it can be found there."""
    from ..errors import underline

    where = work.asset.path
    shown = error.where.splitlines()[1].strip() if "\n" in error.where else ""
    if shown and work.asset.kind == "sql":
        lines = (work.root / work.asset.path).read_text(errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            if line.strip() and line.strip() == shown.removeprefix("...").removesuffix("..."):
                column = line.index(line.strip()) + max(1, error.column)
                where = underline(work.asset.path, number, column, 1, line)
                break
        else:
            where = f"{work.asset.path}, {error.where}"
    return StepFailed(
        f"{work.asset.name}: {error.message}", where=where, next=f"mend the file, then: rat run {work.asset.name}"
    )


def _existing_columns(work: Work) -> dict[str, str]:
    if work.state.standing.get(work.asset.name) != "table":
        return {}
    return dict(table_columns(work.session, work.asset.name))


def _final_columns(work: Work) -> tuple[tuple[str, str], ...]:
    if work.asset.materialize == "view":
        return work.session.describe(work.select)
    assert work.staged is not None
    if not work.incremental:
        return work.staged.columns
    return tuple((work.existing | dict(work.staged.columns)).items())


def _watermark(work: Work, column: str) -> Any:
    """The largest value of `column` in the current version."""
    known = {name.lower() for name in work.existing}
    if column.lower() not in known:
        raise RequestError(
            f"{work.asset.name}: watermark('{column}'): its table has no such column",
            where=work.asset.path,
            next=f"keep {column} in the select, then: rat run {work.asset.name} -f",
        )
    value = work.session.value(f"select max({ident(column)}) from {table(work.asset.name)}")
    if value is None:
        raise StepFailed(
            f"{work.asset.name}: watermark('{column}'): all its values are null",
            where=work.asset.path,
            next=f"choose another column, or rebuild: rat run {work.asset.name} -f",
        )
    return value


def others(work: Work) -> str:
    """The rows of the published table that stay, as a SELECT; '' for a full build."""
    if not work.incremental:
        return ""
    assert work.staged is not None
    goes = []
    if work.replaced_files:
        goes.append(f'"_file" in ({", ".join(literal(file) for file in work.replaced_files)})')
    if work.asset.materialize == "merge" and work.staged.files:
        goes.append(f"({idents(work.asset.unique_key)}) in (select {idents(work.asset.unique_key)} from ({work.staged.relation}))")
    stays = " and ".join(f"not coalesce({gone}, false)" for gone in goes) or "true"
    return f"select * from {table(work.asset.name)} where {stays}"


def candidate(work: Work) -> Candidate:
    """What gates look at; see docs/decisions on gating the candidate instead of the transaction."""
    if work.staged is None:
        return Candidate(delta=work.select, whole=work.select)
    stay = others(work)
    whole = f"{stay} union all by name {work.staged.relation}" if stay else work.staged.relation
    return Candidate(work.staged.relation, whole, stay, work.staged)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


__all__ = ["ORIGIN_COLUMNS", "STAGES", "UnreadableFiles", "Work", "candidate", "drop", "publication"]
