-- Every line of every file of contract actions, as text.
select
    uei,
    duns,
    award_id_piid,
    recipient_name,
    naics_code,
    amount,
    action_date,
    _file
from {{ source('usaspending_awards') }}
