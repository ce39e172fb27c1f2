"""Monthly public files of SAM.gov: a ZIP with one text, its fields between pipes, no header.

The first record says BOF, the last EOF, and both say how many records there are. Layout V1 (until March 2022)
names an entity by its DUNS in 120 fields, V2 by its UEI in 142.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv as pa_csv

# Column -> the number of its field, from 0. V1 has no UEI; V2 has a blank where the DUNS was.
V2 = {
    "unique_entity_id": 0, "cage_code": 3, "registration_status": 5, "purpose_of_registration": 6, "registration_expiration_date": 8,
    "legal_business_name": 11, "dba_name": 12, "physical_address_line_1": 15, "physical_address_line_2": 16, "city": 17,
    "state": 18, "zip_postal_code": 19, "country_code": 21, "entity_url": 26, "primary_naics": 32, "naics_code_string": 34,
}  # fmt: skip
V1 = {
    "duns_number": 0, "cage_code": 2, "registration_status": 4, "purpose_of_registration": 5, "registration_expiration_date": 7,
    "legal_business_name": 10, "dba_name": 11, "physical_address_line_1": 14, "physical_address_line_2": 15, "city": 16,
    "state": 17, "zip_postal_code": 18, "country_code": 20, "entity_url": 24, "primary_naics": 30, "naics_code_string": 32,
}  # fmt: skip
COLUMNS = (
    "unique_entity_id", "cage_code", "duns_number", "legal_business_name", "dba_name", "registration_status",
    "purpose_of_registration", "registration_expiration_date", "physical_address_line_1", "physical_address_line_2", "city",
    "state", "zip_postal_code", "country_code", "entity_url", "primary_naics", "naics_code_string",
)  # fmt: skip
SCHEMA = pa.schema([(name, pa.string()) for name in (*COLUMNS, "layout", "file_month")])
_MARK = re.compile(r"(BOF|EOF) PUBLIC (?:(V2) )?\d{8} (\d{8}) (\d{7}) \d{7}")


class SamFileError(ValueError):
    """A file that is no monthly file, or not a whole one; the message says why."""


def layout_of(path: Path) -> tuple[str, str, int]:
    """(V1 or V2, month as YYYYMMDD, records) by the first line of the file."""
    with _opened(path) as text:
        return _mark(text.readline(200), "BOF", path)


def newest_of_each_layout(paths: list[Path]) -> list[Path]:
    """Each monthly file holds every entity, so of each layout the latest month counts."""
    best: dict[str, tuple[str, Path]] = {}
    for path in sorted(paths):
        layout, month, _ = layout_of(path)
        best[layout] = max(best.get(layout, ("", path)), (month, path))
    return [path for _, path in best.values()]


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The entities of a file as record batches of texts by SCHEMA; blank is null. Reads a few megabytes at a time.

    Raises SamFileError when the records are not as many as the file says, or its end is missing.
    """
    layout, month, said = layout_of(path)
    fields = V2 if layout == "V2" else V1
    width = 142 if layout == "V2" else _width(path)
    odd: list[str] = []

    def beside(row: pa_csv.InvalidRow) -> str:
        odd.append(row.text or "")
        return "skip"

    names = [f"f{number}" for number in range(width)]
    count = 0
    with _opened(path) as text:
        reader = pa_csv.open_csv(
            text,
            read_options=pa_csv.ReadOptions(
                column_names=names, encoding="latin-1", block_size=4 << 20, use_threads=False
            ),
            parse_options=pa_csv.ParseOptions(delimiter="|", quote_char=False, invalid_row_handler=beside),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=[f"f{number}" for number in fields.values()],
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
        for batch in reader:
            count += batch.num_rows
            yield _as_columns(batch, fields, layout, month)
    marks = [line for line in odd if _MARK.match(line)]
    if len(odd) != len(marks):
        raise SamFileError(f"{path.name}: {len(odd) - len(marks)} records have another number of fields than {width}")
    if len(marks) != 2 or _mark(marks[1].encode(), "EOF", path)[2] != said:
        raise SamFileError(f"{path.name}: its last record is no EOF; the file is not whole")
    if count != said:
        raise SamFileError(f"{path.name}: it says {said} records and holds {count}")


def _as_columns(batch: pa.RecordBatch, fields: dict[str, int], layout: str, month: str) -> pa.RecordBatch:
    n = batch.num_rows
    given = {name: batch.column(f"f{number}") for name, number in fields.items()}
    nothing = pa.nulls(n, pa.string())
    columns = [given.get(name, nothing) for name in COLUMNS]
    said = [pa.repeat(pa.scalar(value), n) for value in (layout, month)]
    return pa.RecordBatch.from_arrays([*columns, *said], schema=SCHEMA)


def _opened(path: Path) -> IO[bytes]:
    try:
        if path.suffix.lower() != ".zip":
            return path.open("rb")
        packed = zipfile.ZipFile(path)
        members = [name for name in packed.namelist() if not name.endswith("/")]
        if len(members) != 1:
            raise SamFileError(f"{path.name}: it holds {len(members)} files, and one is expected")
        return packed.open(members[0])
    except (OSError, zipfile.BadZipFile) as error:
        raise SamFileError(f"{path.name} cannot be opened: {error}") from error


def _width(path: Path) -> int:
    """Fields of a record: V1 grew over the years."""
    with _opened(path) as text:
        text.readline()
        return text.readline().count(b"|") + 1


def _mark(line: bytes, kind: str, path: Path) -> tuple[str, str, int]:
    found = _MARK.match(line.decode("latin-1", errors="replace"))
    if found is None or found[1] != kind:
        raise SamFileError(
            f"{path.name}: its {'first' if kind == 'BOF' else 'last'} record is no {kind} PUBLIC ... with a count"
        )
    return found[2] or "V1", found[3], int(found[4])
