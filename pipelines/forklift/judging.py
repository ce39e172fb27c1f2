"""What the telemetry of forklifts says about their load sensors, odd moments, and how safely they are driven, as SQL.

Each function takes the name of a table like silver.forklift_carrying, a condition for its rows and the rules, and gives
a SELECT. A row counts for the time until the next one of its machine, up to `max_silence` seconds.
"""

from __future__ import annotations

from pipelines.forklift.processing import Rules


def _timed(carrying: str, where: str, rules: Rules) -> str:
    return f"""
with timed as (
    select
        *,
        lag(load) over by_time as load_before,
        lag(height) over by_time as height_before,
        lag(on_duty) over by_time as on_duty_before,
        case when epoch(ts) - epoch(lag(ts) over by_time) <= {rules.max_silence:f} then true else false end as follows,
        case
            when epoch_us(lead(ts) over by_time) - epoch_us(ts) <= {rules.max_silence:f} * 1000000
            then (epoch_us(lead(ts) over by_time) - epoch_us(ts)) / 1000000.0
            else 0.0
        end as lasts_s
    from {carrying}
    where {where}
    window by_time as (partition by machine order by ts)
)"""


def load_sensor_sql(carrying: str, where: str, rules: Rules) -> str:
    """One row for each forklift: how its load sensor behaves while on duty.

    duty_cycle is the share of the time with a load, toggles_per_h how often the signal changes in an hour on duty, and
    short_segments the number of stretches of one value that last less than `short_segment` seconds.
    """
    return f"""{_timed(carrying, where, rules)}, flips as (
    select
        *,
        sum((follows and on_duty_before and load is distinct from load_before or not follows)::int)
            over (partition by machine order by ts) as segment
    from timed
    where on_duty
), segments as (
    select machine, segment, sum(lasts_s) as lasts_s
    from flips
    group by machine, segment
), by_segment as (
    select machine, count(*) as segments, count(*) filter (where lasts_s < {rules.short_segment:f}) as short_segments
    from segments
    group by machine
), signals as (
    select
        machine,
        count(*) as n_rows,
        sum(lasts_s) as on_duty_s,
        sum(lasts_s) filter (where load >= {rules.load_threshold:f}) as loaded_s,
        count(*) filter (where follows and on_duty_before and load is distinct from load_before) as toggles,
        count(distinct pulse_id) as pulses,
        bool_or(sensor_broken) as height_sensor_broken,
        max(ts) as last_seen_at,
        arg_max(commit_id, ts) as commit_id
    from flips
    group by machine
)
select
    machine,
    n_rows,
    round(on_duty_s, 3) as on_duty_s,
    coalesce(loaded_s, 0) / nullif(on_duty_s, 0) as duty_cycle,
    toggles,
    toggles * 3600 / nullif(on_duty_s, 0) as toggles_per_h,
    segments,
    short_segments,
    short_segments / nullif(segments, 0) as short_share,
    pulses,
    height_sensor_broken,
    case
        when coalesce(loaded_s, 0) = 0 then 'silent'
        when toggles * 3600 / nullif(on_duty_s, 0) > {rules.flapping_per_h:f} then 'flapping'
        else 'ok'
    end as verdict,
    last_seen_at,
    commit_id
from signals join by_segment using (machine)"""


def anomalies_sql(carrying: str, where: str, rules: Rules) -> str:
    """One row for each moment at which the load changed while the machine drove faster than `flip_speed`."""
    return f"""{_timed(carrying, where, rules)}
select
    machine,
    ts,
    'load_flip_at_speed' as kind,
    load_before,
    load as load_after,
    height,
    speed,
    latitude,
    longitude,
    pulse_id,
    commit_id
from timed
where on_duty and follows and load_before is not null and load is not null and load <> load_before
    and speed > {rules.flip_speed:f}"""


def safety_sql(carrying: str, where: str, rules: Rules) -> str:
    """One row for each forklift: seconds and beginnings of what is dangerous, and how often its forks turn back.

    raised_fast: forks above 0.5 m faster than 8 km/h; high_moving: forks above 3.5 m while moving faster than 1 km/h. An
    oscillation is a change of direction of the forks, of 5 cm or more each way between two rows.
    """
    fast = f"coalesce(height > {rules.raised_height:f} and speed > {rules.raised_speed:f}, false)"
    high = f"coalesce(height > {rules.high_height:f} and speed > {rules.high_speed:f}, false)"
    return f"""{_timed(carrying, where, rules)}, moves as (
    select
        *,
        {fast} as fast,
        {high} as high,
        case when follows and abs(height - height_before) >= 0.05 then sign(height - height_before) end as direction
    from timed
), turns as (
    select
        *,
        lag(fast, 1, false) over by_time as was_fast,
        lag(high, 1, false) over by_time as was_high,
        lag(direction ignore nulls) over by_time as direction_before
    from moves
    window by_time as (partition by machine order by ts)
)
select
    machine,
    round(sum(lasts_s) filter (where on_duty), 3) as on_duty_s,
    coalesce(round(sum(lasts_s) filter (where fast), 3), 0) as raised_fast_s,
    count(*) filter (where fast and not (was_fast and follows)) as raised_fast_events,
    coalesce(round(sum(lasts_s) filter (where high), 3), 0) as high_moving_s,
    count(*) filter (where high and not (was_high and follows)) as high_moving_events,
    count(*) filter (where direction <> direction_before) as oscillations,
    count(*) filter (where direction <> direction_before) * 3600
        / nullif(sum(lasts_s) filter (where on_duty), 0) as oscillations_per_h,
    bool_or(sensor_broken) as height_sensor_broken,
    arg_max(commit_id, ts) as commit_id
from turns
group by machine"""
