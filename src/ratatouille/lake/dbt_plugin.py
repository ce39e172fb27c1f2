"""The part of a dbt run that lives in dbt's own process: a plugin of dbt-duckdb, by the name that the profile gives.

dbt works in an in-memory database that holds views only. What the selection does not build is a view onto the lake,
attached read-only at one version; what it builds is staged as Parquet files where the lake keeps that table, and
seen through a view over them. So `ref`, `source` and `this` mean the candidate, and no reader of the lake sees it.

order     what the process is told: a JSON file, named by the variable ORDER
report    what it tells: one JSON line for each model that it has staged
delta     the rows that an incremental model adds; its view is the published rows that stay, together with them
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbt.adapters.duckdb.plugins import BasePlugin  # type: ignore[import-not-found,import-untyped,unused-ignore]
from dbt_common.exceptions import DbtRuntimeError  # type: ignore[import-not-found,import-untyped,unused-ignore]

from ratatouille.errors import RatError, near_miss
from ratatouille.lake.connect import attach_pinned, settings, storage_from_text
from ratatouille.lake.faults import QueryFailed
from ratatouille.lake.quoting import ident, idents, table
from ratatouille.lake.session import Session
from ratatouille.lake.stage import Staged, attempt_folder, discard, stage
from ratatouille.lake.types import Columns, storable

if TYPE_CHECKING:
    import duckdb

ORDER = "RATATOUILLE_DBT_ORDER"
SECRETS = "RATATOUILLE_DBT_SECRETS"  # the number of a pipe: see dbt_project/process.py
SCRATCH = "memory"  # the name of an in-memory database: what dbt writes in front of every name


@dataclass(frozen=True, slots=True)
class Fit:
    """How a delta fits the table that it joins.

    `columns` are the table's afterwards, `delta` the SELECT list of the delta in these. `whole`: a column changes its
    type, so all rows are written anew.
    """

    columns: Columns
    delta: str
    add: Columns = ()
    drop: tuple[str, ...] = ()
    whole: bool = False


class Plugin(BasePlugin):  # type: ignore[misc,unused-ignore]
    """Named `rat` in the profile: `module: ratatouille.lake.dbt_plugin`."""

    def initialize(self, plugin_config: Mapping[str, Any]) -> None:
        self.order = json.loads(Path(os.environ[ORDER]).read_text())
        self.storage = storage_from_text(self.order["storage"])
        self.connection: duckdb.DuckDBPyConnection | None = None
        self.secrets: dict[str, str] = {}
        if pipe := os.environ.pop(SECRETS, ""):
            with os.fdopen(int(pipe)) as read:
                self.secrets = json.load(read)

    def update_connection_config(self, creds: Any, config: dict[str, Any]) -> None:
        config |= settings(self.storage, self.storage.spill / f"{os.getpid()}-dbt")

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        _end_with_the_parent()
        os.environ |= self.secrets  # for as long as attaching takes: no template of the project is rendered meanwhile
        try:
            attach_pinned(conn, self.storage, self.order["version"])
        except RatError as error:
            raise DbtRuntimeError(str(error)) from error
        finally:
            for name in self.secrets:
                os.environ.pop(name, None)
        self.connection = conn
        session = self._session("reading the lake")
        for name in self.order["views"]:
            session.execute(f"create schema if not exists {_scratch(name).rpartition('.')[0]}")
            session.execute(f"create view {_scratch(name)} as select * from {table(name)}")

    def store(self, target_config: Any) -> None:
        """Stage one model. The location's path is its SQL, the format what to do with it: see the macros."""
        relation, select, how = target_config.relation, target_config.location.path, target_config.location.format
        name, started = f"{relation.schema}.{relation.identifier}", time.monotonic()
        session = self._session(f"building {name}")
        try:
            if how == "empty":
                session.execute(f"drop view if exists {_scratch(name)}")
                return
            made = self._made(session, name, select, how, target_config.config)
        except QueryFailed as error:
            raise DbtRuntimeError("\n".join(line for line in (error.message, error.where) if line)) from error
        except RatError as error:
            raise DbtRuntimeError("\n".join(line for line in (error.what, error.where) if line)) from error
        said = {"asset": name, **made, "seconds": time.monotonic() - started}
        with open(self.order["report"], "a") as report:
            report.write(json.dumps(said) + "\n")

    def _session(self, doing: str) -> Session:
        if self.connection is None:
            raise DbtRuntimeError("the lake is not attached")
        return Session(self.connection.cursor(), doing, self.storage.home)

    def _made(self, session: Session, name: str, select: str, how: str, config: Any) -> dict[str, Any]:
        if how == "view":
            _put_view(session, name, select)
            return {"how": "view", "select": select, "columns": session.describe(f"select * from {_scratch(name)}")}
        folder = attempt_folder(self.storage, name, self.order["run_id"], self.order["attempt"])
        if how == "incremental":
            return self._delta(session, name, select, folder, config)
        staged = stage(session, select, name, folder)
        if how == "seed":
            session.execute(f"drop table {_scratch(name)}")
        _put_view(session, name, staged.relation)
        return _as_json(staged, "replace")

    def _delta(self, session: Session, name: str, select: str, folder: Path, config: Any) -> dict[str, Any]:
        have = session.describe(f"select * from {table(name)}")
        given = session.describe(select)
        fit = fitted(name, have, given, config.get("on_schema_change") or "ignore")
        how, key = _strategy(name, config, fit.columns)
        delta = stage(session, f"select {fit.delta} from (\n{select}\n)", name, folder, fit.columns)
        if config.get("incremental_strategy") == "merge":
            _check_key(session, name, delta, key)
        stays = f"select * from {table(name)}"
        if how == "merge" and delta.files:
            stays += f" where not coalesce(({idents(key)}) in (select {idents(key)} from ({delta.relation})), false)"
        kept = [n for n, _ in have if n not in fit.drop]
        if fit.whole:
            types = dict(fit.columns)
            casts = ", ".join(f"cast({ident(n)} as {types[n]}) as {ident(n)}" for n in kept)
            everything = f"select {casts} from ({stays}) union all by name {delta.relation}"
            staged = stage(session, everything, name, Path(f"{folder}.whole"), fit.columns)
            discard(delta)
            _put_view(session, name, staged.relation)
            return _as_json(staged, "replace") | {"mode": "incremental"}
        _put_view(session, name, f"select {idents(kept)} from ({stays}) union all by name {delta.relation}")
        said = {"columns": fit.columns, "unique_key": key, "add": fit.add, "drop": fit.drop, "mode": "incremental"}
        return _as_json(delta, how) | said


