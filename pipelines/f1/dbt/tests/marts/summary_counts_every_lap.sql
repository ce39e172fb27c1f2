-- Drivers whose summary counts other laps than the facts hold.
select f.session_key, f.driver_number, f.laps, s.total_laps
from (
    select session_key, driver_number, count(*) as laps from {{ ref('fact_laps') }} group by session_key, driver_number
) as f
left join {{ ref('driver_session_summary') }} as s
    on f.session_key = s.session_key and f.driver_number = s.driver_number
where coalesce(s.total_laps, 0) <> f.laps
