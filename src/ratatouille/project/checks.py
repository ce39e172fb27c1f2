"""The gates that a sidecar may ask for: their kinds, their arguments, and how they are written.

Under a column:  `not_null`, `{range: {min: 0}}`, `{accepted_values: [a, b]}`
Under `checks:`  `completeness: {columns: [a, b], at_least: 0.95}`, `no_future: {sql: "select ..."}`

Here is only their shape; the engine writes their SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from ratatouille.errors import near_miss
from ratatouille.project import units
from ratatouille.project.records import Check

SEVERITIES = ("error", "warn")


@dataclass(frozen=True, slots=True)
class Argument:
    """`type` is one of values, number, count, share, flag, text, column, asset, sql, expression, age, bounds."""

    name: str
    type: str
    doc: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Kind:
    doc: str
    arguments: tuple[Argument, ...] = ()
    on_column: bool = True
    on_table: bool = True
    short: str = ""  # the argument that a bare value means: `{accepted_values: [a, b]}`
    one_of: tuple[str, ...] = ()  # at least one of these arguments is needed
    counts: bool = True  # it counts bad rows, so warn_if and error_if mean something
    needs_columns: bool = True  # where it stands under `checks:`


_FIGURES = {
    "mean": "The mean.",
    "stddev": "The standard deviation.",
    "min": "The smallest value.",
    "max": "The largest value.",
    "median": "The median.",
    "p05": "The value that 5 % of the rows lie below.",
    "p95": "The value that 95 % of the rows lie below.",
    "nulls": "The share of nulls, 0 to 1.",
    "distinct": "The number of different values.",
}
KINDS: Mapping[str, Kind] = {
    "not_null": Kind("No value is null."),
    "unique": Kind("No two rows have the same value, or the same combination of `columns`. Nulls do not count."),
    "positive": Kind("Every value is above zero."),
    "accepted_values": Kind(
        "Every value is one of `values`.", (Argument("values", "values", "The values that may occur."),), short="values"
    ),
    "range": Kind(
        "Every value lies between `min` and `max`.",
        (
            Argument("min", "number", "The smallest value; a date as text works too.", required=False),
            Argument("max", "number", "The largest value.", required=False),
            Argument("inclusive", "flag", "Whether min and max themselves may occur (default true).", required=False),
        ),
        one_of=("min", "max"),
    ),
    "length": Kind(
        "Every text has between `min` and `max` characters, every list so many elements.",
        (
            Argument("min", "count", "The shortest length.", required=False),
            Argument("max", "count", "The longest length.", required=False),
        ),
        one_of=("min", "max"),
    ),
    "expression": Kind(
        "The expression is true, or null, for every row.",
        (Argument("expression", "expression", "SQL over the columns of one row, like shipped_at >= ordered_at."),),
        short="expression",
        needs_columns=False,
    ),
    "regex": Kind(
        "Every value matches the pattern somewhere (RE2; use ^ and $ for the whole text).",
        (Argument("pattern", "text", "The regular expression."),),
        short="pattern",
    ),
    "relationships": Kind(
        "Every value occurs in a column of another asset.",
        (
            Argument("to", "asset", "The other asset, like silver.stores; it is built first."),
            Argument("column", "column", "Its column."),
        ),
    ),
    "row_count": Kind(
        "The number of rows lies between `min` and `max`.",
        (
            Argument("min", "count", "The fewest rows.", required=False),
            Argument("max", "count", "The most rows.", required=False),
        ),
        on_column=False,
        one_of=("min", "max"),
        counts=False,
        needs_columns=False,
    ),
    "completeness": Kind(
        "Of the values in `columns`, at least this share is not null.",
        (Argument("at_least", "share", "A number from 0 to 1 (default 1).", required=False),),
        on_column=False,
        counts=False,
    ),
    "success_rate": Kind(
        "In at least this share of rows it worked: the columns are not null, or `where` is true.",
        (
            Argument("at_least", "share", "A number from 0 to 1."),
            Argument("where", "expression", "What is true for a row that worked.", required=False),
        ),
        counts=False,
        needs_columns=False,
        short="at_least",
    ),
    "freshness": Kind(
        "The newest value, a day or a time in UTC, is no older than `max_age` when the asset is built.",
        (Argument("max_age", "age", "Like 6h or 1d."),),
        short="max_age",
        counts=False,
    ),
    "distribution": Kind(
        "Figures of the column lie in their bounds, each [lowest, highest]; null leaves a side open.",
        tuple(Argument(name, "bounds", doc, required=False) for name, doc in _FIGURES.items()),
        one_of=tuple(_FIGURES),
        counts=False,
    ),
    "sql": Kind(
        "A query that returns the bad rows; {{ this }} is the candidate.",
        (Argument("sql", "sql", "One select."),),
        on_column=False,
        short="sql",
        needs_columns=False,
    ),
}
EXPRESSIONS = ("expression", "where")  # arguments that are SQL over one row
_NAMES_ITSELF = ("sql", "expression")  # a check with a name of its own is of this kind when it has this argument
_LIMIT = re.compile(r"\s*>\s*(\d+(?:\.\d+)?)\s*(%?)\s*")


class Mistake(ValueError):
    """What is wrong with a check, and where below it."""

    def __init__(self, message: str, *path: str | int, hint: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.hint = hint


def column_check(column: str, written: Any) -> Check:
    """A check from a column's list: `not_null` or `{range: {min: 0, severity: warn}}`. Raises Mistake."""
    kind, value = _kind_and_value(written)
    if kind not in KINDS:
        raise Mistake(f"'{kind}' is not a check", kind, hint=_known(kind, on_column=True))
    if not KINDS[kind].on_column:
        raise Mistake(f"'{kind}' looks at the whole table", kind, hint="write it under `checks:` of the asset")
    settings = dict(value) if isinstance(value, Mapping) else _short(kind, value)
    severity, limits = _severity(kind, settings, kind)
    arguments = _arguments(kind, settings, kind)
    columns = () if kind == "expression" or "where" in arguments else (column,)
    return Check(f"{column}_{kind}", kind, columns, arguments, severity, *limits)


