{{ config(materialized='table') }}

{#
One row for each time that a person drove under one number for one team (SCD type 2): from the first session of that
time until the person's next one begins. A number is no person (several have had the same one), so the name is the key.
The table is small, and a session that is loaded late can change any part of a person's time: it is built whole.
#}

with driven as (
    select
        d.*,
        s.date_start,
        lag(concat_ws('|', cast(d.driver_number as {{ dbt.type_string() }}), d.team_name)) over (
            partition by d.person_key order by s.date_start, d.session_key
        ) as before
    from {{ ref('silver_drivers') }} as d
    inner join {{ ref('silver_sessions') }} as s on d.session_key = s.session_key
),

counted as (
    select
        *,
        sum(case when before = concat_ws('|', cast(driver_number as {{ dbt.type_string() }}), team_name) then 0 else 1 end)
            over (partition by person_key order by date_start, session_key rows unbounded preceding) as spell
    from driven
),

spells as (
    select
        person_key,
        spell,
        min(date_start) as valid_from,
        max(updated_at) as input_updated_at,
        count(*) as sessions
    from counted
    group by person_key, spell
),

latest as (
    select
        *,
        row_number() over (partition by person_key, spell order by date_start desc, session_key desc) as recency
    from counted
)

select
    {{ key_of(['s.person_key', 's.valid_from']) }} as driver_key,
    s.person_key,
    l.driver_number,
    l.full_name,
    l.broadcast_name,
    l.first_name,
    l.last_name,
    l.name_acronym,
    l.team_name,
    l.team_colour,
    l.team_category,
    l.team_lineage,
    l.country_code,
    l.headshot_url,
    cast(s.sessions as integer) as sessions_driven,
    s.valid_from,
    lead(s.valid_from) over (partition by s.person_key order by s.spell) as valid_to,
    lead(s.valid_from) over (partition by s.person_key order by s.spell) is null as is_current,
    s.input_updated_at,
    {{ run_time() }} as updated_at
from spells as s
inner join latest as l on s.person_key = l.person_key and s.spell = l.spell and l.recency = 1
