"""The project that Dagster was started on, loaded when Dagster asks for it."""

from __future__ import annotations

import dagster as dg

from ratatouille.dagster.code_location import definitions


@dg.definitions
def defs() -> dg.Definitions:
    return definitions()
