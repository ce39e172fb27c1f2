{{ config(materialized=sliced(), incremental_strategy=slice_strategy(), unique_key='session_key') }}

{% set changed = changed_sessions([ref('driver_session_summary')]) %}

with drivers as (
    select * from {{ ref('driver_session_summary') }} where {{ of_sessions(changed) }}
),

teams as (
    select
        session_key,
        session_dim_key,
        session_name,
        session_category,
        year,
        team_name,
        team_category,
        count(*) as drivers_count,
        sum(total_laps) as team_total_laps,
        sum(valid_laps) as team_valid_laps,
        min({{ milliseconds('fastest_lap_time') }}) as fastest_ms,
        max({{ milliseconds('fastest_lap_time') }}) as slowest_best_ms,
        avg(fastest_lap_time) as mean_fastest,
        max(top_speed) as team_top_speed,
        avg(top_speed) as mean_top_speed,
        avg(consistency_coefficient) as mean_consistency,
        avg(lap_time_stddev) as mean_stddev,
        max(updated_at) as input_updated_at
    from drivers
    group by session_key, session_dim_key, session_name, session_category, year, team_name, team_category
)

select
    session_key,
    session_dim_key,
    session_name,
    session_category,
    year,
    team_name,
    team_category,
    cast(drivers_count as integer) as drivers_count,
    cast(team_total_laps as integer) as team_total_laps,
    cast(team_valid_laps as integer) as team_valid_laps,
    round(100.0 * team_valid_laps / team_total_laps, 2) as team_valid_lap_percentage,
    {{ seconds('fastest_ms') }} as team_fastest_lap,
    round(mean_fastest, 3) as team_avg_fastest_lap,
    case when drivers_count > 1 then {{ seconds('(slowest_best_ms - fastest_ms)') }} end as intra_team_gap,
    team_top_speed,
    round(mean_top_speed, 1) as team_avg_top_speed,
    round(mean_consistency, 4) as team_avg_consistency,
    round(mean_stddev, 4) as team_avg_lap_stddev,
    case when fastest_ms is not null then
        cast(rank() over (partition by session_key, fastest_ms is null order by fastest_ms) as integer) end as team_rank,
    input_updated_at,
    {{ run_time() }} as updated_at
from teams
