"""Rendering and building: from an asset's file to staged rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ratatouille import project as files
from ratatouille.engine import chunks, context, evolve, fitting, intake, modes
from ratatouille.engine.changes import changes_of
from ratatouille.engine.work import Work, table_read, watermark
from ratatouille.errors import RatError, RequestError, StepFailed, TransientError, underline
from ratatouille.lake import (
    Checkpoint,
    External,
    Layout,
    QueryFailed,
    Session,
    Staged,
    attached_table,
    discard,
    stage,
    stage_chunks,
    table_columns,
)
from ratatouille.lake.quoting import ident, table, text
from ratatouille.lake.types import Columns
from ratatouille.project.modes import stores_rows
from ratatouille.project.records import Asset, Source


class Bindings:
    """What the template functions mean while an asset is built. An error of theirs outlives the template's own."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.failed: Exception | None = None

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failed = error
            raise

    def ref(self, name: str) -> str:
        with self._remembering():
            return _input(self.work, name)

    def source(self, source: Source) -> str:
        with self._remembering():
            return read_source(self.work, source)

    def this(self) -> str:
        return table(self.work.asset.name)

    def is_incremental(self) -> bool:
        return self.work.planned.mode == "incremental"

    def watermark(self, column: str) -> str:
        with self._remembering():
            value, kind = watermark(self.work, column)
        return f"{text(value)}::{kind}"

    def changes(self, name: str) -> str:
        with self._remembering():
            return _changes(self.work, name)


def _input(work: Work, name: str) -> str:
    """The table of an input. RequestError if it was never built."""
    if name not in work.state.standing and name not in work.state.borrowed:
        raise RequestError(
            f"{work.asset.name} reads {name}, which was never built",
            where=work.asset.path,
            next=f"rat run {name if name in work.bench.project.natives else '+' + work.asset.name}",
        )
    return table_read(work.state, name)


def _changes(work: Work, name: str) -> str:
    _input(work, name)
    return changes_of(work, name)


def render(work: Work) -> None:
    """The asset's file as one SELECT, with its landing files looked at. Python assets render in `build`."""
    work.existing = _existing_columns(work)
    if work.asset.sources:
        intake.look_at_files(work)
    if work.asset.kind == "sql":
        bindings = Bindings(work)
        try:
            work.select = files.render(
                work.bench.project, work.asset.name, bindings, is_select=work.session.is_select
            ).sql
        except RequestError:
            if bindings.failed is not None:
                raise bindings.failed from None
            raise
    elif work.asset.kind == "seed":
        from ratatouille.engine.seeds import seed_select

        work.select = seed_select(work.session, work.root, work.asset)


def build(work: Work) -> None:
    """Run it: the candidate's rows as staged files."""
    try:
        if work.asset.kind == "python":
            _build_python(work)
        elif stores_rows(work.asset):
            work.staged = _stage(work, work.select)
        else:
            described(work, work.select)
    except TransientError as error:
        raise _of_a_database(work, error) from error
    modes.refuse_loss(work)
    if work.asset.sources:
        intake.account_for_rows(work)


def _build_python(work: Work) -> None:
    parts = chunks.Chunks(work)
    work.checkpoint = parts.checkpoint
    given = _context(work, parts)
    returned = context.call_build(work.root, work.asset, given)
    if not context.is_batches(returned):
        try:
            select = context.select_over(work.session, returned, f"built_{work.run_id}_{work.asset.name}_{work.token}")
        except RatError:
            raise
        except Exception as error:
            raise context.python_error(error, work.root, work.asset, "what build() returned is no table") from error
        work.staged = _stage(work, select)
        return
    work.staged = _stage_batches(work, parts, given, returned)
    if parts.checkpoint.taken_over and parts.checkpoint.needs_all:
        work.tell("build", "build() gives rows beside its chunks, so it begins with the first one again")
        discard(work.staged)
        parts.checkpoint.start_over()
        parts = chunks.Chunks(work)
        given = _context(work, parts)
        work.staged = _stage_batches(work, parts, given, context.call_build(work.root, work.asset, given))
    if not modes.reshapes(work) or work.staged.partitioned:
        _check_columns(work, work.staged.columns)
        return
    rows = work.staged
    try:
        work.staged = _stage(work, rows.relation, "s")
    finally:
        discard(rows)


