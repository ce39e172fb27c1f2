"""From telemetry to a carrying flag, as SQL over some machines at a time.

rules    the thresholds, from `forklift:` under `vars:` in workspace.yaml
batch    machines whose rows fit into memory together; a machine is never cut in two, so every batch is exact
hold     a row says what is so until the next row of its machine. After `max_silence` seconds without one it says nothing,
         and neither does the last row
pulse    a time without a break in which a machine carries. Breaks of up to `fill_gap` seconds are closed first, then what
         is shorter than `min_duration` seconds is no pulse

Every function takes names of tables and gives a SELECT, or runs one through `ask`; nothing here knows the lake.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

BATCH_ROWS = 500_000  # about 150 MB while a window sorts them
HEIGHT_MODES = ("drop", "clip", "scale")

Rows = Callable[[str], Any]  # runs a SELECT and gives a relation of it


class WrongRules(ValueError):
    """`forklift:` in workspace.yaml says something that cannot be."""


@dataclass(frozen=True)
class Rules:
    """Lengths in metres, times in seconds, speeds in km/h."""

    timezone: str = "UTC"  # of timestamps without a zone
    min_height: float = 0.0
    max_height: float = 6.7
    height_mode: str = "scale"
    sensor_range_quantile: float = 0.995  # the height above which a sensor's values are spikes, not its range
    broken_share: float = 0.10  # of rows above max_height
    load_threshold: float = 0.5
    height_threshold: float = 0.35
    max_speed: float = 7.2
    min_duration: float = 45.0
    fill_gap: float = 1.0
    max_silence: float = 10.0
    allow_off_duty: bool = False
    short_segment: float = 3.0  # of the load signal
    flapping_per_h: float = 90.0  # changes of the load signal, above which a sensor flaps
    flip_speed: float = 8.0  # above which nobody picks up or puts down
    raised_height: float = 0.5
    raised_speed: float = 8.0
    high_height: float = 3.5
    high_speed: float = 1.0

    @classmethod
    def from_mapping(cls, said: Mapping[str, Any] | None) -> Rules:
        """Raises WrongRules with the near miss for an unknown name, and for a value that means nothing."""
        known = {field.name: field for field in fields(cls)}
        for name, value in (said or {}).items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" '{near[0]}' may be meant." if near else f" It knows {', '.join(known)}."
                raise WrongRules(f"vars.forklift in workspace.yaml: there is no '{name}'.{hint}")
            wanted = type(getattr(cls, name))
            if wanted is not type(value) and not (wanted is float and type(value) is int):
                raise WrongRules(f"vars.forklift.{name} is {value!r}; write a {wanted.__name__}")
        rules = cls(**(said or {}))
        if rules.height_mode not in HEIGHT_MODES:
            raise WrongRules(f"vars.forklift.height_mode is '{rules.height_mode}'; write {', '.join(HEIGHT_MODES)}")
        if rules.timezone not in available_timezones():
            raise WrongRules(f"vars.forklift.timezone is '{rules.timezone}'; write one like Europe/Berlin")
        if not rules.min_height < rules.max_height:
            raise WrongRules("vars.forklift: min_height must be less than max_height")
        for name in ("min_duration", "fill_gap", "max_silence"):
            if getattr(rules, name) < 0:
                raise WrongRules(f"vars.forklift.{name} is {getattr(rules, name)}; seconds are 0 or more")
        if not 0 < rules.sensor_range_quantile <= 1:
            raise WrongRules("vars.forklift.sensor_range_quantile must be above 0 and at most 1")
        return rules


def batches(machines: Iterable[tuple[str, int]], most: int = BATCH_ROWS) -> Iterator[list[str]]:
    """Machines (with their numbers of rows) in groups of up to `most` rows; a larger machine is alone."""
    group, rows = [], 0
    for machine, count in machines:
        if group and rows + count > most:
            yield group
            group, rows = [], 0
        group.append(machine)
        rows += count
    if group:
        yield group


def among(machines: Sequence[str], column: str = "machine") -> str:
    """A condition for the rows of these machines. The bounds let a reader skip what lies outside them."""
    first, last = text(min(machines)), text(max(machines))
    return f"{column} between {first} and {last} and {column} in ({', '.join(map(text, machines))})"


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def header_sql(telemetry: str, where: str, rules: Rules) -> str:
    """Named columns in the order of time, one row for each moment of a machine, without redundant off-duty rows.

    Of rows with the same machine and time the one with the largest values stays, on duty before off duty. Of an
    off-duty run its first and its last row stay, so its length can still be told. A machine that ever raised its forks
    is a forklift, every other one a truck.
    """
    at = "sent.timestamp" if rules.timezone == "UTC" else utc("sent.timestamp", rules.timezone)
    return f"""
