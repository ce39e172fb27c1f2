"""The one place where names and values become SQL text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

LAKE = "lake"  # the catalog alias, the same in every connection: stored views name it
BASE = "base_lake"  # the default lake, seen from an environment: read-only, at one version
METADATA = f"__ducklake_metadata_{LAKE}"  # the catalog's own tables


def ident(name: str) -> str:
    """`name` as a quoted identifier."""
    if "\x00" in name:
        raise ValueError("a name cannot hold a NUL character")
    return '"' + name.replace('"', '""') + '"'


def idents(names: Iterable[str]) -> str:
    return ", ".join(ident(name) for name in names)


def table(asset: str, lake: str = LAKE) -> str:
    """`silver.sales` as `"lake"."silver"."sales"`."""
    layer, _, name = asset.partition(".")
    return f"{ident(lake)}.{ident(layer)}.{ident(name)}"


def literal(value: Any) -> str:
    """A Python value as an SQL literal; what is not a plain scalar is refused."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case float():
            return f"'{value!r}'::double"
        case datetime():
            return f"'{value.isoformat(sep=' ')}'::{'timestamptz' if value.tzinfo else 'timestamp'}"
        case date():
            return f"'{value.isoformat()}'::date"
        case time():
            return f"'{value.isoformat()}'::time"
        case str():
            return text(value)
        case list() | tuple():
            return "[" + ", ".join(literal(item) for item in value) + "]"
    raise TypeError(f"no SQL literal for {type(value).__name__}")


def text(value: str) -> str:
    """A string literal. chr(0) cannot stand in SQL text, so it is refused."""
    if "\x00" in value:
        raise ValueError("a value cannot hold a NUL character")
    return "'" + value.replace("'", "''") + "'"


def member(name: str) -> str:
    """Where `name` stands in a JSON object, as a literal: a pointer, because a JSON path cannot write a quote."""
    return text("/" + name.replace("~", "~0").replace("/", "~1"))


def texts(values: Iterable[str]) -> str:
    return "[" + ", ".join(text(value) for value in values) + "]"
