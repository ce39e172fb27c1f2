-- Every line of assignment.csv, as text.
select
    rf_id,
    file_id,
    cname,
    caddress_1,
    caddress_2,
    caddress_3,
    caddress_4,
    reel_no,
    frame_no,
    convey_text,
    record_dt,
    last_update_dt,
    purge_in,
    page_count,
    _file
from {{ source('uspto_assignment') }}
