{{ config(materialized=sliced(), incremental_strategy=slice_strategy(), unique_key='session_key') }}

{% set changed = changed_sessions([source('bronze_raw', 'bronze_locations')], stamp='_loaded_at') %}

with newest as (
    {{ newest('bronze_locations', ['session_key', 'driver_number', 'date'], changed) }}
)

select
    session_key,
    meeting_key,
    driver_number,
    {{ utc('date') }} as date,
    x as position_x,
    y as position_y,
    coalesce(z, 0) as position_z,
    round(sqrt(cast(x as double) * x + cast(y as double) * y), 3) as distance_from_origin,
    -- The car's transponder says 0/0/0 where it knows nothing.
    x = 0 and y = 0 and coalesce(z, 0) = 0 as is_at_origin,
    session_name,
    batch_day,
    _loaded_at as input_updated_at,
    {{ run_time() }} as updated_at
from newest
