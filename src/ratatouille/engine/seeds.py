"""Seed files: small tables that live beside the code, in CSV, JSON, Parquet or XLSX."""

from __future__ import annotations

from pathlib import Path

from ratatouille.engine.landing import careful_count, inspect
from ratatouille.errors import StepFailed
from ratatouille.lake import Session, load_extension
from ratatouille.lake.quoting import text
from ratatouille.lake.stage import glob_safe
from ratatouille.project.records import Asset, Source


def seed_select(session: Session, root: Path, asset: Asset) -> str:
    """A SELECT over a seed file. A CSV whose rows cannot all be read is an error, not a shorter table.

    Columns with a declared type may come as texts: `fitting.strictly` gives them their type.
    """
    path = root / asset.path
    place = text(glob_safe(str(path)))
    match path.suffix.lower():
        case ".csv":
            return _csv_seed(session, root, asset, place)
        case ".json":
            return f"select * from read_json({place}, sample_size = -1)"
        case ".parquet":
            return f"select * from read_parquet({place})"
        case ".xlsx":
            load_extension(session, "excel")
            return f"select * from read_xlsx({text(str(path))}, header = true)"
    raise StepFailed(f"{asset.name}: {path.suffix} is no seed format", where=asset.path, next="rat check")


def _csv_seed(session: Session, root: Path, asset: Asset, place: str) -> str:
    """Types from all rows; names from the header; the shape of the file is fixed, only types are detected."""
    source = Source(glob=asset.path, format="csv")
    try:
        inspection = inspect(root, asset.path, source)
    except ValueError as error:
        raise StepFailed(f"{asset.name}: {error}", where=asset.path, next=f"rat run {asset.name}") from error
    # What has a declared type is read as it is written, so that a value that does not fit is seen.
    declared = ", ".join(f"{text(c.name)}: 'VARCHAR'" for c in asset.columns if c.type and c.name in inspection.header)
    names = ", ".join(text(name) for name in inspection.header)
    select = (
        f"select * from read_csv({place}, header = true, delim = ',', quote = '\"', escape = '\"', comment = '',"
        f" sample_size = -1, null_padding = false, ignore_errors = false, names = [{names}]"
        + (f", types = {{{declared}}}" if declared else "")
        + ")"
    )
    rows = int(session.value(f"select count(*) from ({select})"))
    if rows != inspection.records and rows != careful_count(root / asset.path, source):
        raise StepFailed(
            f"{asset.name}: the file holds {inspection.records} records, but {rows} can be read",
            where=asset.path,
            next=f"mend the file, then: rat run {asset.name}",
        )
    return select
