-- Revenue by day, store and product.
select
    sales.date,
    sales.store_id,
    stores.name as store,
    sales.product,
    count(*) as sale_count,
    cast(sum(sales.quantity) as bigint) as piece_count,
    cast(sum(sales.total) as decimal(14, 2)) as total
from {{ ref('silver.sales') }} as sales
join {{ ref('bronze.stores') }} as stores using (store_id)
group by all
