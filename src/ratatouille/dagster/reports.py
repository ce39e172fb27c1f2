"""Reporting by pull: a sensor tells Dagster's history of what was published outside of Dagster.

`rat run` writes the ledger and knows nothing of Dagster; this sensor reads the ledger and needs nobody to be up. Each
publish becomes one materialization with the results of its checks, in the order of versions.

place      how far the ledger has been read: (version, asset) of the last entry that was looked at
sweep      a look at the newest entry of each asset: at the very start, where the history from before is too much to
           tell, and when assets were added. It has a place of its own
seen       the lake's newest version when everything had been told: as long as it stands nothing is opened
told       an entry that Dagster's history has: under the ledger's id of its run. A tick that dies half-way is repeated,
           and tells only what is missing

What a Dagster run publishes it tells by itself; while it works its entries are left alone. If it died between the
publish and the telling, or ran an asset that it had not planned (Python code that calls `run`), this sensor tells it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from ratatouille.dagster.checks import check_results
from ratatouille.dagster.keys import Prefix, key_of, word
from ratatouille.dagster.metadata import materialization_metadata
from ratatouille.engine.workbench import storage_of
from ratatouille.errors import RatError
from ratatouille.lake import Entry, Session, catalogs, ledger, open_lake
from ratatouille.project.records import Project

LOOK_EVERY_S = 15
ENTRIES_PER_TICK = 50
_READ_AT_ONCE = 200
_CLOCKS_DIFFER = timedelta(days=1)
_NEWEST_TOLD = 500  # materializations of one asset, newest first, that are searched for an entry
_DATA_VERSION = "dagster/data_version"

Place = tuple[int, str]
_END: Place = (2**62, "")
Event = dg.AssetMaterialization | dg.AssetCheckEvaluation


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor remembers between two ticks."""

    place: Place | None = None
    anchor: str = ""  # the run of the newest entry at the place: in another lake there is another one
    sweep: Place | None = None  # while one is going on
    swept: str = ""  # checksum of the names that the last sweep was for
    seen: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """The part of a workspace that this code location shows."""

    root: Path
    project: Project
    prefix: Prefix

    @property
    def names(self) -> str:
        return hashlib.sha256("\n".join(self.project.assets).encode()).hexdigest()[:12]


def ledger_sensor(
    root: Path, project: Project, prefix: Prefix = (), *, entries_per_tick: int = ENTRIES_PER_TICK
) -> dg.SensorDefinition:
    """The sensor `<workspace>_ledger`: tells of what was published outside of Dagster. On by default."""
    watched = Watched(root, project, prefix)

    @dg.sensor(
        name=word("_".join([*(prefix or (project.workspace.name,)), "ledger"])),
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells Dagster of what `rat run` has published, once for each version.",
    )
    def tell(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _tick(watched, context.instance, context.cursor, entries_per_tick)

    return tell


def _tick(watched: Watched, instance: dg.DagsterInstance, text: str | None, most: int) -> dg.SensorResult:
    cursor = _read(text)
    catalog = storage_of(watched.project.workspace).catalog
    newest = catalogs.newest_version(catalog)
    if newest is None:
        reason = "The catalog is in use; it is looked at again." if catalog.exists() else "There is no lake yet."
        return dg.SensorResult(skip_reason=reason, cursor=text)
    if cursor.seen == newest and cursor.swept == watched.names:
        return dg.SensorResult(skip_reason=f"Nothing was published since version {newest[0]}.", cursor=text)
    try:
        entries, cursor = _next_entries(watched, cursor, newest, most)
    except (RatError, OSError) as error:
        what = error.what if isinstance(error, RatError) else str(error)
        return dg.SensorResult(skip_reason=f"The ledger cannot be read now: {what}", cursor=text)
    events = list(_events(watched, instance, entries))
    told = sum(isinstance(event, dg.AssetMaterialization) for event in events)
    said = f"Told of {told} of {len(entries)} entries." if entries else f"Nothing to tell up to version {newest[0]}."
    return dg.SensorResult(skip_reason=said, cursor=json.dumps(asdict(cursor)), asset_events=events)


def _read(text: str | None) -> Cursor:
    """The cursor; the start if there is none, or if it is not ours."""
    try:
        facts = json.loads(text or "{}")
        place, sweep = (
            (int(found[0]), str(found[1])) if (found := facts[name]) else None for name in ("place", "sweep")
        )
        seen = (int(facts["seen"][0]), str(facts["seen"][1])) if facts["seen"] else None
        return Cursor(place, str(facts["anchor"]), sweep, str(facts["swept"]), seen)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Cursor()


# What to tell next


def _next_entries(watched: Watched, cursor: Cursor, newest: tuple[int, str], most: int) -> tuple[list[Entry], Cursor]:
    """At most `most` entries, oldest first, and the cursor behind them."""
    with open_lake(storage_of(watched.project.workspace)) as lake, lake.pinned("reading the ledger") as session:
        found, last = _newer(session, cursor.place or _END)
        if cursor.place is None or cursor.anchor != _anchor(last):
            # Never looked, or another lake than last time: what stands is enough to begin with.
            last = found[-1] if found else last
            found, cursor = [], Cursor(_place(last) if last else (0, ""), _anchor(last))
        if found:
            batch = found[:most]
            return batch, replace(cursor, place=_place(batch[-1]), anchor=_anchor(batch[-1]), seen=None)
        if cursor.swept == watched.names and cursor.sweep is None:
            return [], replace(cursor, seen=newest)
        after = cursor.sweep or (0, "")
        heads = sorted(ledger.heads(session, list(watched.project.assets)).values(), key=_place)
        left = [entry for entry in heads if _place(entry) > after]
        if len(left) > most:
            return left[:most], replace(cursor, sweep=_place(left[most - 1]), seen=None)
        return left, replace(cursor, sweep=None, swept=watched.names, seen=newest)


def _newer(session: Session, place: Place) -> tuple[list[Entry], Entry | None]:
    """Every entry behind `place`, oldest first, and the newest entry that is not."""
    limit = _READ_AT_ONCE
    while True:
        found = sorted(ledger.entries(session, limit=limit), key=_place)
        older = [entry for entry in found if _place(entry) <= place]
        # Entries of one version come in any order, so the page may end in the middle of one.
        if len(found) < limit or (older and found[0].version < older[-1].version):
            return found[len(older) :], older[-1] if older else None
        limit *= 4


def _place(entry: Entry) -> Place:
    return entry.version, entry.asset


def _anchor(entry: Entry | None) -> str:
    return entry.run_id if entry else ""


# How it is told


def _events(watched: Watched, instance: dg.DagsterInstance, entries: Sequence[Entry]) -> Iterator[Event]:
    """What is missing in Dagster's history about `entries`."""
    planned = {run_id: _planned(instance, run_id) for run_id in {entry.run_id for entry in entries}}
    for entry in entries:
        asset = watched.project.assets.get(entry.asset)
        if asset is None:
            continue  # of a Python asset, of another code location, or its file is gone
        key = key_of(entry.asset, watched.prefix)
        if key in planned[entry.run_id] or (entry.action == "compact" and _has_these_rows(instance, key, entry)):
            continue
        checks = list(_evaluations(watched, entry, key))
        if not _is_told(instance, key, entry):
            metadata = materialization_metadata(asset, entry, None, watched.prefix)
            yield dg.AssetMaterialization(
                asset_key=key,
                description=_described(entry),
                metadata={**metadata, "published at": dg.MetadataValue.timestamp(_published_at(entry))},
                tags={_DATA_VERSION: str(entry.data_version)},
            )
        else:
            checks = [check for check in checks if not _check_is_told(instance, check, entry)]
        yield from checks


def _described(entry: Entry) -> str:
    what = "Rolled back" if entry.action == "rollback" else "Published"
    by = f" by {entry.published_by}" if entry.published_by else ""
    return f"{what} outside of Dagster{by}, run {entry.run_id}"


def _evaluations(watched: Watched, entry: Entry, key: dg.AssetKey) -> Iterator[dg.AssetCheckEvaluation]:
    asset = watched.project.assets[entry.asset]
    for result in check_results(asset, key, entry.checks):
        assert result.check_name is not None  # noqa: S101  check_results names them all
        yield dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=result.check_name,
            passed=result.passed,
            metadata={**result.metadata, "run": entry.run_id},
            severity=result.severity,
            description=result.description,
            blocking=result.severity == dg.AssetCheckSeverity.ERROR,
        )


