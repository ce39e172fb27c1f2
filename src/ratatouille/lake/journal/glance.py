"""At a glance: what the journal says of all assets at once, each question one statement that indexes answer.

A workspace may have a thousand assets and a hundred thousand steps: nothing here reads them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ratatouille.lake.journal.books import Do

# Terms of one compound statement: SQLite takes 500.
_AT_ONCE = 200
# Each name once, by jumping from one to the next in the index.
_NAMES = (
    "with recursive named(asset) as (select min(asset) from {table} union all"
    " select (select min(t.asset) from {table} t where t.asset > named.asset) from named where named.asset is not null)"
)


def newest_steps(do: Do) -> dict[str, dict[str, Any]]:
    """Of each asset its newest step that did something, of any status: run_id, attempt, status, started_at, ended_at."""
    names = ("asset", "run_id", "attempt", "status", "started_at", "ended_at")
    found = do(
        f"{_NAMES.format(table='steps')} select {', '.join(f's.{name}' for name in names)} from named n join steps s"
        " on s.asset = n.asset and s.started_at = (select max(started_at) from steps x where x.asset = n.asset"
        " and x.status <> 'skipped')"
        " order by s.attempt",
        (),
    )
    return {row[0]: dict(zip(names, row, strict=True)) for row in found}


def newest_points(do: Do) -> dict[str, dict[str, Any]]:
    """Of each asset the short figures of its newest finished step, with the answers of its checks."""
    names = ("asset", "run_id", "at", "status", "seconds", "rows_total", "rows_kept_out", "checks")
    found = do(
        f"{_NAMES.format(table='points')} select {', '.join(f'p.{name}' for name in names)} from named n join points p"
        " on p.asset = n.asset and p.at = (select max(at) from points x where x.asset = n.asset)",
        (),
    )
    rows = [dict(zip(names, row, strict=True)) for row in found]
    return {row["asset"]: row | {"checks": json.loads(row["checks"] or "{}")} for row in rows}


def trends(do: Do, assets: Sequence[str], last: int = 20) -> dict[str, list[dict[str, Any]]]:
    """Of each of `assets` its last few built steps, oldest first: at, seconds, rows_total, peak_memory_bytes."""
    names = ("asset", "run_id", "at", "seconds", "rows_total", "rows_written", "peak_memory_bytes")
    one = (
        f"select * from (select {', '.join(names)} from points where asset = ? and status = 'built'"
        f" order by at desc limit {int(last)}) t{{}}"
    )
    found: dict[str, list[dict[str, Any]]] = {asset: [] for asset in assets}
    for some in _in_parts(assets):
        rows = do(" union all ".join(one.format(number) for number in range(len(some))), list(some))
        for row in sorted(rows, key=lambda row: float(row[2])):
            found[row[0]].append(dict(zip(names, row, strict=True)))
    return found


def unusual(do: Do) -> dict[str, tuple[str, str]]:
    """Of each asset the newest run in which something about it was unusual, and what; suspicions are left out."""
    found = do(
        "select asset, run_id, said from findings f where level in ('warn', 'fail')"
        " and at = (select max(at) from findings x where x.asset = f.asset and x.level in ('warn', 'fail'))",
        (),
    )
    return {asset: (run_id, said) for asset, run_id, said in found}


def records(do: Do, steps: Sequence[tuple[str, str, int]]) -> dict[str, dict[str, Any]]:
    """What some steps (run, asset, attempt) said of themselves, by asset."""
    found: dict[str, dict[str, Any]] = {}
    for some in _in_parts(steps):
        places = " or ".join("(run_id = ? and asset = ? and attempt = ?)" for _ in some)
        rows = do(f"select asset, record from steps where {places}", [value for step in some for value in step])
        found |= {asset: json.loads(record) if record else {} for asset, record in rows}
    return found


def runs(do: Do, limit: int, *, before: float | None = None, status: str = "") -> list[dict[str, Any]]:
    """Runs, newest first, with the number of their steps by status; `before` a time in seconds since 1970."""
    names = ("run_id", "status", "request", "started_at", "ended_at", "error")
    where = "true" if status == "" else "status = ?"
    values: list[Any] = [status] if status else []
    if before is not None:
        where, values = f"{where} and started_at < ?", [*values, before]
    found = do(f"select {', '.join(names)} from runs where {where} order by started_at desc limit {int(limit)}", values)
    rows = [dict(zip(names, row, strict=True)) for row in found]
    counts: dict[str, dict[str, int]] = {}
    if rows:
        marks = ", ".join("?" * len(rows))
        of_runs = f"select run_id, status, count(*) from steps where run_id in ({marks}) group by run_id, status"
        for run_id, how, number in do(of_runs, [row["run_id"] for row in rows]):
            counts.setdefault(run_id, {})[how] = int(number)
    load: Callable[[str | None], Any] = lambda said: json.loads(said) if said else None  # noqa: E731
    return [
        row
        | {"request": load(row["request"]) or {}, "error": load(row["error"]), "steps": counts.get(row["run_id"], {})}
        for row in rows
    ]


def _in_parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[place : place + _AT_ONCE] for place in range(0, len(items), _AT_ONCE)]
