-- For each company that a person should look at: up to five entities that it may be, the likeliest first.
select
    company_id,
    unnest(candidates, recursive := true)
from {{ ref('enriched.company_matches') }}
where status = 'review'