def _planned(instance: dg.DagsterInstance, run_id: str) -> set[dg.AssetKey]:
    """What a Dagster run that is not over yet has planned to tell by itself; nothing for a run of `rat`."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return set()
    planned: set[dg.AssetKey] = set()
    cursor, more = None, True
    while more:  # a page has a thousand events
        page = instance.get_records_for_run(run_id, cursor, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
        events = (record.event_log_entry.dagster_event for record in page.records)
        planned |= {event.asset_key for event in events if event is not None and event.asset_key is not None}
        cursor, more = page.cursor, page.has_more
    return planned


def _is_told(instance: dg.DagsterInstance, key: dg.AssetKey, entry: Entry) -> bool:
    """Whether Dagster's history has the publish: no telling of it is older than the publish itself."""
    since = _published_at(entry) - _CLOCKS_DIFFER
    wanted = dg.AssetRecordsFilter(key, after_timestamp=since.timestamp())
    for record in instance.fetch_materializations(wanted, limit=_NEWEST_TOLD).records:
        told = record.asset_materialization
        if record.run_id == entry.run_id or (told is not None and _run_of(told.metadata) == entry.run_id):
            return True
    return False


def _has_these_rows(instance: dg.DagsterInstance, key: dg.AssetKey, entry: Entry) -> bool:
    """Whether the newest telling is of the same rows: files that were merged are no news."""
    newest = instance.fetch_materializations(dg.AssetRecordsFilter(key), limit=1).records
    told = newest[0].asset_materialization if newest else None
    return told is not None and (told.tags or {}).get(_DATA_VERSION) == str(entry.data_version)


def _check_is_told(instance: dg.DagsterInstance, check: dg.AssetCheckEvaluation, entry: Entry) -> bool:
    history = instance.event_log_storage.get_asset_check_execution_history(check.asset_check_key, limit=_NEWEST_TOLD)
    for record in history:
        told = record.evaluation
        if record.run_id == entry.run_id or (told is not None and _run_of(told.metadata) == entry.run_id):
            return True
    return False


def _run_of(metadata: Mapping[str, dg.MetadataValue[Any]]) -> object:
    found = metadata.get("run")
    return found.value if found is not None else None


def _published_at(entry: Entry) -> datetime:
    return (entry.published_at or datetime.now()).replace(tzinfo=UTC)  # noqa: DTZ005  the ledger's times are UTC
