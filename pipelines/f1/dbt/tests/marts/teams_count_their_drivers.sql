-- Teams whose number of drivers is not that of the summary.
select t.session_key, t.team_name, t.drivers_count, s.drivers
from {{ ref('team_performance') }} as t
left join (
    select session_key, team_name, count(*) as drivers from {{ ref('driver_session_summary') }}
    group by session_key, team_name
) as s on t.session_key = s.session_key and t.team_name = s.team_name
where t.drivers_count <> coalesce(s.drivers, 0)
