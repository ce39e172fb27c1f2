"""Checks that take plain values, in place of Dagster's own.

`asset_check` and `AssetCheckResult` take numpy scalars anywhere in a result, and a check that divides by the number of
rows of an empty frame fails with that reason instead of an exception. A check made here is blocking unless it says
otherwise: an ERROR keeps the version out, a WARN lets it pass and is seen.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import dagster as dg

from ratatouille.dagster.guarding import watched


class AssetCheckResult(dg.AssetCheckResult):
    """Dagster's, with any scalar that stands for a plain one: numpy and polars ints, bools, floats, decimals."""

    def __new__(
        cls,
        *,
        passed: Any,
        asset_key: Any = None,
        check_name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
        description: str | None = None,
    ) -> AssetCheckResult:
        made: AssetCheckResult = super().__new__(
            cls,
            passed=bool(plain(passed)),
            asset_key=asset_key,
            check_name=check_name,
            metadata={name: _shown(value) for name, value in (metadata or {}).items()},
            severity=severity,
            description=description,
        )
        return made


def plain(value: Any) -> Any:
    """The value in plain Python, all the way down; a number that is none (NaN, infinity) is None."""
    if isinstance(value, Mapping):
        return {str(plain(name)): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return plain(value.item())
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _shown(value: Any) -> Any:
    """As metadata: what Dagster knows stays as it is, NaN is shown as text."""
    made = plain(value)
    if made is None and value is not None:
        return dg.MetadataValue.text("not a number")
    if isinstance(made, dict | list):
        return dg.MetadataValue.json(made)
    if hasattr(made, "isoformat"):
        return made.isoformat()
    return made


def asset_check(*, asset: Any, blocking: bool = True, **options: Any) -> Callable[..., dg.AssetChecksDefinition]:
    """Dagster's `asset_check` for functions that may meet an empty frame; takes the same options."""

    def decorate(function: Callable[..., Any]) -> dg.AssetChecksDefinition:
        made = dg.asset_check(asset=asset, blocking=blocking, **options)(_forgiving(function))
        keys = {key: _io_manager_key(asset, key) for key in {spec.asset_key for spec in made.check_specs}}
        return watched(made, keys).coerce_to_checks_def()

    return decorate


def _io_manager_key(asset: Any, key: dg.AssetKey) -> str:
    known = isinstance(asset, dg.AssetsDefinition) and key in asset.keys and asset.is_executable
    return asset.get_io_manager_key_for_asset_key(key) if known else "io_manager"


def _forgiving(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same check; on an empty frame a division by zero, or a result that is not a number, is a failed check."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return function

    @functools.wraps(function)
    def check(*arguments: Any, **named: Any) -> Any:
        empty = _empty_ones(function, arguments, named)
        with _no_warnings_about_nothing():
            try:
                result = function(*arguments, **named)
            except ZeroDivisionError:
                if not empty:
                    raise
                return AssetCheckResult(passed=False, description=_nothing_in(empty))
        if empty and isinstance(result, dg.AssetCheckResult) and _holds_no_number(result):
            said = f"{_nothing_in(empty)} {result.description or ''}".strip()
            return result._replace(passed=False, description=said)
        return result

    return check


def _empty_ones(function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> list[str]:
    """The names of arguments that are frames without rows."""
    try:
        bound = inspect.signature(function).bind(*arguments, **named).arguments
    except TypeError:
        return []
    return [name for name, value in bound.items() if hasattr(value, "columns") and _rows(value) == 0]


def _rows(frame: Any) -> int:
    try:
        return int(frame.num_rows) if hasattr(frame, "num_rows") else len(frame)
    except (TypeError, ValueError):
        return -1


def _nothing_in(names: Sequence[str]) -> str:
    return f"{', '.join(names)} has no rows, so there is nothing to measure."


def _no_warnings_about_nothing() -> Any:
    """0 / 0 is answered by the check, not by a warning of numpy's, if numpy is in use at all."""
    import sys

    numpy = sys.modules.get("numpy")
    return numpy.errstate(divide="ignore", invalid="ignore") if numpy is not None else nullcontext()


def _holds_no_number(result: dg.AssetCheckResult) -> bool:
    return any(_is_no_number(value.value) for value in result.metadata.values())


def _is_no_number(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_no_number(one) for one in value.values())
    if isinstance(value, list | tuple):
        return any(_is_no_number(one) for one in value)
    return value is None or value == "not a number" or (isinstance(value, float) and not math.isfinite(value))
