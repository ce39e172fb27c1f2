"""The settings that this lake was built with, one row each; a value out of its range stops the run here."""

from __future__ import annotations

import pyarrow as pa
from pipelines.sbir import settings


def build(context):  # type: ignore[no-untyped-def]
    values = context.var("sbir")
    settings.read(values)
    keys, said = zip(*settings.flat(values), strict=True)
    return pa.table({"key": list(keys), "value": list(said)})
