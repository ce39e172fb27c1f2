-- Sessions whose first place is not the fastest valid lap.
select l.session_key, l.fastest_lap_time, f.fastest
from {{ ref('session_leaderboard') }} as l
inner join (
    select session_key, min(lap_ms) as fastest from {{ ref('fact_laps') }} where is_valid_lap group by session_key
) as f on l.session_key = f.session_key
where l.position = 1 and {{ milliseconds('l.fastest_lap_time') }} <> f.fastest
