-- One row per sale. On the second day only what arrived since the first is read: `_loaded_at` says when a row
-- reached us, so a sale that was reported late counts as well (a watermark on `sold_at` would miss it).
select
    sale_id,
    store_id,
    cast(sold_at as date) as date,
    sold_at,
    recorded_at,
    product,
    quantity,
    unit_price,
    cast(quantity * unit_price as decimal(12, 2)) as total,
    _loaded_at
from {{ ref('bronze.sales') }}
{% if is_incremental() %}
where _loaded_at > {{ watermark('_loaded_at') }}
{% endif %}
