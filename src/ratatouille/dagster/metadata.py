"""What a step leaves in Dagster's history: counts, schema, lineage, speed, quality, the first rows."""

from __future__ import annotations

from typing import Any

import dagster as dg

from ratatouille.dagster.checks import as_markdown
from ratatouille.dagster.keys import Prefix, key_of
from ratatouille.engine import StepResult
from ratatouille.engine.records import Answer
from ratatouille.lake import Entry
from ratatouille.project.records import Asset


def materialization_metadata(
    asset: Asset, entry: Entry | None, step: StepResult | None, prefix: Prefix
) -> dict[str, Any]:
    """Of the version that stands after a step. `step` is None for a publish that Dagster was told of later."""
    metadata: dict[str, Any] = {
        "dagster/table_name": asset.name,
        "dagster/storage_kind": "ducklake",
        "status": step.status if step else "built",
    }
    if entry is not None:
        metadata |= _of_entry(asset, entry)
    if asset.lineage:
        metadata["dagster/column_lineage"] = _lineage(asset, prefix)
    if step is not None:
        metadata |= _of_step(step)
    return metadata


def _of_entry(asset: Asset, entry: Entry) -> dict[str, Any]:
    said = {column.name.lower(): column.description for column in asset.columns}
    failed = sum(1 for check in entry.checks if not check["passed"])
    found: dict[str, Any] = {
        "version": entry.version,
        "run": entry.run_id,
        "mode": entry.mode,
        "rows in": entry.rows_in,
        "rows written": entry.rows_written,
        "rows quarantined": entry.rows_quarantined,
        "rows rejected": entry.rows_rejected,
        "bytes written": entry.bytes_written,
        "seconds": round(entry.seconds, 3),
        "rows per second": round(entry.rows_written / entry.seconds) if entry.seconds > 0 else 0,
        "peak memory (MB)": round(entry.peak_memory_bytes / 1e6, 1),
        "checks passed": len(entry.checks) - failed,
        "checks failed": failed,
        "issues": failed + entry.rows_quarantined + entry.rows_rejected,
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn(name, type=kind, description=said.get(name.lower()) or None)
                for name, kind in entry.columns
            ]
        ),
    }
    if entry.materialize != "view":
        found["dagster/row_count"] = entry.rows_total
    if entry.rows_in:
        found["share of rows kept"] = round(1 - (entry.rows_quarantined + entry.rows_rejected) / entry.rows_in, 4)
    return found


def _of_step(step: StepResult) -> dict[str, Any]:
    found: dict[str, Any] = {"reason": step.reason} if step.reason else {}
    if step.files:
        found["landing files"] = len(step.files)
    if step.set_aside:
        rows = [{"file": row["file"], "reason": row["reason"]} for row in step.set_aside[:20]]
        found["set aside"] = dg.MetadataValue.md(as_markdown(rows))
    if step.warnings:
        found["warnings"] = "\n".join(step.warnings)
    if step.preview is not None:
        found["preview"] = dg.MetadataValue.md(_preview(step.preview))
    return found


def _preview(answer: Answer) -> str:
    names = [name for name, _ in answer.columns]
    rows = [dict(zip(names, row, strict=True)) for row in answer.rows]
    return as_markdown(rows) if rows else f"No rows; columns: {', '.join(names)}"


def _lineage(asset: Asset, prefix: Prefix) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(key_of(above, prefix), origin) for above, origin in origins]
            for column, origins in asset.lineage.items()
        }
    )
