{{ config(materialized=sliced(), incremental_strategy=slice_strategy(), unique_key='session_key') }}

{% set changed = changed_sessions([source('bronze_raw', 'bronze_laps')], stamp='_loaded_at') %}

with newest as (
    {{ newest('bronze_laps', ['session_key', 'driver_number', 'lap_number'], changed) }}
),

typed as (
    select
        *,
        coalesce(is_pit_out_lap, false) as is_out_lap,
        -- Null unless all three sectors were timed: a missing one is not a sector of zero seconds.
        duration_sector_1 + duration_sector_2 + duration_sector_3 as sector_sum,
        case when i1_speed is null and i2_speed is null and st_speed is null then null
            else greatest(coalesce(i1_speed, 0), coalesce(i2_speed, 0), coalesce(st_speed, 0)) end as top_speed
    from newest
)

select
    session_key,
    meeting_key,
    driver_number,
    lap_number,
    {{ utc('date_start') }} as date_start,
    lap_duration,
    {{ milliseconds('lap_duration') }} as lap_ms,
    duration_sector_1,
    duration_sector_2,
    duration_sector_3,
    round(sector_sum, 3) as calculated_lap_duration,
    round(lap_duration - sector_sum, 3) as sector_duration_delta,
    i1_speed as intermediate_1_speed,
    i2_speed as intermediate_2_speed,
    st_speed as speed_trap_speed,
    top_speed as max_speed,
    is_out_lap as is_pit_out_lap,
    coalesce(lap_duration is not null and not is_out_lap and lap_duration between 10 and 300, false) as is_valid_lap,
    case
        when duration_sector_1 is not null and duration_sector_2 is not null and duration_sector_3 is not null
            then 'Complete'
        when duration_sector_1 is null and duration_sector_2 is null and duration_sector_3 is null then 'No Sectors'
        else 'Partial'
    end as sector_completeness,
    segments_sector_1,
    segments_sector_2,
    segments_sector_3,
    session_name,
    batch_day,
    _loaded_at as input_updated_at,
    {{ run_time() }} as updated_at
from typed
