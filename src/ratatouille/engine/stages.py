"""One asset, from its file to a candidate that may be published.

STAGES = (render, build, gate, seal): each takes the `Work` and adds to it. Publishing comes after, by the run,
because several candidates share one commit. Whatever a stage raises, nothing is visible and what was staged is
removed.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable
from dataclasses import replace

from ratatouille.engine import intake, measured, modes
from ratatouille.engine.build import build, render
from ratatouille.engine.plan import fingerprint, input_versions, reads
from ratatouille.engine.quarantine import gate
from ratatouille.engine.records import as_json
from ratatouille.engine.work import Work, table_read
from ratatouille.lake import Entry, Publication, discard
from ratatouille.lake import seal as make_durable
from ratatouille.project.modes import stores_rows


def seal(work: Work) -> None:
    """fsync and checksum what will be registered."""
    data = work.bench.lake.storage.data
    work.facts = measured.columns_of(work)
    if work.staged is not None:
        work.staged = make_durable(work.staged, data)
    if work.kept_out is not None:
        work.kept_out = make_durable(work.kept_out, data)


def timed(stage: Callable[[Work], None], work: Work) -> None:
    began = time.monotonic()
    stage(work)
    work.stage_s[stage.__name__] = time.monotonic() - began


STAGES: tuple[Callable[[Work], None], ...] = (render, build, gate, seal)


def drop(work: Work) -> None:
    """Remove what an attempt staged and will not publish."""
    for staged in (work.staged, work.kept_out, work.gone):
        if staged is not None:
            discard(staged)


def publication(work: Work, seconds: float, peak_memory_bytes: int, *, recreate: bool = False) -> Publication:
    """The gated candidate, ready for a commit."""
    asset, head = work.asset, work.head
    goes = modes.leaving(work)
    how = "view" if not stores_rows(asset) else "merge" if goes.key else "append" if work.incremental else "replace"
    inputs = input_versions(work.bench.project, asset.name, work.state.inputs)
    mark = fingerprint(asset, inputs, work.version_token)
    entry = Entry(
        asset=asset.name,
        run_id=work.run_id,
        materialize=asset.materialize,
        mode=work.planned.mode,
        fingerprint=mark,
        code_hash=asset.code_hash,
        text_hash=asset.text_hash,
        token=work.version_token,
        base_version=head.version if head else 0,
        inputs=inputs,
        checks=tuple(as_json(verdict.result) for verdict in work.verdicts),
        partitions=modes.partitions_of(work, mark),
        rows_in=rows_in(work),
        rows_quarantined=work.n_kept_out,
        rows_rejected=len(work.rejects),
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes,
        measured=measured.measured(work, seconds),
        published_by=user(),
    )
    return Publication(
        entry=entry if work.partition is None else _as_a_part(entry, head),
        how=how,
        token=work.token,
        columns=_final_columns(work),
        staged=work.staged,
        view_sql=work.select if how == "view" else "",
        unique_key=goes.key,
        goes=goes.where,
        layout=work.layout,
        add=work.change.add,
        drop=work.change.drop,
        replaced_files=work.replaced_files if work.incremental else (),
        landing=intake.memory(work) if asset.sources else None,
        quarantine=work.kept_out,
        forget_quarantine=modes.quarantine_goes(work) if head else "",
        comment=asset.description,
        column_comments={column.name: column.description for column in asset.columns},
        recreate=recreate,
        was=work.state.standing.get(asset.name, ""),
    )


def _as_a_part(entry: Entry, head: Entry | None) -> Entry:
    """The entry of one partition: whether the other ones are fresh is as it was."""
    if head is None:
        return replace(entry, fingerprint="", code_hash="", inputs={})
    return replace(entry, fingerprint=head.fingerprint, code_hash=head.code_hash, inputs=head.inputs, token=head.token)


def rows_in(work: Work) -> int:
    """Rows read: records of landing files, rows of the inputs, else what the query gave before gates."""
    if work.rows_seen is not None:
        return work.rows_seen
    if work.asset.sources:
        return sum(file.rows_read + file.rejects for file in work.landing.files.values())
    if work.incremental or work.asset.kind != "sql" or not work.asset.depends_on:
        return (work.staged.rows if work.staged else 0) + work.n_kept_out
    # An asset that only a check looks up is no input of the rows.
    project, heads = work.bench.project, work.state.inputs
    direct = [name for name in work.asset.depends_on if table_read(work.state, name) in work.select]
    read = {name for one in direct for name in ((one,) if heads[one].materialize != "view" else reads(project, one))}
    return sum(heads[name].rows_total for name in read if name in heads)


def _final_columns(work: Work) -> tuple[tuple[str, str], ...]:
    if not stores_rows(work.asset):
        return work.session.describe(work.select)
    if not work.incremental:
        return work.built.columns
    return tuple((work.existing | dict(work.built.columns)).items())


def user() -> str:

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
