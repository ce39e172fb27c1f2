-- Every line of assignor.csv, as text.
select
    rf_id,
    or_name,
    exec_dt,
    ack_dt,
    _file
from {{ source('uspto_assignor') }}