def _stage_batches(work: Work, parts: chunks.Chunks, given: context.Context, returned: Any) -> Staged:
    """What a generator gives, one file each."""
    parts.keeps = True
    checkpoint = parts.checkpoint
    frames = chunks.refuse_when_full(work.gauge, work.asset.name, returned)
    try:
        # Beside the pinned session: a transaction that is open keeps every frame it has seen.
        with work.bench.lake.session(work.session.doing) as beside:
            wanted = partial(_types_of_batches, work, beside, checkpoint)
            selects = context.batches(beside, frames, work.asset, wanted, given.as_asked)
            layout = Layout() if modes.changes_rows(work) else work.layout
            if layout.partition_by:
                selects = ((on, _without_reserved_folders(work.asset, one, on.describe(one))) for on, one in selects)
            return stage_chunks(selects, work.asset.name, work.folder(""), checkpoint, layout)
    except QueryFailed as error:
        unfit = fitting.UNFIT in error.message
        raise chunks.with_kept(_unfit(work, error) if unfit else error, checkpoint.kept) from error
    except RatError as error:
        raise chunks.with_kept(error, checkpoint.kept) from error
    except Exception as error:
        failed = context.python_error(error, work.root, work.asset, "build() failed")
        raise chunks.with_kept(failed, checkpoint.kept) from error


def _types_of_batches(work: Work, session: Session, checkpoint: Checkpoint, columns: Columns) -> dict[str, str]:
    """What all batches get: the types of finished chunks, else those of any result."""
    return dict(checkpoint.columns) if checkpoint.columns else _wanted_types(work, session, columns)


def _wanted_types(work: Work, session: Session, columns: Columns) -> dict[str, str]:
    """The types that the sidecar and the standing table ask for, as DuckDB spells them."""
    wanted = evolve.wanted_types(work.asset, columns, work.existing if work.incremental else {})
    return fitting.spelled(session, columns, wanted)


def _context(work: Work, parts: chunks.Chunks) -> context.Context:
    return context.Context(
        work.asset,
        work.session,
        work.run_id,
        incremental=work.planned.mode == "incremental",
        partition=work.partition.label if work.partition else None,
        read_source=lambda name: read_source(work, _source_named(work, name)),
        watermark=lambda column: _watermark_value(work, column),
        changes=partial(_changes, work),
        named=partial(_input, work),
        variables=work.bench.project.workspace.vars,
        environment=_environment(work),
        chunks=parts.over,
        continues=_continues(work),
        stands=work.asset.name in work.state.standing,
        stands_for=partial(setattr, work, "version_token"),
        empty=partial(_empty, work) if work.asset.materialize == "partition" else None,
    )


def _continues(work: Work) -> bool:
    """Whether what stands is this code's own work, which nobody has asked to throw away."""
    anew = work.planned.rule in ("new", "forced", "released", "incomplete")
    same = work.head is not None and work.head.code_hash == work.asset.code_hash
    return bool(work.existing) and same and not anew


def _empty(work: Work, partitions: Sequence[str]) -> None:
    work.emptied = tuple(dict.fromkeys((*work.emptied, *partitions)))


def _source_named(work: Work, name: str) -> Source:
    workspace = work.bench.project.workspace
    mine = {said: source for source in work.asset.sources for said in (source.glob, source.name)}
    return files.find_source(name, {**workspace.sources, **mine}, workspace.databases)


def read_source(work: Work, source: Source) -> str:
    """A relation: landing files that are new, or a table of a database."""
    if not source.table:
        return intake.relation(work, source)
    if source.name in work.stand_ins:
        return work.stand_ins[source.name]
    workspace = work.bench.project.workspace
    said = workspace.databases[source.table[0]]
    path = str(work.root / said.path) if said.path else ""
    external = External(said.name, said.type, path, said.host, said.port, said.database, said.user, said.password_env)
    return attached_table(work.bench.lake, external, source.table[1:])


def _environment(work: Work) -> dict[str, str]:
    return {name: os.environ[name] for name in work.bench.project.workspace.env if name in os.environ}


def _stage(work: Work, select: str, beside: str = "") -> Staged:
    select, columns = described(work, select)
    try:
        select = modes.shaped(work, select, columns)
        select = _without_reserved_folders(work.asset, select, columns)
        columns = modes.columns_of(work.asset, columns)
        return stage(work.session, select, work.asset.name, work.folder(beside), columns, work.layout)
    except QueryFailed as error:
        if fitting.UNFIT in error.message:
            raise _unfit(work, error) from error
        raise intake.blame_files(work, error) if work.landing.files else _point_at(work, error) from error


_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # how the folder of a partition without a value is called


def _without_reserved_folders(asset: Asset, select: str, columns: Columns) -> str:
    """`select` that fails at a partition whose folder would be read as that of null."""
    texts = {name.lower() for name, kind in columns if kind == "VARCHAR"} & {n.lower() for n in asset.partition_by}
    if not texts:
        return select
    said = fitting.misfit
    checked = ", ".join(
        f"case when {ident(name)} = {text(_NO_VALUE)} then error({said(name, ident(name), 'null', 'a partition')})"
        f" else {ident(name)} end as {ident(name)}"
        for name, _ in columns
        if name.lower() in texts
    )
    return f"select * replace ({checked}) from (\n{select}\n)"


