{{ config(materialized=sliced(), incremental_strategy=slice_strategy(), unique_key='session_key') }}

{% set changed = changed_sessions([source('bronze_raw', 'bronze_sessions')], stamp='_loaded_at') %}

with newest as (
    {{ newest('bronze_sessions', ['session_key'], changed) }}
)

select
    session_key,
    meeting_key,
    coalesce(session_name, 'Unknown') as session_name,
    coalesce(session_type, session_name, 'Unknown') as session_type,
    {{ session_category("coalesce(session_name, '')") }} as session_category,
    {{ utc('date_start') }} as date_start,
    {{ utc('date_end') }} as date_end,
    gmt_offset,
    coalesce(location, 'Unknown') as location,
    country_key,
    country_code,
    coalesce(country_name, 'Unknown') as country_name,
    circuit_key,
    circuit_short_name,
    year,
    round({{ seconds_between(utc('date_start'), utc('date_end')) }} / 60.0, 2) as session_duration_minutes,
    _loaded_at as input_updated_at,
    {{ run_time() }} as updated_at
from newest
