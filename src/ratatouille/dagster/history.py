"""Dagster's own history, by age: its event log grows for ever, and nothing in open-source Dagster prunes it.

A run goes with its events when it ended long enough ago and no asset needs it: the run that holds the newest
materialization of an asset stays, whatever its age. What goes is summed up by day in the journal first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import dagster as dg

from ratatouille.lake import Journal
from ratatouille.lake.journal.books import Do
from ratatouille.lake.journal.retention import Day, day_of, sum_up

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Gone:
    runs: int
    kept: int  # old, but the newest materialization of an asset is in them


def prune_home(home: Path, journal: Journal, before: float, *, dry_run: bool = False) -> Gone:
    """Prune the history in a Dagster home, as `rat dev` makes it."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return prune(instance, journal, before, dry_run=dry_run)


def prune(instance: dg.DagsterInstance, journal: Journal, before: float, *, dry_run: bool = False) -> Gone:
    """Delete runs that ended before a moment (seconds since 1970), and their events."""
    needed = _needed(instance)
    filters = dg.RunsFilter(statuses=_ENDED, updated_before=datetime.fromtimestamp(before, UTC))
    old = instance.get_run_ids(filters)
    gone = [run_id for run_id in old if run_id not in needed]
    for start in range(0, 0 if dry_run else len(gone), _PAGE):
        for record in instance.get_run_records(dg.RunsFilter(run_ids=gone[start : start + _PAGE])):
            if record.start_time and not journal.do(
                "select 1 from runs where run_id = ?", (record.dagster_run.run_id,)
            ):
                journal.alone(partial(_sum_up, record))  # the journal sums up its own
            instance.delete_run(record.dagster_run.run_id)
    return Gone(len(gone), len(old) - len(gone))


def _sum_up(record: dg.RunRecord, do: Do) -> None:
    run, started, ended = record.dagster_run, record.start_time or 0.0, record.end_time or 0.0
    failed = int(run.status == dg.DagsterRunStatus.FAILURE)
    request = json.dumps({"label": f"Dagster {run.job_name}"})
    sum_up(do, [Day(day_of(started), request, 1, failed, 0, max(0.0, ended - started))])


def _needed(instance: dg.DagsterInstance) -> set[str]:
    events = instance.get_latest_materialization_events(instance.all_asset_keys())
    return {event.run_id for event in events.values() if event is not None}
