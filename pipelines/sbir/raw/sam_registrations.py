"""The entities of the newest monthly file of each layout of SAM.gov, as text."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pipelines.sbir import sam_files

LANDING = Path(__file__).parents[3] / "landing" / "sbir" / "sam"


def build(context):  # type: ignore[no-untyped-def]
    files = [path for path in sorted(LANDING.rglob("*")) if path.suffix.lower() in (".zip", ".dat")]
    yield pa.Table.from_batches([], sam_files.SCHEMA)
    for path in sam_files.newest_of_each_layout(files):
        yield from sam_files.batches(path)
