-- Sessions in which the facts are not the laps of silver.
select coalesce(s.session_key, f.session_key) as session_key, s.laps, f.facts
from (select session_key, count(*) as laps from {{ ref('silver_laps') }} group by session_key) as s
full join (select session_key, count(*) as facts from {{ ref('fact_laps') }} group by session_key) as f
    on s.session_key = f.session_key
where coalesce(s.laps, 0) <> coalesce(f.facts, 0)
