"""Gates as Dagster's asset checks: an error blocks what is below, a warning is seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from ratatouille.dagster.keys import word
from ratatouille.engine import CheckResult
from ratatouille.engine.quarantine import all_checks
from ratatouille.project.records import Asset, Check

_SEVERITY = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def check_specs(asset: Asset, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """What the asset's gates are, for the asset graph."""
    return [
        dg.AssetCheckSpec(
            word(check.name),
            asset=key,
            description=_described(check),
            blocking=check.severity == "error",
            metadata={"columns": ", ".join(check.columns)} if check.columns else None,
        )
        for check in all_checks(asset)
    ]


def _described(check: Check) -> str:
    said = check.kind.replace("_", " ")
    on = f" ({', '.join(check.columns)})" if check.columns else ""
    arguments = ", ".join(f"{name}: {value}" for name, value in check.arguments.items())
    return f"{said}{on}{': ' if arguments else ''}{arguments}"


def check_results(
    asset: Asset, key: dg.AssetKey, found: Iterable[CheckResult | Mapping[str, Any]]
) -> Iterator[dg.AssetCheckResult]:
    """What each gate found: records of this step, or mappings as the ledger keeps them."""
    known = {check.name for check in all_checks(asset)}
    for result in found:
        record = result if isinstance(result, CheckResult) else _record(result)
        if record.name in known:
            yield _result(record, key)


def _record(kept: Mapping[str, Any]) -> CheckResult:
    names = CheckResult.__slots__
    values = {name: kept[name] for name in names if name in kept}
    return CheckResult(**{**values, "columns": tuple(values.get("columns", ())), "sample": tuple(values["sample"])})


def _result(record: CheckResult, key: dg.AssetKey) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"bad rows": record.bad, "rows": record.rows}
    if record.threshold:
        metadata["threshold"] = record.threshold
    if record.value is not None:
        metadata["value"] = float(record.value)
    if record.sample:
        metadata["sample"] = dg.MetadataValue.md(as_markdown(record.sample))
    return dg.AssetCheckResult(
        passed=record.passed,
        asset_key=key,
        check_name=word(record.name),
        severity=_SEVERITY[record.severity],
        metadata=metadata,
        description=None if record.passed else f"{record.bad:,} of {record.rows:,} rows fail",
    )


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; values cannot break out of their cell."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [_line(names), _line(["---"] * len(names))]
    return "\n".join([*lines, *(_line([row.get(name) for name in names]) for row in rows)])


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    for char, safe in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("\r", " "), ("\n", " ")):
        text = text.replace(char, safe)
    return text[:200]
