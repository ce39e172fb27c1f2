{{ config(materialized=sliced(), incremental_strategy=slice_strategy(), unique_key='session_key') }}

{% set changed = changed_sessions([source('bronze_raw', 'bronze_drivers')], stamp='_loaded_at') %}

with newest as (
    {{ newest('bronze_drivers', ['session_key', 'driver_number'], changed) }}
),

named as (
    select
        *,
        coalesce(full_name, broadcast_name, concat_ws(' ', first_name, last_name)) as whole_name
    from newest
)

select
    d.session_key,
    d.meeting_key,
    d.driver_number,
    coalesce(nullif(d.whole_name, ''), concat('Car ', d.driver_number)) as full_name,
    {{ person_key("coalesce(nullif(d.whole_name, ''), concat('Car ', d.driver_number))") }} as person_key,
    coalesce(d.broadcast_name, nullif(d.whole_name, ''), concat('Car ', d.driver_number)) as broadcast_name,
    d.first_name,
    d.last_name,
    d.name_acronym,
    coalesce(d.team_name, 'Unknown Team') as team_name,
    lower(coalesce(d.team_colour, '000000')) as team_colour,
    coalesce(t.team_category, 'Other') as team_category,
    coalesce(t.team_lineage, 'other') as team_lineage,
    d.headshot_url,
    d.country_code,
    d._loaded_at as input_updated_at,
    {{ run_time() }} as updated_at
from named as d
left join {{ teams() }} as t on lower(trim(d.team_name)) = t.known_name
