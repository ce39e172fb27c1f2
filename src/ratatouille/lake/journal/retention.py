"""What of the journal is kept: records of runs for a while, the figures of their steps longer, a line for each day for ever.

A run is summed up in the transaction that deletes it, so it is counted once, in one place or the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ratatouille.errors import LakeError
from ratatouille.lake.journal.books import Do

if TYPE_CHECKING:
    from ratatouille.lake.journal import Journal

TABLES = (
    """create table if not exists run_days (
    day text, request text, runs bigint, failed bigint, died bigint, seconds double precision,
    primary key (day, request))""",
)
# Whatever their age: what `rat runs` shows on its first pages, and what steps are compared with.
NEWEST_RUNS, NEWEST_POINTS = 100, 50
_AT_ONCE = 500  # runs in one transaction: nobody waits long for the journal
_WORTH_A_VACUUM = 2000
_OF_RUNS = ("steps", "samples", "findings", "run_notes", "runs")


@dataclass(frozen=True, slots=True)
class Day:
    """The runs of one day (UTC) that were asked for the same, when their records are gone."""

    day: str
    request: str
    runs: int
    failed: int = 0
    died: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Pruned:
    runs: int
    steps: int
    points: int
    messages: int


def prune(journal: Journal, before: float, figures_before: float, *, dry_run: bool = False) -> Pruned:
    """Delete records of runs that ended before a moment, summed up, and figures of steps before another one."""
    old = [
        row[0]
        for row in journal.do(
            "select run_id from runs where status <> 'running' and coalesce(ended_at, heartbeat_at) < ?"
            " and run_id not in (select run_id from runs order by started_at desc limit ?) order by started_at",
            (before, NEWEST_RUNS),
        )
    ]
    marks = ", ".join("?" * len(old))
    steps = journal.do(f"select count(*) from steps where run_id in ({marks})", old)[0][0] if old else 0
    points = list(_old_points(journal, figures_before))
    gone = sum(_count(journal, *one) for one in points)
    sent = journal.do("select count(*) from alert_outbox where made_at < ?", (before,))[0][0]
    if not dry_run:
        for start in range(0, len(old), _AT_ONCE):
            journal.alone(partial(_delete_runs, old[start : start + _AT_ONCE]))
        for asset, at in points:
            journal.do("delete from points where asset = ? and at < ?", (asset, at))
        journal.do("delete from alert_outbox where made_at < ?", (before,))
        journal.do("delete from alert_states where is_open = 0 and seen_at < ?", (before,))
        if steps > _WORTH_A_VACUUM:
            with suppress(LakeError):  # somebody reads: the room is used again all the same
                journal.do("vacuum")
    return Pruned(len(old), int(steps), gone, int(sent))


def _old_points(journal: Journal, before: float) -> Iterable[tuple[str, float]]:
    """(asset, before when its points go): the newest ones stay."""
    for (asset,) in journal.do("select distinct asset from points where at < ?", (before,)):
        kept = journal.do(
            "select at from points where asset = ? order by at desc limit 1 offset ?", (asset, NEWEST_POINTS - 1)
        )
        if kept:
            yield asset, min(before, float(kept[0][0]))


def _count(journal: Journal, asset: str, before: float) -> int:
    return int(journal.do("select count(*) from points where asset = ? and at < ?", (asset, before))[0][0])


def _delete_runs(runs: list[str], do: Do) -> None:
    marks = ", ".join("?" * len(runs))
    rows = do(f"select request, status, started_at, ended_at from runs where run_id in ({marks})", runs)
    sum_up(do, [_as_day(*row) for row in rows])
    for table in _OF_RUNS:
        do(f"delete from {table} where run_id in ({marks})", runs)


def _as_day(request: str, status: str, started_at: float, ended_at: float | None) -> Day:
    took = max(0.0, (ended_at or started_at) - started_at)
    return Day(day_of(started_at), request, 1, int(status == "failed"), int(status == "died"), took)


def day_of(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"


def sum_up(do: Do, days: Iterable[Day]) -> None:
    for one in days:
        do(
            "insert into run_days (day, request, runs, failed, died, seconds) values (?, ?, ?, ?, ?, ?)"
            " on conflict (day, request) do update set runs = run_days.runs + excluded.runs,"
            " failed = run_days.failed + excluded.failed, died = run_days.died + excluded.died,"
            " seconds = run_days.seconds + excluded.seconds",
            (one.day, one.request, one.runs, one.failed, one.died, one.seconds),
        )


def days(journal: Journal, limit: int = 1000) -> list[dict[str, Any]]:
    """Days whose runs have no records any more, newest first."""
    names = ("day", "request", "runs", "failed", "died", "seconds")
    rows = journal.do(f"select {', '.join(names)} from run_days order by day desc, request limit ?", (limit,))
    return [dict(zip(names, row, strict=True)) | {"request": json.loads(row[1])} for row in rows]
