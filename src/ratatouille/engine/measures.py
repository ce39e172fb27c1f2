"""Measures: gates that compare a figure of the whole table with what was asked for. Each is one scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan
from types import MappingProxyType
from typing import Any

from ratatouille.lake import Session
from ratatouille.lake.quoting import ident
from ratatouille.project import units
from ratatouille.project.records import Check


@dataclass(frozen=True, slots=True)
class Measured:
    """`bad_rows` is a SELECT of the rows that it is about, if there are such; `said` what was measured, in words."""

    passed: bool
    rows: int
    bad: int = 0
    value: float | None = None
    bad_rows: str = ""
    said: str = ""


def _row_count(session: Session, check: Check, whole: str) -> Measured:
    rows = int(session.value(f"select count(*) from ({whole})"))
    low, high = check.arguments.get("min"), check.arguments.get("max")
    passed = (low is None or rows >= low) and (high is None or rows <= high)
    return Measured(passed, rows, rows, float(rows))


def _completeness(session: Session, check: Check, whole: str) -> Measured:
    """Every listed column must be filled in at least this share of rows. An empty table is not complete."""
    counts = ", ".join(f"count({ident(column)})" for column in check.columns)
    found = session.one(f"select count(*), {counts} from ({whole})")
    rows = found[0]
    shares = {c: n / rows if rows else 0.0 for c, n in zip(check.columns, found[1:], strict=True)}
    value = min(shares.values())
    incomplete = " or ".join(f"{ident(column)} is null" for column in check.columns)
    bad_rows = f"select * from ({whole}) where {incomplete}"
    return Measured(value >= check.arguments.get("at_least", 1), rows, rows - min(found[1:]), value, bad_rows)


def _success_rate(session: Session, check: Check, whole: str) -> Measured:
    """A row worked when `where` is true for it, or all columns are there. Of no rows none worked."""
    there = " and ".join(f"{ident(column)} is not null" for column in check.columns)
    worked = f"coalesce(({check.arguments.get('where') or there}\n), false)"
    rows, good = session.one(f"select count(*), count(*) filter ({worked}) from ({whole})")
    value = good / rows if rows else 0.0
    bad_rows = f"select * from ({whole}) where not {worked}"
    return Measured(value >= check.arguments["at_least"], rows, rows - good, value, bad_rows, f"it is {value:.4g}")


def _freshness(session: Session, check: Check, whole: str) -> Measured:
    """The value is the age in seconds; the oldest of several columns counts. Of no rows nothing is fresh."""
    ages = [f"epoch(now()) - epoch(max({ident(column)})::timestamp)" for column in check.columns]
    rows, *found = session.one(f"select count(*), {', '.join(ages)} from ({whole})")
    if not rows or None in found:
        return Measured(False, rows, rows, said="no value at all")
    age = max(found)
    newest = f"the newest is {age / 3600:.1f} h old"
    return Measured(age <= units.seconds(check.arguments["max_age"]), rows, rows, float(age), said=newest)


_FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "mean": "avg({0})",
        "stddev": "stddev_samp({0})",
        "min": "min({0})",
        "max": "max({0})",
        "median": "quantile_cont({0}, 0.5)",
        "p05": "quantile_cont({0}, 0.05)",
        "p95": "quantile_cont({0}, 0.95)",
        "nulls": "1 - count({0}) / nullif(count(*), 0)",
        "distinct": "count(distinct {0})",
    }
)


def _distribution(session: Session, check: Check, whole: str) -> Measured:
    """Every figure of every column inside its bounds; one that cannot be computed, of no values, is outside."""
    asked = [(column, name, bounds) for column in check.columns for name, bounds in check.arguments.items()]
    figures = ", ".join(f"({_FIGURES[name].format(ident(column))})::double" for column, name, _ in asked)
    rows, *found = session.one(f"select count(*), {figures} from ({whole})")
    outside = [
        (column, name, value)
        for (column, name, (low, high)), value in zip(asked, found, strict=True)
        # NaN is neither below nor above anything.
        if value is None or isnan(value) or (low is not None and value < low) or (high is not None and value > high)
    ]
    said = ", ".join(f"{name} of {column} is {_short(value)}" for column, name, value in outside)
    return Measured(not outside, rows, rows, (outside[0][2] if outside else found[0]), said=said)


def _short(value: Any) -> str:
    return "nothing" if value is None else f"{value:.6g}"


MEASURES: Mapping[str, Callable[[Session, Check, str], Measured]] = MappingProxyType(
    {
        "row_count": _row_count,
        "completeness": _completeness,
        "success_rate": _success_rate,
        "freshness": _freshness,
        "distribution": _distribution,
    }
)
