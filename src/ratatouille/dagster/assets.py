"""A file asset as a Dagster asset: the step runs the engine, the gates are its checks, nothing is stored twice.

Either a step publishes a version, and Dagster sees its materialization with the results of its checks; or a gate
keeps the candidate out, and Dagster sees the failed checks and no materialization, so nothing below it runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from ratatouille.beside import PAGES, address_of
from ratatouille.dagster.checks import check_results, check_specs
from ratatouille.dagster.keys import Prefix, key_of, word
from ratatouille.dagster.metadata import materialization_metadata
from ratatouille.dagster.outer import is_automatic, outer_of
from ratatouille.engine import Listener, Progress, Request
from ratatouille.engine.plan import by_partition
from ratatouille.errors import RatError
from ratatouille.handle import run_request
from ratatouille.project.records import Asset

PREVIEW_ROWS = 5
LOG_EVERY_S = 10.0
_CONFIG = {
    "full_refresh": dg.Field(bool, default_value=False, description="Build all rows anew, as rat run -f does."),
    "accept_schema": dg.Field(bool, default_value=False, description="Removed or retyped columns may go."),
    "accept_loss": dg.Field(bool, default_value=False, description="Rows that no input gives any more may go."),
}
_PARTITIONS = {
    "partitions": dg.Field([str], default_value=[], description="Only these, like 2026-11-01..2026-11-30."),
}
_KINDS = {"sql": ("sql", "duckdb"), "python": ("python", "duckdb"), "seed": ("table", "duckdb")}


def file_asset(
    root: Path,
    asset: Asset,
    *,
    prefix: Prefix = (),
    reads: Sequence[dg.AssetKey] = (),
    automation: dg.AutomationCondition[Any] | None = None,
    freshness: dg.FreshnessPolicy | None = None,
) -> dg.AssetsDefinition:
    """The asset of one file in the workspace at `root`; `reads` are the keys of what it depends on."""
    key = key_of(asset.name, prefix)

    @dg.asset(
        key=key,
        deps=list(reads),
        group_name=group_of(asset),
        description=asset.description or f"`{asset.path}`",
        kinds=set(_KINDS[asset.kind]),
        owners=_owners(asset) or None,
        tags=_tags(asset),
        code_version=asset.code_hash[:16],
        metadata={"path": asset.path, "materialize": asset.materialize, "dagster/table_name": asset.name}
        | _page(root, asset),
        check_specs=check_specs(asset, key),
        config_schema=_CONFIG | _PARTITIONS if by_partition(asset) else _CONFIG,
        retry_policy=_retries(asset),
        automation_condition=automation,
        freshness_policy=freshness,
    )
    def build(context):  # type: ignore[no-untyped-def]  # Dagster refuses an annotation that is a string
        yield from _build(context.op_execution_context, root, asset, key, prefix)

    return build


def _page(root: Path, asset: Asset) -> dict[str, Any]:
    """A link to the asset's page, where `rat ui` runs when the code location is loaded."""
    address = address_of(root, PAGES)
    return {"page": dg.MetadataValue.url(f"{address}/asset/{asset.name}")} if address else {}


def group_of(asset: Asset) -> str:
    return word(asset.group or asset.pipeline or asset.layer)


def _owners(asset: Asset) -> list[str]:
    """Dagster knows owners as e-mail addresses and as `team:name`."""
    return [owner if "@" in owner or owner.startswith("team:") else f"team:{word(owner)}" for owner in asset.owners]


def _tags(asset: Asset) -> dict[str, str]:
    return {"layer": word(asset.layer), **{word(tag): "" for tag in asset.tags}}


def _retries(asset: Asset) -> dg.RetryPolicy | None:
    if not asset.retries.max:
        return None
    backoff = dg.Backoff.EXPONENTIAL if asset.retries.backoff == "exponential" else None
    return dg.RetryPolicy(asset.retries.max, asset.retries.delay_s, backoff, dg.Jitter.FULL)


def _build(context: dg.OpExecutionContext, root: Path, asset: Asset, key: dg.AssetKey, prefix: Prefix) -> Iterator[Any]:
    asked = context.op_config
    request = Request(
        (asset.name,),
        force=asked["full_refresh"],
        again=not is_automatic(context),
        accept_schema=asked["accept_schema"],
        accept_loss=asked["accept_loss"],
        partitions=tuple(asked.get("partitions", ())),
        alone=True,
        preview_rows=PREVIEW_ROWS,
        retry=False,
    )
    try:
        step = run_request(root, request, _chunks_to(context), within=outer_of(context)).step(asset.name)
    except RatError as error:
        raise _failure(error.as_record(), {}) from None
    if step.error is not None:
        yield from check_results(asset, key, step.checks)
        raise _failure(step.error, {"reason": step.reason}) from None
    entry = step.entry
    checks = check_results(asset, key, step.checks or (entry.checks if entry else ()))
    for line in (*([step.reason] if step.status != "built" else []), *step.warnings):
        context.log.info(f"{asset.name}: {line}")
    yield dg.MaterializeResult(
        asset_key=key,
        metadata=materialization_metadata(asset, entry, step, prefix),
        check_results=list(checks),
        data_version=dg.DataVersion(str(entry.data_version)) if entry else None,
    )


def _chunks_to(context: dg.OpExecutionContext) -> Listener:
    """How far the step is with its chunks, in its log: at most a line every LOG_EVERY_S."""
    told = [0.0]

    def listen(event: Progress) -> None:
        now = time.monotonic()
        if event.text and (event.stage != "chunk" or now - told[0] >= LOG_EVERY_S):
            told[0] = now
            context.log.info(f"{event.asset}: {event.text}")

    return listen


def _failure(error: Any, metadata: dict[str, Any]) -> dg.Failure:
    """The four lines; only what may pass by itself is tried again."""
    lines = [error["what"], error["where"], error["state"], f"Next: {error['next']}" if error["next"] else ""]
    return dg.Failure(
        description="\n".join(line for line in lines if line),
        metadata={"next": error["next"] or "rat runs", **metadata},
        allow_retries=error["error"] == "TransientError",
    )
