"""Rows of landing files that cannot be read, and the proof that no other row is missing."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ratatouille.engine import fitting
from ratatouille.engine.landing import objects
from ratatouille.engine.landing.inspection import Inspection, blank_lines, careful_count
from ratatouille.engine.landing.reading import MISFITS, Column, Landing, Part, paths
from ratatouille.lake import Session
from ratatouille.lake.quoting import ident, text

_NUMBER, _REASON = '"_rat:number"', '"_rat:reason"'  # beside the columns of a file, whatever they are called


def collect_rejects(session: Session, root: Path, landing: Landing) -> list[dict[str, Any]]:
    """Every row that a CSV reader gave up on: {file, line, reason, row}. Counts them on their files."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    wanted = {column.name: column for part in landing.parts for column in part.columns}
    for table in landing.reject_tables:
        scans = table.replace("rejects_", "scans_")
        rows = session.rows(
            f"select file_path, line, error_message, column_name, csv_line, error_type <> 'CAST'"
            f" from {table} join {scans} using (scan_id, file_id) order by all"
        )
        for path, line, reason, name, raw, broken in rows:
            file = objects.name_of(root, path)
            one = found.setdefault(
                (file, line),
                {"file": file, "line": line, "reason": reason, "row": (raw or "").strip("\r\n"), "broken": False},
            )
            one["broken"] |= broken
            if one["reason"] == reason and name in wanted and not broken:
                one["reason"] = reason.replace("'DOUBLE'", f"'{wanted[name].want}'")
    for one in found.values():
        if one.pop("broken"):
            landing.broken_lines.setdefault(one["file"], []).append(one["line"])
    for inspection in landing.files.values():
        inspection.rejects = sum(1 for file, _ in found if file == inspection.file)
    return list(found.values())


# Misfits: rows with a value that does not fit its type


def has_misfits(session: Session, landing: Landing) -> bool:
    """Whether one streamed by in this session."""
    if not landing.parts:
        return False
    counted = f"select last_value from duckdb_sequences() where sequence_name = {text(MISFITS)} and temporary"
    return bool(session.value(counted))


def collect_misfits(session: Session, root: Path, landing: Landing, share: float) -> list[dict[str, Any]]:
    """Every misfit: {file, line, reason, row}; of a file that has more than `share` of them, only one.

    Counts them on their files. Reads the files again, those that have any in the order of their rows.
    """
    found = []
    for part in landing.parts:
        for path, count in session.rows(_counted(root, part)):
            one = landing.files[objects.name_of(root, path)]
            one.rejects += count
            most = 1 if one.records is not None and count > share * one.records else count
            found += list(_misfits(session, root, landing, part, one, most))
    return found


def _counted(root: Path, part: Part) -> str:
    rows = part.rows(paths(root, part.files), skip=True)
    return f"select _file, count(*) from ({rows}) where not coalesce({_all_fit(part.guarded)}, false) group by 1 order by 1"


def _all_fit(columns: Sequence[Column]) -> str:
    return " and ".join(column.fits for column in columns)


def _misfits(
    session: Session, root: Path, landing: Landing, part: Part, one: Inspection, most: int
) -> Iterator[dict[str, Any]]:
    select = (_of_csv if part.source.format == "csv" else _of_values)(root, part, one.file)
    rows = session.rows(f"select n, reason, row from ({select}) order by n, reason limit {most}")
    skipped: list[int] = []
    if part.source.format == "csv":
        skipped = sorted(
            {*landing.broken_lines.get(one.file, ()), *blank_lines(objects.path_of(root, one.file), part.source)}
        )
    ahead = 0
    for number, reason, row in rows:
        if number is not None and part.source.format == "csv":
            number += int(part.source.header)
            while ahead < len(skipped) and skipped[ahead] <= number + ahead:
                ahead += 1
            number += ahead
        yield {"file": one.file, "line": number, "reason": reason, "row": row}


