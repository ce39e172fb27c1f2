"""What a SELECT names, as DuckDB's own parser sees it: its tables and its functions. Nothing is bound, nothing runs.

Two parsers that must agree leave little room for a text that means one thing to the one and another to the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ratatouille.lake.quoting import text


@dataclass(frozen=True, slots=True)
class Names:
    """Names as they are written. `shows`: what SHOW lists (`tables`, `databases`), which is no table."""

    tables: frozenset[tuple[str, str, str]] = frozenset()  # (catalog, schema, name); '' where it is not said
    functions: frozenset[tuple[str, str, str]] = frozenset()  # (catalog, schema, name) of scalars and aggregates
    table_functions: frozenset[tuple[str, str, str]] = frozenset()
    ctes: frozenset[str] = frozenset()  # in lower case
    shows: frozenset[str] = frozenset()
    at_moments: frozenset[tuple[str, str, str]] = frozenset()  # of the tables: those read as they were (AT)


class NotOneSelect(Exception):
    """DuckDB's parser sees something else; the message says what."""


def names_in(sql: str) -> Names:
    """The names in `sql`. NotOneSelect when it is not exactly one statement that only reads."""
    import duckdb

    connection = duckdb.connect(config={"enable_external_access": False, "threads": 1})
    try:
        answer = connection.execute(f"select json_serialize_sql({text(sql)})::varchar").fetchone()
    except (duckdb.Error, ValueError) as error:
        raise NotOneSelect(str(error).splitlines()[0]) from error
    finally:
        connection.close()
    try:
        tree = json.loads(answer[0]) if answer else {}
    except RecursionError:
        raise NotOneSelect("this SQL is nested too deeply") from None
    if tree.get("error", True):
        raise NotOneSelect(str(tree.get("error_message", "it cannot be read")))
    if len(tree["statements"]) != 1:
        raise NotOneSelect("one select is allowed, and here are several statements")
    return _collected(tree["statements"][0])


def _collected(tree: Any) -> Names:
    tables, functions, table_functions, ctes, shows, at_moments = (set[Any]() for _ in range(6))
    for node in _nodes(tree):
        kind = node.get("type")
        if kind == "BASE_TABLE":
            tables.add(named := (node["catalog_name"], node["schema_name"], node["table_name"]))
            at_moments |= {named} if node.get("at_clause") else set()
        elif kind == "SHOW_REF":
            shows.add(node["table_name"].strip('"'))
        elif kind == "TABLE_FUNCTION":
            table_functions.add(_function(node["function"]))
        if node.get("class") in ("FUNCTION", "WINDOW"):
            functions.add(_function(node))
        if "cte_map" in node:
            ctes |= {one["key"].lower() for one in node["cte_map"]["map"]}
    return Names(
        frozenset(tables),
        frozenset(functions - table_functions),
        frozenset(table_functions),
        frozenset(ctes),
        frozenset(shows - {""}),
        frozenset(at_moments),
    )


def _function(node: Any) -> tuple[str, str, str]:
    return node.get("catalog", ""), node.get("schema", ""), str(node.get("function_name", "")).lower()


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object in it, without a stack that the SQL could fill."""
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield node
            left += node.values()
        elif isinstance(node, list):
            left += node
