"""The process that runs the console's queries: one line of JSON in, one line of JSON out, until nobody asks any more.

It is a process of its own because a time limit that only asks DuckDB to stop is none: one call of a function may take
hours and is not interrupted. Here the kernel's alarm ends the process, whatever it is at, and its memory is limited by
the kernel too. It has no secrets in its environment but those of the lake, and what it reads is checked twice: by name,
as both parsers see the query, and by DuckDB, which may open no file outside the lake.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from ratatouille.engine import ask, storage_of
from ratatouille.errors import LakeError, RatError, RequestError
from ratatouille.lake import Session
from ratatouille.lake.ledger import SCHEMA as LEDGER_SCHEMA
from ratatouille.lake.quoting import LAKE
from ratatouille.lake.select_names import Names, NotOneSelect, names_in
from ratatouille.project.records import Resources, Workspace
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
_NEXT = "The console reads tables by layer and name: select * from silver.sales"


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


def refuse_tables(names: Names, schemas: set[str], hidden: Container[str] = ()) -> None:
    """RequestError for the first name that is neither a table in one of `schemas` (lower case) nor one of `with`.

    `hidden`: tables (lower case) with masked columns. Of those only the current version has its mask.
    """
    for catalog, schema, table in sorted(names.tables):
        said = ".".join(part for part in (catalog, schema, table) if part)
        if any(sign in said for sign in "/\\*"):
            _refuse(f"'{said}' is no table: the console reads no files", said)
        if catalog:
            _refuse(f"{said} names the lake as well", said, f"Say it by layer and name alone: {schema}.{table}")
        if schema.lower() not in schemas and not (not schema and table.lower() in names.ctes):
            where = f"there is no layer called '{schema}'" if schema else "a table is called by layer and name"
            _refuse(f"{said}: {where}", said)
        if (catalog, schema, table) in names.at_moments and said.lower() in hidden:
            _refuse(f"{said} has columns that are masked, and no earlier version of it can be read here", said)


def _refuse(what: str, where: str, next: str = _NEXT) -> None:
    raise RequestError(f"This query cannot run: {what}.", where=where[:200], next=next)


def check(sql: str) -> Names:
    """What the query names, when both parsers see exactly one SELECT in it; RequestError otherwise."""
    parse_select(sql)
    try:
        return names_in(sql)
    except NotOneSelect as error:
        hint = "Name the values of a pivot: pivot silver.sales on city in ('Rome', 'Oslo') using sum(total)"
        raise RequestError(
            f"This query cannot run: {error}", where="query", next=hint if "pivot" in sql.lower() else _NEXT
        ) from error


def answered(request: Mapping[str, Any]) -> dict[str, Any]:
    """What one request comes to: columns, rows and whether there are more; or the file that was written."""
    began, limits, sql = time.monotonic(), request["limits"], str(request["sql"]).strip().rstrip(";").rstrip()
    names = check(sql)
    refuse_functions(names)
    said = dict(request["workspace"])
    workspace = Workspace(**said | {"layers": tuple(said["layers"]), "resources": Resources(**said["resources"])})
    hidden = {table: frozenset(columns) for table, columns in request["hidden"].items()}
    target = Path(request["target"]) if request.get("target") else None
    with ask.reading(workspace, writes=target, hidden=hidden, spill_bytes=limits["spill_bytes"]) as session:
        refuse_tables(names, _schemas(session), {name.lower() for name in hidden})
        if target is not None:
            return {"rows": _write(session, sql, target, workspace, limits)}
        found = ask.answer(session, sql, limits["rows"], longest=limits["cell"], characters=limits["characters"])
    return {"columns": found.columns, "rows": found.rows, "more": found.more, "seconds": time.monotonic() - began}


def _schemas(session: Session) -> set[str]:
    """The layers that may be read, in lower case: all of the lake's but the ledger."""
    rows = session.rows("select schema_name from duckdb_schemas() where not internal")
    return {str(name).lower() for (name,) in rows} - {"main", LEDGER_SCHEMA, LAKE}


def _write(session: Session, sql: str, target: Path, workspace: Workspace, limits: Mapping[str, Any]) -> int:
    most = limits["file_rows"]
    written = ask.write_answer(session, f"select * from (\n{sql}\n) limit {most + 1}", target, storage_of(workspace))
    if written > most:
        raise RequestError(
            f"This query gives more than {most:,} rows, which is more than a download holds.",
            where="query",
            next=f"rat query SQL -o {target.name} writes them all",
        )
    return written


def _plainly(error: RatError | MemoryError) -> RatError:
    """What a person is told: with less memory than a run has, it is no matter of workspace.yaml."""
    if isinstance(error, RatError) and "memory limit was reached" not in error.what:
        return error
    return LakeError(
        "This query was stopped: it needs more memory than the console gives.",
        where="query",
        next="Ask for less (where, limit, fewer columns), or in a terminal: rat query SQL",
    )


def limit_this_process(memory_bytes: int, file_bytes: int) -> None:
    """Let the kernel hold this process to so much more memory than it has now, to files of so many bytes, and no dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    held = next(
        int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line
    )
    resource.setrlimit(resource.RLIMIT_DATA, (held + memory_bytes, held + memory_bytes))


def serve(memory_bytes: int, file_bytes: int) -> None:
    """Answer request after request. The alarm that ends a query that takes too long ends the process with it."""
    names_in("select 1")  # what every query needs is loaded before anybody waits for it
    limit_this_process(memory_bytes, file_bytes)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever else may write there
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["limits"]["seconds"])
        try:
            reply = answered(request)
        except (RatError, MemoryError) as error:
            reply = {"error": _plainly(error).as_record()}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
