"""What the console lets through: one SELECT on tables of layers, with functions that compute. Everything else by name.

It is checked as both parsers see the query, before the lake is opened for it; what slips through meets a connection that
opens no file outside the lake, and a process that has nothing to tell.
"""

from __future__ import annotations

from collections.abc import Container

from ratatouille.errors import RequestError
from ratatouille.lake import Session
from ratatouille.lake.ledger import SCHEMA as LEDGER_SCHEMA
from ratatouille.lake.quoting import BASE, LAKE
from ratatouille.lake.select_names import Names, NotOneSelect, names_in
from ratatouille.project.sql import parse_select

# A table function that is not here reads files, settings, secrets or the catalog; none of the lake's tables needs one.
TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "repeat", "repeat_row"}
# They tell of this machine, change something, or run a text as SQL.
_REFUSED = {
    *("getenv", "getvariable", "current_setting", "write_log", "nextval", "currval", "setseed", "sleep_ms", "query"),
    *("query_table", "json_execute_serialized_sql", "json_serialize_plan", "current_database_path", "which_secret"),
    *("txid_current", "current_query", "current_connection_id", "current_query_id", "current_transaction_id"),
}
_REFUSED_BEGINNINGS = ("read_", "scan_", "pragma_", "duckdb_", "sqlite_", "postgres_", "mysql_", "ducklake_", "pg_")
# Schemas that are no layers: of DuckDB, and the ledger, whose quarantine holds whole rows.
NO_LAYERS = {"main", "temp", "memory", "system", "information_schema", "pg_catalog", LAKE, BASE, LEDGER_SCHEMA}
_NEXT = "The console reads tables by layer and name: select * from silver.sales"


def check(sql: str, hidden: Container[str] = ()) -> Names:
    """What the query names, when it may run as far as can be said without a lake; RequestError says why not.

    `hidden`: tables (lower case) with masked columns.
    """
    parse_select(sql)
    try:
        names = names_in(sql)
    except NotOneSelect as error:
        hint = "Name the values of a pivot: pivot silver.sales on city in ('Rome', 'Oslo') using sum(total)"
        raise RequestError(
            f"This query cannot run: {error}", where="query", next=hint if "pivot" in sql.lower() else _NEXT
        ) from error
    refuse_functions(names)
    refuse_tables(names)
    refuse_earlier(names, hidden)
    return names


def refuse_functions(names: Names) -> None:
    """RequestError for the first function that does more than compute."""
    for catalog, schema, function in sorted(names.table_functions):
        if function not in TABLE_FUNCTIONS or catalog or schema not in ("", "main"):
            _refuse(f"{function}() is not for the console: it reads more than tables of the lake", function)
    for catalog, schema, function in sorted(names.functions):
        known = not catalog and schema in ("", "main")
        if not known or function in _REFUSED or function.startswith(_REFUSED_BEGINNINGS):
            _refuse(f"{function}() is not for the console: it does more than compute a value", function)
    for shown in sorted(names.shows):
        _refuse(f"show {shown} is not for the console", shown, "The overview lists all tables; describe silver.sales")


def refuse_tables(names: Names) -> None:
    """RequestError for the first name that is neither a table of a layer nor one of `with`."""
    for catalog, schema, table in sorted(names.tables):
        said = ".".join(part for part in (catalog, schema, table) if part)
        if any(sign in said for sign in "/\\*"):
            _refuse(f"'{said}' is no table: the console reads no files", said)
        if catalog:
            _refuse(f"{said} names the lake as well", said, f"Say it by layer and name alone: {schema}.{table}")
        if schema.lower() in NO_LAYERS:
            _refuse(f"{said}: '{schema}' is no layer", said)
        # A name of `with` may be said where it does not reach: then it must not be one of DuckDB's own views.
        if not schema and (table.lower() not in names.ctes or table.lower().startswith(_REFUSED_BEGINNINGS)):
            _refuse(f"{said}: a table is called by layer and name", said)


def layers_of(session: Session) -> set[str]:
    """The layers of an open lake, in lower case."""
    rows = session.rows(f"select schema_name from duckdb_schemas() where database_name in ('{LAKE}', '{BASE}')")
    return {str(name).lower() for (name,) in rows} - NO_LAYERS


def refuse_schemas(names: Names, layers: Container[str]) -> None:
    """RequestError for what is no layer of the lake: `x.y` may also be the table y of a database x."""
    for _, schema, table in sorted(names.tables):
        if schema and schema.lower() not in layers:
            _refuse(f"{schema}.{table}: there is no layer called '{schema}'", f"{schema}.{table}")


def refuse_earlier(names: Names, hidden: Container[str]) -> None:
    """RequestError for an earlier version of a table in `hidden` (lower case): only the current one has its mask."""
    for _, schema, table in sorted(names.at_moments):
        if (said := f"{schema}.{table}").lower() in hidden:
            _refuse(f"{said} has columns that are masked, and no earlier version of it can be read here", said)


def _refuse(what: str, where: str, next: str = _NEXT) -> None:
    raise RequestError(f"This query cannot run: {what}.", where=where[:200], next=next)
