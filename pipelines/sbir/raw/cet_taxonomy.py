"""The areas of critical and emerging technology, as pipelines/sbir/cet/taxonomy.yaml says them."""

from __future__ import annotations

import polars as pl
from pipelines.sbir.cet import taxonomy


def build(context):  # type: ignore[no-untyped-def]
    return pl.DataFrame(taxonomy.load().rows())
