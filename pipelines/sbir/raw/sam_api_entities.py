"""Entities that SAM.gov's monthly file lacks, asked for by their UEI; nothing unless the settings say `ask_api: true`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from pipelines.sbir import sam_api

FOLDER = Path(__file__).parents[3] / ".rat" / "sbir" / "sam_api"


def build(context):  # type: ignore[no-untyped-def]
    nothing = pl.DataFrame(schema=dict.fromkeys(sam_api.COLUMNS, pl.String))
    said = context.var("sbir.enrichment", {})
    asking = said.get("sources", {}).get("sam_gov", {})
    if not asking.get("ask_api"):
        return nothing
    unknown = (
        context.ref("validated.sbir_awards_pass")
        .query("a", "select distinct uei from a where uei is not null order by uei")
        .pl()
        .join(
            context.ref("raw.sam_entities").select("unique_entity_id").pl(),
            left_on="uei",
            right_on="unique_entity_id",
            how="anti",
        )
    )
    manners = sam_api.Manners(
        timeout_s=said["timeout_seconds"], attempts=said["max_retries"], per_minute=asking["requests_per_minute"]
    )
    settings = sam_api.Settings.from_environment(FOLDER, daily_quota=asking["daily_quota"], manners=manners)
    with sam_api.SamApi(settings, today=lambda: datetime.now(UTC)) as api:  # the clock: what is left is asked tomorrow
        answer = api.entities(unknown["uei"].to_list())
    context.log.info("SAM.gov: %s", answer.report)
    return pl.DataFrame(answer.rows, schema=nothing.schema) if answer.rows else nothing