def table_check(name: str, written: Any) -> Check:
    """A check from the asset's `checks:`. Raises Mistake."""
    if not isinstance(written, Mapping):
        written = _short(name, written) if name in KINDS else {"sql": written}
    settings = dict(written)
    kind = settings.pop("check", None) or next((k for k in _NAMES_ITSELF if k in settings and name not in KINDS), name)
    if kind not in KINDS or not KINDS[kind].on_table:
        message = f"'{name}' does not say what it checks" if kind == name else f"'{kind}' is not a check"
        raise Mistake(message, *(["check"] if kind != name else []), hint=_known(kind, on_column=False))
    severity, limits = _severity(str(kind), settings)
    columns = settings.pop("columns", settings.pop("column", []) if kind != "relationships" else [])
    columns = (columns,) if isinstance(columns, str) else columns
    if not isinstance(columns, (list, tuple)) or not all(isinstance(c, str) for c in columns):
        raise Mistake("columns must be a list of names", "columns")
    if KINDS[kind].needs_columns and not columns:
        raise Mistake(f"'{name}' needs columns: [...]")
    if kind == "success_rate" and bool(columns) == ("where" in settings):
        raise Mistake(f"'{name}' needs columns: [...] or where: ..., one of them")
    return Check(name, str(kind), tuple(columns), _arguments(str(kind), settings), severity, *limits)


def _kind_and_value(written: Any) -> tuple[str, Any]:
    if isinstance(written, str):
        return written, None
    if isinstance(written, Mapping) and len(written) == 1:
        return next(iter(written.items()))
    raise Mistake("write a check as its name, or as {name: arguments}")


