-- Revenue by day.
select
    cast(ordered_at as date) as date,
    count(*) as order_count,
    sum(total) as revenue
from {{ ref('silver.orders') }}
group by all
order by date
