-- Every line of every company file, as text.
select
    company_name,
    uei,
    duns,
    number_awards,
    address1,
    address2,
    city,
    state,
    zip,
    country,
    hubzone_owned,
    woman_owned,
    socially_and_economically_disadvantaged,
    company_url,
    _file
from {{ source('sbir_companies') }}
