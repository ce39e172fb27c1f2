{{ config(materialized=sliced(), incremental_strategy=slice_strategy(), unique_key='session_key') }}

{% set changed = changed_sessions([ref('fact_laps')]) %}

with laps as (
    select * from {{ ref('fact_laps') }} where {{ of_sessions(changed) }}
),

summed as (
    select
        session_key,
        session_dim_key,
        driver_number,
        driver_key,
        count(*) as total_laps,
        sum(case when is_valid_lap then 1 else 0 end) as valid_laps,
        sum(case when is_representative_lap then 1 else 0 end) as representative_laps,
        sum(case when is_pit_out_lap then 1 else 0 end) as pit_out_laps,
        sum(case when sector_completeness = 'Complete' then 1 else 0 end) as complete_sector_laps,
        min(case when is_valid_lap then lap_ms end) as fastest_ms,
        max(case when is_valid_lap then lap_ms end) as slowest_ms,
        avg(case when is_valid_lap then lap_duration end) as mean_s,
        stddev_samp(case when is_valid_lap then lap_duration end) as spread_s,
        avg(case when is_valid_lap then duration_sector_1 end) as mean_s1,
        avg(case when is_valid_lap then duration_sector_2 end) as mean_s2,
        avg(case when is_valid_lap then duration_sector_3 end) as mean_s3,
        -- The best sectors of laps that also gave the best lap: an invalid lap is no proof of pace.
        min(case when is_valid_lap then {{ milliseconds('duration_sector_1') }} end) as best_ms1,
        min(case when is_valid_lap then {{ milliseconds('duration_sector_2') }} end) as best_ms2,
        min(case when is_valid_lap then {{ milliseconds('duration_sector_3') }} end) as best_ms3,
        max(max_speed) as top_speed,
        avg(max_speed) as mean_speed,
        max(updated_at) as input_updated_at
    from laps
    group by session_key, session_dim_key, driver_number, driver_key
)

select
    m.session_key,
    m.session_dim_key,
    m.driver_number,
    m.driver_key,
    s.session_name,
    s.session_category,
    s.year,
    d.full_name,
    d.name_acronym,
    d.team_name,
    d.team_category,
    cast(m.total_laps as integer) as total_laps,
    cast(m.valid_laps as integer) as valid_laps,
    cast(m.representative_laps as integer) as representative_laps,
    cast(m.pit_out_laps as integer) as pit_out_laps,
    round(100.0 * m.valid_laps / m.total_laps, 2) as valid_lap_percentage,
    {{ seconds('m.fastest_ms') }} as fastest_lap_time,
    {{ seconds('m.slowest_ms') }} as slowest_lap_time,
    round(m.mean_s, 3) as average_lap_time,
    round(m.spread_s, 4) as lap_time_stddev,
    {{ seconds('(m.slowest_ms - m.fastest_ms)') }} as lap_time_range,
    round(m.mean_s1, 3) as average_sector_1,
    round(m.mean_s2, 3) as average_sector_2,
    round(m.mean_s3, 3) as average_sector_3,
    {{ seconds('m.best_ms1') }} as best_sector_1,
    {{ seconds('m.best_ms2') }} as best_sector_2,
    {{ seconds('m.best_ms3') }} as best_sector_3,
    {{ seconds('(m.best_ms1 + m.best_ms2 + m.best_ms3)') }} as theoretical_best_lap,
    m.top_speed,
    round(m.mean_speed, 1) as avg_speed,
    cast(m.complete_sector_laps as integer) as complete_sector_laps,
    round(m.spread_s / nullif(m.mean_s, 0), 4) as consistency_coefficient,
    m.input_updated_at,
    {{ run_time() }} as updated_at
from summed as m
inner join {{ ref('dim_sessions') }} as s on m.session_key = s.session_key
inner join {{ ref('dim_drivers') }} as d on m.driver_key = d.driver_key
