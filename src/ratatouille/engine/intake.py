"""Landing files of one step: which ones to read, as what SQL, and where every row went."""

from __future__ import annotations

from collections.abc import Sequence

from ratatouille.engine import landing
from ratatouille.engine.plan import stock_of
from ratatouille.engine.work import UnreadableFiles, Work
from ratatouille.errors import RatError, RequestError, nearest
from ratatouille.lake import LandingFile, QueryFailed
from ratatouille.project.records import Source
from ratatouille.project.sources import names_in_files, spelling


def look_at_files(work: Work) -> None:
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
        source = file.source
        wanted = [name for name, _ in source.columns if name not in source.optional]
        names: Sequence[str] = file.header
        said = "its header has no column"
        if source.format == "parquet":
            names = landing.columns_of(work.session, work.root, file) if wanted else ()
            said = "it has no column"
        elif source.format == "json":
            names = landing.fields_of(work.session, work.root, file, wanted) if wanted else ()
            said = "no row of it has the field"
        reason = _misnamed(source, names, wanted, said) if names else ""
        if reason:
            missing[file.file] = reason
    return missing


def _misnamed(source: Source, names: Sequence[str], wanted: Sequence[str], said: str) -> str:
    """Why a file with columns of these names cannot be read as `source`; '' when it can."""
    known = names_in_files(source)
    meant = {name: known.get(spelling(source, name)) for name in names}
    there = [name for name in meant.values() if name]
    twice = next((name for name in there if there.count(name) > 1), None) if source.format != "json" else None
    if twice:
        return f"{' and '.join(name for name in names if meant[name] == twice)} are both {twice}"
    lacking = [name for name in wanted if name not in there]
    if not lacking:
        return ""
    other = {spelling(source, name): name for name, column in meant.items() if not column}
    hint = next((f" ({other[close]} may be meant)" for name in lacking if (close := nearest(name, other))), "")
    return f"{said} {', '.join(lacking)}{hint}"


def relation(work: Work, source: Source) -> str:
    mine = [file for file, one in work.landing.files.items() if one.source.glob == source.glob]
    stamp = (work.run_id, work.started_at)
    anew = work.request.accept_schema and not work.incremental
    try:
        select = landing.relation(
            work.session, work.root, work.landing, source, mine, {} if anew else work.existing, stamp
        )
    except QueryFailed as error:
        raise blame_files(work, error) from error
    _say_what_is_not_read(work)
    return select


def _say_what_is_not_read(work: Work) -> None:
    if not (unread := work.landing.unread):
        return
    fields = ", ".join(f"{name} ({kind})" for name, kind in unread.items())
    said = (
        f"its files have fields that their columns have no place for, so they were not read: {fields};"
        f" declare them, or take them in with: rat run {work.asset.name} -f --accept-schema"
    )
    if said not in work.warnings:
        work.warnings.append(said)


def blame_files(work: Work, error: RatError) -> Exception:
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


def account_for_rows(work: Work) -> None:
    """rows in = rows read + rejects, file by file; a file for which that is not so is set aside."""
    share = work.asset.max_quarantine
    work.rejects = landing.collect_rejects(work.session, work.root, work.landing)
    if landing.has_misfits(work.session, work.landing):
        work.rejects += landing.collect_misfits(work.session, work.root, work.landing, share)
        work.landing.parts.clear()
    read = _rows_by_file(work)
    lost = landing.unaccounted(work.root, work.landing, read)
    for file, one in work.landing.files.items():
        total = one.rows_read + one.rejects
        if one.rejects and one.rejects > share * total:
            reason = next(r["reason"] for r in work.rejects if r["file"] == file)
            lost[file] = f"{one.rejects} of {total} rows cannot be read, more than {share:.0%}: {reason}"
    landing.forget_rejects(work.session, work.landing)
    if lost:
        raise UnreadableFiles(lost)


def _rows_by_file(work: Work) -> dict[str, int]:
    """Rows of each file that reached the candidate; where the query dropped some, rows that were read.

    A candidate with as many rows as the files have records lost none: no need to ask for each file.
    """
    landing.count_from_footers(work.session, work.root, work.landing)
    records = [one.records for one in work.landing.files.values()]
    rejected = sum(one.rejects for one in work.landing.files.values())
    if None not in records and work.built.rows + rejected == sum(r or 0 for r in records):
        return {file: (one.records or 0) - one.rejects for file, one in work.landing.files.items()}
    if any(name == "_file" for name, _ in work.built.columns):
        found = dict(work.session.rows(f"select _file, count(*) from ({work.built.relation}) group by all"))
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
            if work.landing.parts and landing.has_misfits(session, aside):
                # The query has dropped them before anybody saw that they do not fit.
                aside.broken_lines = work.landing.broken_lines
                work.rejects += landing.collect_misfits(session, work.root, aside, work.asset.max_quarantine)
    return found


def read_before(work: Work) -> dict[str, str]:
    """The files of this step whose bytes were read before, and the run that first did."""
    known = work.state.landing.get(work.asset.name, ())
    now = {one.file: one.sha256 for one in work.landing.files.values()}
    return {one.file: one.run_id for one in known if now.get(one.file) == one.sha256}


def memory(work: Work) -> tuple[LandingFile, ...]:
    """What the asset will remember of the files that this step read."""
    first = read_before(work)
    return tuple(
        LandingFile(
            asset=work.asset.name,
            file=one.file,
            bytes=one.bytes,
            modified_ns=one.modified_ns,
            sha256=one.sha256,
            rows_in=one.rows_read + one.rejects,
            rows_rejected=one.rejects,
            run_id=first.get(one.file, work.run_id),
        )
        for one in work.landing.files.values()
    )
