-- Sales as the tills sent them. A landing file is read exactly once; one that was rewritten replaces its own rows.
select
    sale_id,
    store_id,
    sold_at,
    recorded_at,
    product,
    quantity,
    unit_price,
    _file,
    _loaded_at,
    _run_id
from {{ source('landing/sales/*.csv') }}