def fitted(name: str, have: Columns, given: Columns, on_change: str) -> Fit:
    """What `on_schema_change` makes of a delta with the columns `given` for a table with the columns `have`."""
    table_has, delta_has = {n.lower(): (n, t) for n, t in have}, {n.lower(): (n, storable(t)) for n, t in given}
    new = tuple((n, t) for low, (n, t) in delta_has.items() if low not in table_has)
    gone = tuple(n for low, (n, _) in table_has.items() if low not in delta_has)
    other = [n for low, (n, t) in table_has.items() if low in delta_has and delta_has[low][1] != t]
    if on_change == "fail" and (new or gone or other):
        said = [f"new: {', '.join(n for n, _ in new)}"] if new else []
        said += [f"gone: {', '.join(gone)}"] if gone else []
        said += [f"of another type: {', '.join(other)}"] if other else []
        raise DbtRuntimeError(f"{name}: its columns changed ({'; '.join(said)}), and on_schema_change is fail")
    if on_change == "ignore" and gone:
        raise DbtRuntimeError(
            f"{name}: the query has no column {gone[0]} any more; set on_schema_change, or --full-refresh"
        )
    columns, add, drop = have, new[:0], gone[:0]
    if on_change in ("append_new_columns", "sync_all_columns"):
        columns, add = (*columns, *new), new
    if on_change == "sync_all_columns":
        drop = gone
        columns = tuple((n, delta_has.get(n.lower(), (n, t))[1]) for n, t in columns if n not in gone)
    picked = [_picked(n, t, delta_has.get(n.lower())) for n, t in columns]
    return Fit(columns, ", ".join(picked), add, drop, on_change == "sync_all_columns" and bool(other))


def _picked(name: str, kind: str, given: tuple[str, str] | None) -> str:
    if given is None:
        return f"cast(null as {kind}) as {ident(name)}"
    return f"cast({ident(given[0])} as {kind}) as {ident(name)}"


def _strategy(name: str, config: Any, columns: Columns) -> tuple[str, tuple[str, ...]]:
    """(how the delta joins the table, the columns that say which rows go)."""
    said = config.get("unique_key") or ()
    wanted = [said] if isinstance(said, str) else list(said)
    strategy = config.get("incremental_strategy") or ("delete+insert" if wanted else "append")
    if strategy == "append" or (strategy == "delete+insert" and not wanted):
        return "append", ()
    if not wanted:
        raise DbtRuntimeError(f"{name}: the strategy {strategy} needs a unique_key")
    known = {n.lower(): n for n, _ in columns}
    for column in wanted:
        if column.strip('"').lower() not in known:
            near = near_miss(column, known.values())
            raise DbtRuntimeError(f"{name}: its unique_key names {column}, which is no column of it.{near}")
    return "merge", tuple(known[column.strip('"').lower()] for column in wanted)


def _check_key(session: Session, name: str, delta: Staged, key: Sequence[str]) -> None:
    """MERGE takes the last of two rows with one key and inserts those without: neither may be in the delta."""
    nulls = " or ".join(f"{ident(column)} is null" for column in key)
    rows = f"select {idents(key)} from ({delta.relation})"
    twice = f"select {idents(key)} from ({rows}) group by all having count(*) > 1"
    without, more = session.one(
        f"select (select count(*) from ({rows}) where {nulls}), (select count(*) from ({twice}))"
    )
    if without or more:
        said = f"{more:,} keys are there twice" if more else f"{without:,} rows have none"
        raise DbtRuntimeError(
            f"{name}: the unique_key ({', '.join(key)}) of a merge must be unique and not null: {said}"
        )


def _put_view(session: Session, name: str, select: str) -> None:
    session.execute(f"create schema if not exists {_scratch(name).rpartition('.')[0]}")
    session.execute(f"create or replace view {_scratch(name)} as {select}")


def _scratch(name: str) -> str:
    schema, _, short = name.partition(".")
    return f"{ident(SCRATCH)}.{ident(schema)}.{ident(short)}"


def _as_json(staged: Staged, how: str) -> dict[str, Any]:
    files = [[file.path, file.rows, file.bytes] for file in staged.files]
    return {"how": how, "folder": str(staged.folder), "columns": staged.columns, "files": files}


def _end_with_the_parent() -> None:
    """When the process that wants the result is killed, this one goes too."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
