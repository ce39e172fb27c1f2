-- `ref` names another table. It also tells Ratatouille to build that one first.
select
    order_id,
    ordered_at,
    customer,
    dish,
    portions,
    cast(portions * price as decimal(12, 2)) as total,
    _loaded_at
from {{ ref('bronze.orders') }}
-- On later runs only the rows that arrived since the last one are read.
{% if is_incremental() %}
where _loaded_at > {{ watermark('_loaded_at') }}
{% endif %}