def _of_a_database(work: Work, error: TransientError) -> TransientError:
    """A database that is read may be locked by the program that writes it; the lake would say so by itself."""
    names = ", ".join(dict.fromkeys(name.partition(".")[0] for name in work.asset.tables))
    if not names or "locked" not in error.what:
        return error
    return TransientError(
        f"{work.asset.name}: another program has locked the database {names}",
        where=f"workspace.yaml: databases.{names}",
        next=f"let it finish, then: rat run {work.asset.name}",
    )


def _unfit(work: Work, error: QueryFailed) -> StepFailed:
    asset = work.asset
    cure = "say in the query what shall become of it, like round(x, 2) or cast(x as ...)"
    if asset.kind != "sql":
        cure = "mend the file, or declare another type"
    return StepFailed(
        f"{asset.name}: {error.message.removeprefix('Invalid Input Error: ')}",
        where=asset.sidecar or asset.path,
        next=f"{cure}, then: rat run {asset.name}",
    )


def described(work: Work, select: str) -> tuple[str, Columns]:
    """`select` in the types that the sidecar and the standing table ask for, and those; checks their change."""
    try:
        columns = work.session.describe(select)
    except QueryFailed as error:
        raise _point_at(work, error) from error
    select, columns = _with_absent(work, select, columns)
    wanted = _wanted_types(work, work.session, columns)
    _check_columns(work, modes.columns_of(work.asset, tuple(wanted.items())))
    return fitting.strictly(select, columns, wanted, work.asset.hidden), tuple(wanted.items())


def _with_absent(work: Work, select: str, columns: Columns) -> tuple[str, Columns]:
    """With nulls for columns that earlier files had and these do not, where files may differ in that.

    They may in JSON, and in what is not declared where something is: a declared column that is absent has set its file
    aside by now. Without declared columns the first CSV file is the contract, and a column that goes stops the step.
    """
    sources = work.asset.sources
    if not work.incremental or not sources or not all(s.columns or s.format == "json" for s in sources):
        return select, columns
    have = {name.lower() for name, _ in columns}
    absent = [(name, kind) for name, kind in work.existing.items() if name.lower() not in have]
    nulls = "".join(f", cast(null as {kind}) as {ident(name)}" for name, kind in absent)
    return (f"select *{nulls} from (\n{select}\n)", (*columns, *absent)) if absent else (select, columns)


def _check_columns(work: Work, columns: tuple[tuple[str, str], ...]) -> None:
    asset, names = work.asset, {name.lower() for name, _ in columns}
    needed = [
        *asset.unique_key,
        *asset.partition_by,
        *asset.sort_by,
        *(c.name for c in asset.columns if c.type),
        *(c for k in asset.checks for c in k.columns),
    ]
    if asset.sources and asset.materialize in ("append", "merge"):
        needed.append("_file")
    for name in needed:
        if name.lower() not in names:
            raise evolve.missing_column(asset, name, names)
    if stores_rows(asset):
        work.change = evolve.column_change(asset, work.existing, columns, work.incremental, work.request.accept_schema)
        drifted = ", ".join(f"{name} ({kind})" for name, kind in work.change.add)
        said = f"its files have new columns, which the table has now: {drifted}"
        if drifted and asset.sources and work.incremental and said not in work.warnings:
            work.warnings.append(said)


def _point_at(work: Work, error: QueryFailed) -> RatError:
    """The same error with the place in the asset's file, where the line of the SQL can be found there."""
    where = work.asset.path
    _, _, shown = error.where.partition("\n")
    if shown and work.asset.kind == "sql":
        words = shown.splitlines()[0].strip().removeprefix("...").removesuffix("...").strip()
        lines = (work.root / work.asset.path).read_text(errors="replace").splitlines()
        found = next((n for n, line in enumerate(lines) if words and words in line), None)
        if found is None:
            where = f"{work.asset.path}, rendered:\n{shown}"
        else:
            column = lines[found].index(words) + 1
            where = underline(work.asset.path, found + 1, column, len(words), lines[found])
    return StepFailed(
        f"{work.asset.name}: {error.message}", where=where, next=f"mend the file, then: rat run {work.asset.name}"
    )


def _existing_columns(work: Work) -> dict[str, str]:
    if work.state.standing.get(work.asset.name) != "table":
        return {}
    return dict(table_columns(work.session, work.asset.name))


def _watermark_value(work: Work, column: str) -> Any:
    """The watermark as Python has it: times with a zone come from text, DuckDB would ask for pytz."""
    from datetime import datetime

    value, kind = watermark(work, column)
    if kind == "TIMESTAMP WITH TIME ZONE":
        return datetime.fromisoformat(value)
    return work.session.value(f"select {text(value)}::{kind}")