with sent as (
    select
        machine,
        case when max(abs(height)) over (partition by machine) > 0 then 'forklift' else 'truck' end as kind,
        fffid,
        height,
        load,
        coalesce(on_duty <> 0, false) as on_duty,
        {at} as ts,
        latitude,
        longitude,
        speed,
        commit_id
    from {telemetry} as sent
    where {where}
), ordered as (
    select
        *,
        lead(ts) over (
            partition by machine
            order by ts, on_duty, load nulls first, height nulls first, speed nulls first, fffid, latitude, longitude, commit_id
        ) is not distinct from ts as comes_again
    from sent
), moments as (
    select
        * exclude (comes_again),
        lag(on_duty) over by_time as was_on_duty,
        lead(on_duty) over by_time as will_be_on_duty
    from ordered
    where not comes_again
    window by_time as (partition by machine order by ts)
)
select * exclude (was_on_duty, will_be_on_duty)
from moments
where on_duty or coalesce(was_on_duty, true) or coalesce(will_be_on_duty, true)"""


def utc(local: str, zone: str) -> str:
    """A local time as UTC. The hour that a clock shows twice is taken for the later one, as winter time."""
    ZoneInfo(zone)
    return f"(timezone({text(zone)}, {local}) at time zone 'UTC')"


def heights_sql(header: str, where: str, rules: Rules) -> str:
    """Rows of forklifts with `height` (m) made believable, `height_raw` as it was sent, and `sensor_broken`.

    drop    rows outside min_height..max_height go
    clip    they get the nearest believable height
    scale   where a sensor's range is longer than the believable one it is mapped onto that, linearly; what lies beyond
            the range is a spike and is clipped. A sensor whose range is believable is left as it is
    """
    low, high, top = f"{rules.min_height:f}", f"{rules.max_height:f}", f"{rules.sensor_range_quantile:f}"
    clipped = f"case when height is not null then least(greatest(height, {low}), {high}) end"
    believable = {
        "drop": "height",
        "clip": clipped,
        "scale": f"case when height is null then null when lowest >= {low} and highest <= {high} then {clipped}"
        f" when highest > lowest then {low} + (least(greatest(height, lowest), highest) - lowest)"
        f" / (highest - lowest) * ({high} - {low}) else {clipped} end",
    }[rules.height_mode]
    keep = f" and height between {low} and {high}" if rules.height_mode == "drop" else ""
    return f"""
with sensors as (
    select
        machine,
        quantile_disc(height, 1 - {top}) as lowest,
        quantile_disc(height, {top}) as highest,
        count(*) filter (where height > {high}) > {rules.broken_share:f} * count(*) as sensor_broken
    from {header}
    where kind = 'forklift' and {where}
    group by machine
)
select
    machine,
    kind,
    fffid,
    {believable} as height,
    height as height_raw,
    sensors.sensor_broken,
    load,
    on_duty,
    ts,
    latitude,
    longitude,
    speed,
    commit_id
from {header} join sensors using (machine)
where kind = 'forklift' and {where}{keep}"""


def carrying_sql(heights: str, where: str, rules: Rules) -> str:
    """Every row, with `carrying` and the `pulse_id` of the pulse that it lies in (null outside one).

    Rows of a closed break count as carrying; off-duty rows do not, unless `allow_off_duty`.
    """
    duty = "true" if rules.allow_off_duty else "on_duty"
    raised = (
        f"coalesce(load >= {rules.load_threshold:f} and height > {rules.height_threshold:f}"
        f" and speed <= {rules.max_speed:f} and {duty}, false)"
    )
    silence, gap, least = (micro(s) for s in (rules.max_silence, rules.fill_gap, rules.min_duration))
    return f"""
with states as (
    select machine, epoch_us(ts) as moment, {raised} as up
    from {heights}
    where {where}
), rows_in_time as (
    select
        machine,
        moment,
        up,
        lag(up) over by_time as was_up,
        lag(moment) over by_time as before,
        lead(moment) over by_time as after
    from states
    window by_time as (partition by machine order by moment)
), changes as (
    select
        machine,
        moment,
        up,
        case when moment - before > {silence} then before else moment end as ends_last,
        max(case when after is null then moment end) over (partition by machine) as ends_all
    from rows_in_time
    where up is distinct from was_up or moment - before > {silence} or after is null
), stretches as (
    select machine, up, moment as begins, coalesce(lead(ends_last) over (partition by machine order by moment), ends_all) as ends
    from changes
), raised as (
    select machine, begins, ends, begins - lag(ends) over (partition by machine order by begins) as apart
    from stretches
    where up
), numbered as (
    select *, sum(coalesce(apart > {gap}, true)::int) over (partition by machine order by begins) as number
    from raised
), pulses as (
    select machine, min(begins) as begins, max(ends) as ends
    from numbered
    group by machine, number
    having max(ends) - min(begins) >= {least}
), by_minute as (
    select *, unnest(range(begins // 60000000, ends // 60000000 + 1)) as minute
    from pulses
)
select
    rows.*,
    coalesce(p.machine is not null and {duty} and (epoch_us(ts) < p.ends or {raised}), false) as carrying,
    case when carrying then concat(rows.machine, '@', strftime(make_timestamp(p.begins), '%Y-%m-%dT%H:%M:%S.%f')) end as pulse_id
from (select * from {heights} where {where}) as rows
left join by_minute as p
    on p.machine = rows.machine and p.minute = epoch_us(ts) // 60000000 and epoch_us(ts) between p.begins and p.ends"""


def micro(seconds: float) -> int:
    return round(seconds * 1_000_000)
