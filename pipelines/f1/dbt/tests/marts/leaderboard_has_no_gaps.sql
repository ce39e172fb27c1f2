-- Sessions whose positions are not 1, 2, 3, ... to the number of drivers.
select session_key, max(position) as last_position, count(*) as drivers
from {{ ref('session_leaderboard') }}
group by session_key
having max(position) <> count(*)