def _of_csv(root: Path, part: Part, file: str) -> str:
    """The misfits of one file by the number of their row, as texts: in order, because one thread reads them."""
    read = part.reader.format(
        paths=paths(root, [file]), shape=part.text_shape, options="ignore_errors = true, parallel = false"
    )
    said = {column: ident(f"_said:{column.name}") for column in part.columns if column.is_read}
    texts = ", ".join(f"{column.read} as {name}" for column, name in said.items())
    typed, reasons, unread = [], [], []
    for column, name in said.items():
        raw = name if column.have == "VARCHAR" else f"try_cast({name} as {column.have})"
        if column.have != "VARCHAR":
            unread.append(f"({name} is not null and {raw} is null)")  # such a row is the reader's own reject
        fit = column.fitted(raw)
        if fit is not None:
            typed.append(f"{raw} as {column.raw}, {fit.value} as {ident(column.name)}")
            misfit = fitting.misfit(column.name, name, ident(column.name), column.want)
            reasons.append(f"when not coalesce({column.fits}, false) then {misfit}")
    line = f", {text(part.source.delimiter)}, ".join(_quoted(name, part) for name in said.values())
    return (
        f"select {_NUMBER} as n, {_REASON} as reason, concat({line}) as row"
        f" from (select *, case {' '.join(reasons)} end as {_REASON} from (select *, {', '.join(typed)}"
        f" from (select row_number() over () as {_NUMBER}, {texts} from {read}) where not ({' or '.join(unread) or 'false'})))"
        f" where {_REASON} is not null"
    )


def _quoted(value: str, part: Part) -> str:
    """A text as a CSV file holds it."""
    quote, delimiter = text(part.source.quote), text(part.source.delimiter)
    special = f"contains({value}, {quote}) or contains({value}, {delimiter}) or contains({value}, chr(10))"
    doubled = f"concat({quote}, replace({value}, {quote}, {text(part.source.quote * 2)}), {quote})"
    return f"case when {special} then {doubled} else coalesce({value}, '') end"


def _of_values(root: Path, part: Part, file: str) -> str:
    """The misfits of a file whose values have types of their own, each as a JSON object of what was read."""
    rows = part.rows(paths(root, [file]), more=f", {part.line or 'null'} as {_NUMBER}", skip=True)
    reasons = [
        f"when not coalesce({c.fits}, false) then {fitting.misfit(c.name, c.raw, ident(c.name), c.want)}"
        for c in part.guarded
    ]
    values = ", ".join(f"{ident(c.name)} := {c.raw if c.is_guarded else ident(c.name)}" for c in part.columns)
    return (
        f"select {_NUMBER} as n, {_REASON} as reason, to_json(struct_pack({values}))::varchar as row"
        f" from (select *, case {' '.join(reasons)} end as {_REASON} from ({rows})) where {_REASON} is not null"
    )


# The account


def forget_rejects(session: Session, landing: Landing) -> None:
    for table in landing.reject_tables:
        for name in (table, table.replace("rejects_", "scans_")):
            session.execute(f"drop table if exists {name}")
    session.execute(f"drop sequence if exists {MISFITS}")
    landing.reject_tables.clear()
    landing.parts.clear()


def count_from_footers(session: Session, root: Path, landing: Landing) -> None:
    """Parquet files say how many rows they hold."""
    waiting = [one for one in landing.files.values() if one.source.format == "parquet" and one.records is None]
    if waiting:
        found = session.rows(
            f"select file_name, num_rows from parquet_file_metadata([{paths(root, [one.file for one in waiting])}])"
        )
        rows = {objects.name_of(root, path): int(count) for path, count in found}
        for one in waiting:
            one.records = rows.get(one.file)


def unaccounted(root: Path, landing: Landing, read: Mapping[str, int]) -> dict[str, str]:
    """Files whose records are not all read or rejected, with the reason; sets `rows_read` on each file."""
    lost = {}
    for file, one in landing.files.items():
        one.rows_read = read.get(file, 0)
        if one.records is None or one.rows_read + one.rejects == one.records:
            continue
        try:
            records = careful_count(objects.path_of(root, file), one.source)
        except csv.Error as error:
            lost[file] = f"its records cannot be counted: {error}"
            continue
        if one.rows_read + one.rejects != records:
            lost[file] = f"it holds {records} records, but {one.rows_read} were read and {one.rejects} rejected"
        one.records = records
    return lost
