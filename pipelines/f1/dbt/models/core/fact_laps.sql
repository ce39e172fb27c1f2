{{ config(materialized=sliced(), incremental_strategy=slice_strategy(), unique_key='session_key') }}

{#
A session that is loaded late can move the time of a person's other sessions in dim_drivers: those that point to a row
that is gone are built again too.
#}
{% set stale_keys %}
select distinct session_key from {{ this }} where driver_key not in (select driver_key from {{ ref('dim_drivers') }})
{% endset %}

{% set changed = changed_sessions([ref('silver_laps'), ref('silver_sessions'), ref('silver_drivers')], also=stale_keys) %}

with laps as (
    select * from {{ ref('silver_laps') }} where {{ of_sessions(changed) }}
),

drivers as (
    select
        d.session_key,
        d.driver_number,
        k.driver_key,
        d.updated_at
    from {{ ref('silver_drivers') }} as d
    inner join {{ ref('silver_sessions') }} as s on d.session_key = s.session_key
    inner join {{ ref('dim_drivers') }} as k
        on d.person_key = k.person_key
        and s.date_start >= k.valid_from
        and (s.date_start < k.valid_to or k.valid_to is null)
    where {{ of_sessions(changed, 'd.session_key') }}
),

in_laps as (
    select distinct session_key, driver_number, lap_number
    from {{ source('bronze_raw', 'bronze_pit') }}
    where lap_number is not null and {{ of_sessions(changed) }}
),

-- When the field was held up: from a red flag or a safety car until the track is free again.
control as (
    select
        session_key,
        {{ utc('date') }} as said_at,
        case
            when flag = 'RED' or (category = 'SafetyCar' and message like '%DEPLOYED%') then 1
            when flag in ('GREEN', 'CLEAR') and coalesce(scope, 'Track') = 'Track' then 0
            when category = 'SafetyCar' and (message like '%ENDING%' or message like '%IN THIS LAP%') then 0
        end as held_up
    from {{ source('bronze_raw', 'bronze_race_control') }}
    where {{ of_sessions(changed) }}
),

windows as (
    select
        session_key,
        said_at as held_from,
        lead(said_at) over (partition by session_key order by said_at, held_up desc) as held_until,
        held_up
    from control
    where held_up is not null
),

held_up_laps as (
    select distinct l.session_key, l.driver_number, l.lap_number
    from laps as l
    inner join windows as w
        on l.session_key = w.session_key
        and w.held_up = 1
        and l.date_start < coalesce(w.held_until, cast('9999-01-01' as timestamp))
        and {{ seconds_after('l.date_start', 'ceil(l.lap_duration)') }} > w.held_from
),

measured as (
    select
        l.*,
        s.session_category,
        s.date_start as session_start,
        d.driver_key,
        p.lap_number is not null as is_in_lap,
        h.lap_number is not null as is_held_up,
        case when l.updated_at > s.updated_at then
            case when l.updated_at > d.updated_at then l.updated_at else d.updated_at end
            else case when s.updated_at > d.updated_at then s.updated_at else d.updated_at end
        end as newest_input,
        case when l.is_valid_lap then l.lap_ms end as valid_ms
    from laps as l
    inner join {{ ref('silver_sessions') }} as s on l.session_key = s.session_key
    inner join drivers as d on l.session_key = d.session_key and l.driver_number = d.driver_number
    left join in_laps as p
        on l.session_key = p.session_key and l.driver_number = p.driver_number and l.lap_number = p.lap_number
    left join held_up_laps as h
        on l.session_key = h.session_key and l.driver_number = h.driver_number and l.lap_number = h.lap_number
),

compared as (
    select
        *,
        min(valid_ms) over (partition by session_key, driver_number) as best_ms,
        min(valid_ms) over (partition by session_key) as session_best_ms,
        case when lap_ms is not null then
            rank() over (partition by session_key, driver_number, lap_ms is null order by lap_ms) end as driver_rank,
        case when valid_ms is not null then
            rank() over (partition by session_key, valid_ms is null order by valid_ms) end as session_rank
    from measured
)

select
    {{ key_of(['session_key', 'driver_number', 'lap_number']) }} as lap_key,
    {{ key_of(['session_key']) }} as session_dim_key,
    driver_key,
    session_key,
    driver_number,
    lap_number,
    date_start,
    lap_duration,
    lap_ms,
    duration_sector_1,
    duration_sector_2,
    duration_sector_3,
    calculated_lap_duration,
    sector_duration_delta,
    is_valid_lap,
    is_pit_out_lap,
    is_in_lap,
    is_held_up,
    -- A lap that says how fast the car was: valid, at racing speed, from line to line.
    coalesce(
        is_valid_lap
        and not is_in_lap
        and not is_held_up
        and not (lap_number = 1 and session_category in ('Race', 'Sprint'))
        and lap_ms * 100 <= session_best_ms * 107,
        false
    ) as is_representative_lap,
    sector_completeness,
    intermediate_1_speed,
    intermediate_2_speed,
    speed_trap_speed,
    max_speed,
    segments_sector_1,
    segments_sector_2,
    segments_sector_3,
    cast(driver_rank as integer) as driver_lap_rank,
    cast(session_rank as integer) as session_lap_time_rank,
    {{ seconds('best_ms') }} as driver_best_lap_time,
    {{ seconds('(lap_ms - best_ms)') }} as delta_to_personal_best,
    coalesce(valid_ms = best_ms, false) as is_personal_best_lap,
    session_name,
    batch_day,
    newest_input as input_updated_at,
    {{ run_time() }} as updated_at
from compared
