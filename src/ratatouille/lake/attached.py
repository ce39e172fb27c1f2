"""Databases beside the lake: attached read-only when an asset first asks, with the password from a DuckDB secret.

A password is read from its variable here and goes nowhere else: not into a record, a query, an error or a log.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ratatouille.errors import RatError, RequestError, TransientError, redact
from ratatouille.lake.connect import Lake, load_extension
from ratatouille.lake.quoting import ident, text
from ratatouille.lake.session import Session

_EXTENSIONS = {"sqlite": "sqlite_scanner", "postgres": "postgres_scanner", "mysql": "mysql_scanner"}


@dataclass(frozen=True, slots=True)
class External:
    """A database: `path` of sqlite, absolute; the rest of a server. `password_env` names a variable."""

    name: str
    type: str  # sqlite | postgres | mysql
    path: str = ""
    host: str = ""
    port: int = 0
    database: str = ""
    user: str = ""
    password_env: str = ""


def attached_table(lake: Lake, database: External, table: Sequence[str]) -> str:
    """A relation over a table of `database`, which is attached if it is not yet.

    Raises RequestError if it is not there or its password is not set, TransientError if a server does not answer.
    """
    alias = f"external_{database.name}"
    with lake.guard_of(alias), lake.session(f"attaching {database.name}") as session:
        known = f"select count(*) from duckdb_databases() where database_name = {text(alias)}"
        if not session.value(known):
            load_extension(session, _EXTENSIONS[database.type])
            _attach(session, database, alias)
    return ".".join(map(ident, (alias, *table)))


def _attach(session: Session, database: External, alias: str) -> None:
    where = f"workspace.yaml: databases.{database.name}"
    if database.type == "sqlite":
        if not Path(database.path).is_file():
            raise RequestError(f"there is no file {database.path}", where=where, next="mend the path, then: rat run")
        session.execute(f"attach {text(database.path)} as {ident(alias)} (type sqlite, read_only)")
        return
    said = {
        "host": database.host,
        "port": str(database.port or ""),
        "database": database.database,
        "user": database.user,
    }
    if database.password_env:
        if database.password_env not in os.environ:
            raise RequestError(
                f"the variable {database.password_env}, the password of {database.name}, is not set",
                where=where,
                next=f"export {database.password_env}=..., then the same again",
            )
        said["password"] = os.environ[database.password_env]
    options = ", ".join(f"{key} {text(value)}" for key, value in said.items() if value)
    try:
        session.execute(f"create or replace temporary secret {ident(alias)} (type {database.type}, {options})")
        session.execute(f"attach '' as {ident(alias)} (type {database.type}, secret {ident(alias)}, read_only)")
    except RatError as error:
        # From nothing: the query holds the password, and so might the cause.
        secret = said.get("password")
        what = redact(error.what.replace(secret, "[hidden]") if secret else error.what)
        raise TransientError(
            f"{database.name} cannot be reached: {what}",
            where=f"{where} ({database.type}, {database.host})",
            next="is it running, and are host, user and password right? Then the same again",
        ) from None
