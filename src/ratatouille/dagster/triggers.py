"""What starts a file asset by itself: the `triggers:` and `freshness:` of its sidecar, as Dagster knows them.

schedule   `{schedule: "0 2 * * *", timezone: Europe/Paris}`
files      `{files: landing/sales/*.csv}`: a sensor that asks for a run when files have arrived
upstream   `{upstream: true}`: declarative automation, when something that the asset reads has a new version

A trigger starts the asset and what is above it: what `rat run +silver.sales` does. Each step that is fresh is skipped
by the engine, so a run does what is stale and no more. Only file assets are taken along; a Python asset above them
has triggers of its own.

Assets of one pipeline with the same trigger share it: one schedule, one sensor, one job. It is off when it is first
loaded; `status: running` at one of them turns it on for all, except for those that say `status: stopped`: they get
one of their own, with a name that ends in `_stopped`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from ratatouille import project as files
from ratatouille.dagster import arrivals
from ratatouille.dagster.keys import Prefix, key_of, word
from ratatouille.errors import RatError
from ratatouille.handle import find_workspace, workspace_of_caller
from ratatouille.project.records import Asset, Project

LOOK_EVERY_S = 15  # a file is taken at its second look: half a minute after its last byte
_NAMED_FILES = 5  # in a run's tags
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_USUAL = {
    "0 * * * *": "hourly",
    "0 0 * * *": "daily",
    "0 0 * * 0": "weekly",
    "0 0 1 * *": "monthly",
    "0 0 1 1 *": "yearly",
}


@dataclass(frozen=True, slots=True)
class Shared:
    """One trigger and the assets of a pipeline that have it. `said` is the schedule, the files, or nothing."""

    pipeline: str
    said: str
    timezone: str
    running: bool
    apart: bool  # beside a running one, for those that say `status: stopped`
    assets: tuple[str, ...]


def schedules(
    project: Project, root: Path, prefix: Prefix = (), taken: Collection[str] = ()
) -> list[dg.ScheduleDefinition]:
    """One for each schedule of each pipeline, with its job `<name>_job`. `taken`: names that are in use already."""
    made = []
    for name, one in _named(project, "schedule", prefix, taken, lambda said: cron_words(said)):
        made.append(
            dg.ScheduleDefinition(
                name=name,
                job=_job(name, project, one, prefix),
                cron_schedule=one.said,
                execution_timezone=one.timezone,
                default_status=dg.DefaultScheduleStatus.RUNNING if one.running else dg.DefaultScheduleStatus.STOPPED,
                description=f"Brings {_listed(one.assets)} up to date, with what they read: {one.said} {one.timezone}.",
            )
        )
    return made


def file_sensors(
    project: Project, root: Path, prefix: Prefix = (), taken: Collection[str] = ()
) -> list[dg.SensorDefinition]:
    """One for each `files:` of each pipeline, with its job `<name>_job`."""
    return [
        _file_sensor(name, root, one, _job(name, project, one, prefix))
        for name, one in _named(project, "files", prefix, taken, word)
    ]


def upstream_sensors(
    project: Project, root: Path, prefix: Prefix = (), taken: Collection[str] = ()
) -> list[dg.SensorDefinition]:
    """What evaluates the automation conditions of `{upstream: true}`: one for each pipeline that has some."""
    return [
        dg.AutomationConditionSensorDefinition(
            name,
            target=dg.AssetSelection.assets(*(key_of(asset, prefix) for asset in one.assets)),
            default_status=_sensor_status(one),
            description=f"Runs {_listed(one.assets)} when something that they read has a new version.",
        )
        for name, one in _named(project, "upstream", prefix, taken, lambda _: "upstream")
    ]


def automation_condition(asset: Asset) -> dg.AutomationCondition[Any] | None:
    """Of an asset with `{upstream: true}`: when something that it reads was updated, and its blocking checks passed.

    Dagster's own `eager()` does not look at checks, and would start from rows that a gate has refused.
    """
    if not any(trigger.get("upstream") for trigger in asset.triggers):
        return None
    passed = dg.AutomationCondition.all_deps_blocking_checks_passed()
    return (dg.AutomationCondition.eager() & passed).with_label("upstream has a new version and its checks passed")


def freshness_policy(asset: Asset) -> dg.FreshnessPolicy | None:
    """Of an asset with `freshness:`. Dagster has no policy that only warns: it fails after a hundred years then."""
    warn_s, error_s = asset.freshness.get("warn_after_s"), asset.freshness.get("error_after_s")
    if warn_s is None and error_s is None:
        return None
    return dg.FreshnessPolicy.time_window(
        fail_window=timedelta(seconds=error_s) if error_s is not None else timedelta(days=36_500),
        warn_window=timedelta(seconds=warn_s) if warn_s is not None else None,
    )


# Names


def cron_words(cron: str) -> str:
    """`0 2 * * *` -> `daily_0200`: a cron line as a part of a name."""
    if cron in _USUAL:
        return _USUAL[cron]
    minute, hour, day, month, weekday = cron.split()
    if minute.startswith("*/") and [hour, day, month, weekday] == ["*"] * 4:
        return f"every_{minute[2:]}_minutes"
    if minute.isdigit() and month == "*":
        at = f"{int(hour):02}{int(minute):02}" if hour.isdigit() else ""
        if [hour, day, weekday] == ["*"] * 3:
            return f"hourly_{int(minute):02}"
        if at and day == weekday == "*":
            return f"daily_{at}"
        if at and day == "*" and weekday.isdigit():
            return f"weekly_{_DAYS[int(weekday)]}_{at}"
        if at and day.isdigit() and weekday == "*":
            return f"monthly_{int(day):02}_{at}"
    spelled = cron
    for sign, letters in (("*", "x"), ("-", "to"), ("/", "by"), (",", "and"), (" ", "_")):
        spelled = spelled.replace(sign, letters)
    return f"cron_{spelled}"


def _named(
    project: Project, kind: str, prefix: Prefix, taken: Collection[str], words: Callable[[str], str]
) -> Iterator[tuple[str, Shared]]:
    """Every trigger of a kind with the name it has; two that come to the same name both get a checksum behind it."""
    found = list(_shared(project, kind))
    plain = [word("_".join([*prefix, one.pipeline, words(one.said), *_further_words(one)])) for one in found]
    for name, one in zip(plain, found, strict=True):
        if plain.count(name) > 1:
            facts = f"{one.pipeline}|{one.said}|{one.timezone}|{one.running}"
            name = f"{name}_{hashlib.sha256(facts.encode()).hexdigest()[:6]}"
        if name in taken or f"{name}_job" in taken:
            name = word(f"{project.workspace.name}_{name}")
        yield name, one


def _further_words(one: Shared) -> list[str]:
    zone = [] if one.timezone in ("", "UTC") else [word(one.timezone).lower()]
    return [*zone, *(["stopped"] if one.apart else [])]


def _shared(project: Project, kind: str) -> Iterator[Shared]:
    """Every distinct trigger of a kind, in the order of assets."""
    by_identity: dict[tuple[str, str, str], dict[str, str]] = {}
    for asset in project.assets.values():
        for trigger in asset.triggers:
            if trigger.get(kind):
                said = "" if kind == "upstream" else str(trigger[kind])
                timezone = str(trigger.get("timezone", "UTC")) if kind == "schedule" else ""
                same = by_identity.setdefault((asset.pipeline, said, timezone), {})
                same[asset.name] = str(trigger.get("status", ""))
    for (pipeline, said, timezone), statuses in by_identity.items():
        running = "running" in statuses.values()
        apart = tuple(name for name, status in statuses.items() if running and status == "stopped")
        rest = tuple(name for name in statuses if name not in apart)
        yield Shared(pipeline, said, timezone, running, False, rest)
        if apart:
            yield Shared(pipeline, said, timezone, False, True, apart)


def _job(name: str, project: Project, one: Shared, prefix: Prefix) -> Any:
    """The assets of a trigger and every file asset above them."""
    chosen = set(one.assets).union(*(files.upstream(project, asset) for asset in one.assets))
    return dg.define_asset_job(
        f"{name}_job",
        dg.AssetSelection.assets(*(key_of(asset, prefix) for asset in project.assets if asset in chosen)),
        description=f"{_listed(one.assets)}, with everything above; what is fresh is skipped",
    )


def _listed(assets: Collection[str]) -> str:
    shown = list(assets)[:3]
    more = len(assets) - len(shown)
    return f"{', '.join(shown)}{f' and {more} more' if more else ''}"


# Files


def file_sensor(
    *,
    name: str,
    files: str,
    job: Any,
    asset_selection: Sequence[dg.AssetKey] | None = None,
    every_s: int = LOOK_EVERY_S,
    status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    description: str = "",
    workspace: str | Path | None = None,
) -> dg.SensorDefinition:
    """A sensor for a job of your own: it asks for a run when files have arrived, or were rewritten.

    `files` is a glob, relative to the workspace (of the calling file, or `workspace`), or of objects (`s3://bucket/in/*`),
    which count when they are there. A file counts when two looks in
    a row found the same size and time, `every_s` seconds apart; a touch and a deletion do not, an earlier content that
    came back does. The same arrivals ask for the same run. `asset_selection` narrows what of the job runs.
    """
    root = find_workspace(workspace) if workspace is not None else workspace_of_caller().root

    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=every_s,
        default_status=status,
        description=description or f"Asks for a run when files arrive in {files}, or are rewritten.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _look(name, root, files, context.cursor, asset_selection)

    return watch


def _file_sensor(name: str, root: Path, one: Shared, job: Any) -> dg.SensorDefinition:
    return file_sensor(
        name=name,
        files=one.said,
        job=job,
        status=_sensor_status(one),
        description=f"Runs {_listed(one.assets)} when files arrive in {one.said}, or are rewritten.",
        workspace=root,
    )


def _look(
    name: str, root: Path, pattern: str, cursor: str | None, chosen: Sequence[dg.AssetKey] | None = None
) -> dg.SensorResult:
    before = arrivals.from_text(cursor, root)
    try:
        look = arrivals.look(root, pattern, before)
    except RatError as error:  # a bucket that does not answer has lost nothing; the next look asks again
        return dg.SensorResult(skip_reason=f"{pattern} cannot be listed: {error.what} ({error.where})", cursor=cursor)
    try:
        same = look.memory == before
        remembered = cursor if same and cursor else arrivals.as_text(look.memory, root, name, cursor or "")
    except OSError as error:
        return dg.SensorResult(
            skip_reason=f"What was seen cannot be written down: {error.strerror} ({error.filename}).", cursor=cursor
        )
    waiting = len(look.memory.unsettled)
    if not look.arrived:
        still = f"; {waiting} may still be written" if waiting else ""
        nothing = f"Nothing new in {pattern}: {len(look.memory.known)} known{still}."
        return dg.SensorResult(skip_reason=nothing, cursor=remembered)
    request = dg.RunRequest(run_key=f"{name}:{look.memory.token}", tags=_tags(look.arrived), asset_selection=chosen)
    return dg.SensorResult(run_requests=[request], cursor=remembered)


def _tags(arrived: Collection[str]) -> Mapping[str, str]:
    shown = list(arrived)[:_NAMED_FILES]
    more = len(arrived) - len(shown)
    return {"rat/files": ", ".join(shown) + (f" and {more} more" if more else "")}


def _sensor_status(one: Shared) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if one.running else dg.DefaultSensorStatus.STOPPED
