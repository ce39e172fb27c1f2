"""Which DuckDB types a version can hold, and what the others become.

Parquet keeps 128-bit integers as doubles and the catalog knows no enums, fixed arrays or unions.
A sum of integers is a HUGEINT in DuckDB, so it must not lose digits: it becomes DECIMAL(38,0).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ratatouille.errors import StepFailed
from ratatouille.lake.quoting import ident

Columns = tuple[tuple[str, str], ...]  # (name, DuckDB type)

_QUOTED = re.compile(r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'")
_REPLACED = (
    (re.compile(r"\bU?HUGEINT\b"), "DECIMAL(38,0)"),
    (re.compile(r"\bENUM\([^()]*\)"), "VARCHAR"),
    (re.compile(r"\[\d+\]"), "[]"),
    (re.compile(r"^\x00NULL\x00$"), "INTEGER"),
)
_UNSTORABLE = re.compile(r"\b(BIT|UNION|VARIANT|TIME WITH TIME ZONE|GEOMETRY)\b")


def storable(type_name: str) -> str:
    """The type in which a column of `type_name` is stored; '' if it cannot be stored."""
    hidden: list[str] = []

    def hide(match: re.Match[str]) -> str:
        hidden.append(match.group())
        return (
            "\x00NULL\x00" if match.group() == '"NULL"' and match.group() == type_name else f"\x00{len(hidden) - 1}\x00"
        )

    plain = _QUOTED.sub(hide, type_name)
    if _UNSTORABLE.search(plain):
        return ""
    for pattern, replacement in _REPLACED:
        plain = pattern.sub(replacement, plain)
    return re.sub(r"\x00(\d+)\x00", lambda m: hidden[int(m.group(1))], plain)


def retyped(type_name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    """The type with each pattern replaced; names of fields, which may look like types, stay as they are."""
    parts = re.split(f"({_QUOTED.pattern})", type_name)
    for place in range(0, len(parts), 2):
        for pattern, replacement in rules:
            parts[place] = pattern.sub(replacement, parts[place])
    return "".join(parts)


def nested_fields(type_name: str) -> dict[str, str]:
    """The fields inside a type by their path, with their types: `STRUCT(a STRUCT(b DATE)[])` has `a` and `a.b`."""
    import duckdb

    return dict(_fields(duckdb.sqltypes.DuckDBPyType(type_name), ""))


def _fields(kind: Any, path: str) -> Iterator[tuple[str, str]]:
    if kind.id == "struct":
        for name, inner in kind.children:
            yield f"{path}{name}", str(inner)
            yield from _fields(inner, f"{path}{name}.")
    elif kind.id in ("list", "array", "map"):
        yield from _fields(kind.children[-1 if kind.id == "map" else 0][1], path)


def storable_select(select: str, columns: Columns, asset: str) -> tuple[str, Columns]:
    """`select` with every column in a storable type, and those types."""
    stored = tuple((name, storable(type_name)) for name, type_name in columns)
    for (name, type_name), (_, kept) in zip(columns, stored, strict=True):
        if not kept:
            raise StepFailed(
                f"{asset}: column {name} has type {type_name}, which a table of the lake cannot hold",
                where=f"{asset}, column {name}",
                next=f"cast it in the query, e.g. {name}::varchar, then: rat run {asset}",
            )
        if name.lower().startswith("_ducklake_"):
            raise StepFailed(
                f"{asset}: the column name {name} is reserved",
                where=f"{asset}, column {name}",
                next=f"rename the column, then: rat run {asset}",
            )
    if stored == columns:
        return select, stored
    return f"select {casts(columns, stored)} from (\n{select}\n)", stored


def casts(have: Sequence[tuple[str, str]], want: Sequence[tuple[str, str]]) -> str:
    """A select list that gives each wanted column its type; unchanged columns pass through."""
    types = dict(have)
    return ", ".join(
        ident(name) if types.get(name) == kept else f"cast({ident(name)} as {kept}) as {ident(name)}"
        for name, kept in want
    )


def spelled(type_name: str) -> str:
    """The type as the catalog spells it when a column of it is stored; a spelling that DuckDB does not know stays."""
    import duckdb

    try:
        found = str(duckdb.sqltypes.DuckDBPyType(type_name))
    except duckdb.Error:
        return type_name
    return storable(found) or found
