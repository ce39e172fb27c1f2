-- Every line of assignee.csv, as text.
select
    rf_id,
    ee_name,
    ee_address_1,
    ee_address_2,
    ee_city,
    ee_state,
    ee_postcode,
    ee_country,
    _file
from {{ source('uspto_assignee') }}
