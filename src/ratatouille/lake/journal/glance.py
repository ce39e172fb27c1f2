"""At a glance: what the journal says of all assets at once, each question one statement that indexes answer.

A workspace may have a thousand assets and a hundred thousand steps: nothing here reads them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from ratatouille.lake.journal.books import Do

# Terms of one compound statement: SQLite takes 500.
_AT_ONCE = 200
# Each name once, by jumping from one to the next in the index.
_ALL_NAMES = (
    "with recursive named(asset) as (select min(asset) from {table} union all"
    " select (select min(t.asset) from {table} t where t.asset > named.asset) from named where named.asset is not null)"
)


def newest_steps(do: Do, assets: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Of each asset (of `assets`, if given) its newest step that did something, of any status.

    run_id, attempt, status, started_at, ended_at.
    """
    names = ("asset", "run_id", "attempt", "status", "started_at", "ended_at")
    query = (
        f"select {', '.join(f's.{name}' for name in names)} from named n join steps s"
        " on s.asset = n.asset and s.started_at = (select max(started_at) from steps x where x.asset = n.asset"
        " and x.status not in ('skipped', 'done')) order by s.attempt"
    )
    found = _of_each(do, query, "steps", assets)
    return {row[0]: dict(zip(names, row, strict=True)) for row in found}


def newest_points(do: Do, assets: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Of each asset the short figures of its newest finished step, with the answers of its checks."""
    names = ("asset", "run_id", "at", "status", "seconds", "rows_total", "rows_kept_out", "checks")
    query = (
        f"select {', '.join(f'p.{name}' for name in names)} from named n join points p"
        " on p.asset = n.asset and p.at = (select max(at) from points x where x.asset = n.asset)"
    )
    rows = [dict(zip(names, row, strict=True)) for row in _of_each(do, query, "points", assets)]
    return {row["asset"]: row | {"checks": _checks(row["checks"])} for row in rows}


@lru_cache(maxsize=10_000)
def _checks(said: str | None) -> Mapping[str, Sequence[Any]]:
    return MappingProxyType(json.loads(said or "{}"))


def _of_each(do: Do, query: str, table: str, assets: Sequence[str] | None) -> list[tuple[Any, ...]]:
    if assets is None:
        return do(f"{_ALL_NAMES.format(table=table)} {query}", ())
    found: list[tuple[Any, ...]] = []
    for some in _in_parts(list(assets)):
        found += do(f"with named(asset) as (values {', '.join(['(?)'] * len(some))}) {query}", list(some))
    return found


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


def points_of(do: Do, asset: str, versions: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Of some versions of an asset the short figures of the step that published each."""
    names = ("version", "rows_in", "rows_kept_out", "peak_memory_bytes", "measured", "checks")
    found: dict[int, dict[str, Any]] = {}
    for some in _in_parts(list(versions)):
        marks = ", ".join("?" * len(some))
        rows = do(
            f"select {', '.join(names)} from points where asset = ? and status = 'built' and version in ({marks})"
            " order by at",
            [asset, *some],
        )
        for row in rows:
            said = dict(zip(names, row, strict=True))
            found[said["version"]] = said | {name: json.loads(said[name] or "{}") for name in ("measured", "checks")}
    return found


def unusual(do: Do) -> dict[str, tuple[str, str]]:
    """Of each asset the newest run in which something about it was unusual, and what; suspicions are left out."""
    found = do(
        "select asset, run_id, said from findings f where level in ('warn', 'fail')"
        " and at = (select max(at) from findings x where x.asset = f.asset and x.level in ('warn', 'fail'))",
        (),
    )
    return {asset: (run_id, said) for asset, run_id, said in found}


def records(do: Do, steps: Sequence[tuple[str, str, int]]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """What some steps (run, asset, attempt) said of themselves."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for some in _in_parts(steps):
        places = " or ".join("(run_id = ? and asset = ? and attempt = ?)" for _ in some)
        values = [value for step in some for value in step]
        for *step, record in do(f"select run_id, asset, attempt, record from steps where {places}", values):
            found[(step[0], step[1], step[2])] = json.loads(record) if record else {}
    return found


def steps_of(do: Do, run_id: str) -> list[dict[str, Any]]:
    """Every step of a run without what it said of itself: asset, attempt, status, started_at, ended_at."""
    names = ("run_id", "asset", "attempt", "status", "started_at", "ended_at")
    rows = do(f"select {', '.join(names)} from steps where run_id = ? order by started_at", (run_id,))
    return [dict(zip(names, row, strict=True)) for row in rows]


def notes(do: Do, run_id: str) -> dict[str, Any]:
    """What a run said of itself as a whole: `left_out` (status, reason, count, assets) and `warnings`."""
    found = do("select record from run_notes where run_id = ?", (run_id,))
    return dict(json.loads(found[0][0])) if found else {}


def note(do: Do, run_id: str, said: Mapping[str, Any]) -> None:
    do(
        "insert into run_notes (run_id, record) values (?, ?) on conflict (run_id) do update set record = excluded.record",
        (run_id, json.dumps(said)),
    )


def run_before(do: Do, run_id: str) -> str:
    """The newest run before this one that was asked for the same; '' if there is none."""
    found = do(
        "select b.run_id from runs a join runs b on b.request = a.request and b.started_at < a.started_at"
        " where a.run_id = ? order by b.started_at desc limit 1",
        (run_id,),
    )
    return str(found[0][0]) if found else ""


def _in_parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[place : place + _AT_ONCE] for place in range(0, len(items), _AT_ONCE)]