def _short(kind: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not KINDS[kind].short:
        raise Mistake(f"'{kind}' takes {_spelled(kind)}", kind)
    return {KINDS[kind].short: value}


def _severity(kind: str, settings: dict[str, Any], *path: str) -> tuple[str, tuple[str, str]]:
    """The severity and the limits (warn_if, error_if), taken out of the settings."""
    limits = tuple(str(settings.pop(name, "")) for name in ("warn_if", "error_if"))
    for name, limit in zip(("warn_if", "error_if"), limits, strict=True):
        if limit and not KINDS[kind].counts:
            raise Mistake(f"'{kind}' counts no bad rows, so it has no {name}", *path, name)
        if limit and not _LIMIT.fullmatch(limit):
            hint = "write > 10 for so many bad rows, > 1% for such a share of the rows"
            raise Mistake(f"'{limit}' is not a limit", *path, name, hint=hint)
    if any(limits) and "severity" in settings:
        raise Mistake("severity is for any bad row, and warn_if and error_if say from how many on", *path, "severity")
    warn, error = (_LIMIT.fullmatch(limit) for limit in limits)
    if warn and error and warn[2] == error[2] and float(warn[1]) > float(error[1]):
        message = f"it would be an error ({limits[1]}) before it is a warning ({limits[0]})"
        raise Mistake(message, *path, "warn_if", hint="warn_if is the smaller one")
    severity = settings.pop("severity", "error" if limits[1] or not limits[0] else "warn")
    if severity not in SEVERITIES:
        hint = near_miss(str(severity), SEVERITIES).strip()
        raise Mistake("severity is error or warn", *path, "severity", hint=hint)
    return str(severity), (limits[0], limits[1])


def exceeds(limit: str, bad: int, rows: int) -> bool:
    """Whether so many bad rows of so many are above a limit like `> 10` or `> 1%`."""
    found = _LIMIT.fullmatch(limit)
    if found is None:
        return False
    number, percent = float(found[1]), bool(found[2])
    return bad > number * rows / 100 if percent else bad > number


def _arguments(kind: str, settings: dict[str, Any], *path: str) -> dict[str, Any]:
    known = {argument.name: argument for argument in KINDS[kind].arguments}
    for name, value in settings.items():
        if name not in known:
            hint = near_miss(name, [*known, *_beside(kind)]).strip() or f"it takes {_spelled(kind)}"
            raise Mistake(f"'{kind}' does not take '{name}'", *path, name, hint=hint)
        wrong = _wrong_value(known[name].type, value)
        if wrong:
            raise Mistake(f"'{name}' must be {wrong}", *path, name)
    low, high = settings.get("min"), settings.get("max")
    if _number(low) and _number(high) and low > high:
        raise Mistake(f"min {low} is above max {high}, so every row would be bad", *path, "min")
    missing = [argument.name for argument in known.values() if argument.required and argument.name not in settings]
    if missing:
        raise Mistake(f"'{kind}' needs {' and '.join(missing)}", *path)
    if KINDS[kind].one_of and not set(KINDS[kind].one_of) & set(settings):
        raise Mistake(f"'{kind}' needs {' or '.join(KINDS[kind].one_of)}", *path)
    return settings


def compares_numbers(check: Check) -> bool:
    """Whether it asks of a single value what only a number can be asked."""
    limits = [check.arguments.get(name) for name in ("min", "max")]
    return check.kind == "positive" or (check.kind == "range" and any(_number(limit) for limit in limits))


def _number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wrong_value(type: str, value: Any) -> str:
    """What the value must be, or an empty text when it is that."""
    number = _number(value)
    if type == "values":
        fine = isinstance(value, list) and bool(value) and all(isinstance(v, (str, int, float, bool)) for v in value)
        return "" if fine else "a list of values"
    if type == "number":
        return "" if number or isinstance(value, str) else "a number, or a date as text"
    if type == "count":
        return "" if isinstance(value, int) and number and value >= 0 else "a whole number, 0 or more"
    if type == "share":
        return "" if number and 0 <= value <= 1 else "a number from 0 to 1"
    if type == "flag":
        return "" if isinstance(value, bool) else "true or false"
    if type == "age":
        try:
            return "" if units.seconds(value) > 0 else "longer than nothing"
        except ValueError:
            return "a duration like 6h or 1d"
    if type == "bounds":
        pair = isinstance(value, list) and len(value) == 2 and any(side is not None for side in value)
        fine = pair and all(s is None or (isinstance(s, (int, float)) and not isinstance(s, bool)) for s in value)
        return "" if fine and (None in value or value[0] <= value[1]) else "[lowest, highest]"
    if type == "expression":
        return "" if isinstance(value, str) and not _wrong_expression(value) else _wrong_expression(value)
    return "" if isinstance(value, str) and value.strip() else "text"


def _wrong_expression(value: Any) -> str:
    from ratatouille.project.sql import SqlMistake, columns_of_expression

    try:
        columns_of_expression(str(value))
    except SqlMistake as mistake:
        return f"an expression over the columns of a row: {mistake}"
    return "" if isinstance(value, str) and value.strip() else "an expression over the columns of a row"


def _beside(kind: str) -> tuple[str, ...]:
    return ("severity", "warn_if", "error_if") if KINDS[kind].counts else ("severity",)


def _spelled(kind: str) -> str:
    return ", ".join([*(argument.name for argument in KINDS[kind].arguments), *_beside(kind)])


def _known(kind: str, *, on_column: bool) -> str:
    names = [name for name, known in KINDS.items() if (known.on_column if on_column else known.on_table)]
    return near_miss(kind, names).strip() or f"the checks are {', '.join(names)}"


# --- the same, for editors ------------------------------------------------------------------------------------------

_JSON_TYPES: Mapping[str, Any] = {
    "values": {"type": "array", "minItems": 1},
    "number": {"type": ["number", "string"]},
    "count": {"type": "integer", "minimum": 0},
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "flag": {"type": "boolean"},
    "age": {"type": ["string", "number"]},
    "bounds": {"type": "array", "items": {"type": ["number", "null"]}, "minItems": 2, "maxItems": 2},
}
_VAR_SCHEMA = {"type": "string", "pattern": r"^\s*\{\{\s*var\(.+\)\s*\}\}\s*$"}
_LIMITS_SCHEMA = {
    "warn_if": {"type": "string", "description": "From how many bad rows on it warns, like > 10 or > 1%."},
    "error_if": {"type": "string", "description": "From how many bad rows on it keeps the candidate out."},
}
_SEVERITY_SCHEMA = {"enum": list(SEVERITIES), "description": "error keeps the candidate out; warn lets it pass."}
_COLUMNS_SCHEMA = {"type": "array", "items": {"type": "string"}, "description": "The columns that it looks at."}


def column_checks_schema() -> dict[str, Any]:
    """JSON Schema of a column's list of checks."""
    forms: list[dict[str, Any]] = [{"enum": [n for n, k in KINDS.items() if k.on_column and not _needed(k)]}]
    for name, kind in KINDS.items():
        if kind.on_column:
            forms.append(_closed({name: _kind_schema(name, {})}, [name], kind.doc))
    return {"type": "array", "items": {"anyOf": forms}}


def table_checks_schema() -> dict[str, Any]:
    """JSON Schema of the asset's `checks:`."""
    every = {argument.name: _argument_schema(argument) for kind in KINDS.values() for argument in kind.arguments}
    every |= {
        "check": {"enum": list(KINDS)},
        "columns": _COLUMNS_SCHEMA,
        "severity": _SEVERITY_SCHEMA,
        **_LIMITS_SCHEMA,
    }
    named = {
        name: _kind_schema(name, {"columns": _COLUMNS_SCHEMA, "check": {"const": name}})
        for name, kind in KINDS.items()
        if kind.on_table
    }
    return {"type": "object", "properties": named, "additionalProperties": _closed(every, [], "A check with a name.")}


def _kind_schema(name: str, more: Mapping[str, Any]) -> dict[str, Any]:
    kind = KINDS[name]
    properties = {argument.name: _argument_schema(argument) for argument in kind.arguments}
    limits = _LIMITS_SCHEMA if kind.counts else {}
    closed = _closed({**properties, **more, "severity": _SEVERITY_SCHEMA, **limits}, _needed(kind), kind.doc)
    return {"anyOf": [closed, properties[kind.short]], "description": kind.doc} if kind.short else closed


def _argument_schema(argument: Argument) -> dict[str, Any]:
    plain = _JSON_TYPES.get(argument.type, {"type": "string"})
    if "string" in plain["type"]:
        return {**plain, "description": argument.doc}
    return {"anyOf": [plain, _VAR_SCHEMA], "description": argument.doc}


def _needed(kind: Kind) -> list[str]:
    return [argument.name for argument in kind.arguments if argument.required]


def _closed(properties: Mapping[str, Any], required: Iterable[str], doc: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
        "description": doc,
    }
