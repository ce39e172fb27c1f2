{{ config(materialized=sliced(), incremental_strategy=slice_strategy(), unique_key='session_key') }}

{#
Who was how fast: drivers by their fastest valid lap. Equal times are ranked by who set theirs first, as the timing
screens do; `fastest_lap_rank` is the same for both. How a race ended is `finishing_position`, which is another thing.
#}
{% set changed = changed_sessions([ref('fact_laps')]) %}

with valid as (
    select
        *,
        row_number() over (
            partition by session_key, driver_number order by lap_ms, lap_number
        ) as nth
    from {{ ref('fact_laps') }}
    where is_valid_lap and {{ of_sessions(changed) }}
),

best as (
    select * from valid where nth = 1
),

teams as (
    select b.*, d.team_name
    from best as b
    inner join {{ ref('dim_drivers') }} as d on b.driver_key = d.driver_key
),

ranked as (
    select
        *,
        min(lap_ms) over (partition by session_key) as fastest_ms,
        row_number() over (partition by session_key order by lap_ms, date_start, driver_number) as position,
        rank() over (partition by session_key order by lap_ms) as fastest_lap_rank,
        count(*) over (partition by session_key, lap_ms) > 1 as is_tied,
        row_number() over (partition by session_key, team_name order by lap_ms, date_start, driver_number) as team_position
    from teams
),

results as (
    {{ newest('bronze_session_results', ['session_key', 'driver_number'], changed) }}
),

grid as (
    {{ newest('bronze_starting_grid', ['session_key', 'driver_number'], changed) }}
)

select
    r.session_key,
    r.session_dim_key,
    r.driver_number,
    r.driver_key,
    cast(r.position as integer) as position,
    cast(r.fastest_lap_rank as integer) as fastest_lap_rank,
    r.is_tied,
    cast(r.team_position as integer) as team_position,
    {{ seconds('r.lap_ms') }} as fastest_lap_time,
    r.lap_number as fastest_lap_number,
    {{ seconds('(r.lap_ms - r.fastest_ms)') }} as delta_to_fastest,
    round(100.0 * (r.lap_ms - r.fastest_ms) / r.fastest_ms, 2) as gap_percentage,
    r.position = 1 as is_fastest,
    r.position <= 3 as is_top_3,
    r.position <= 10 as is_top_10,
    r.team_position = 1 as is_fastest_in_team,
    f.position as finishing_position,
    g.position as grid_position,
    s.session_name,
    s.session_category,
    s.location,
    s.country_name,
    s.session_date,
    s.year,
    d.full_name,
    d.name_acronym,
    d.team_name,
    d.team_colour,
    d.team_category,
    r.updated_at as input_updated_at,
    {{ run_time() }} as updated_at
from ranked as r
inner join {{ ref('dim_sessions') }} as s on r.session_key = s.session_key
inner join {{ ref('dim_drivers') }} as d on r.driver_key = d.driver_key
left join results as f on r.session_key = f.session_key and r.driver_number = f.driver_number
left join grid as g on r.session_key = g.session_key and r.driver_number = g.driver_number
