-- `source` reads the landing files that were not read yet, and remembers each exactly once.
-- It adds three columns, so that every row knows where it came from: _file, _loaded_at, _run_id.
select
    order_id,
    ordered_at,
    customer,
    dish,
    portions,
    price,
    _file,
    _loaded_at,
    _run_id
from {{ source('landing/orders/*.csv') }}
