-- Entities that only SAM.gov's API told of, with names as they are compared. Their numbers are below zero.
select
    -row_number() over (order by unique_entity_id) as entity_id,
    unique_entity_id,
    cage_code,
    duns_number,
    legal_business_name,
    dba_name,
    registration_status,
    physical_address_line_1,
    city,
    state,
    zip_postal_code,
    primary_naics,
    naics_code_string,
    {{ sbir_name('legal_business_name') }} as normalized_name,
    {{ sbir_name('dba_name') }} as normalized_dba
from {{ ref('raw.sam_api_entities') }}
where unique_entity_id not in (
    select unique_entity_id from {{ ref('raw.sam_entities') }} where unique_entity_id is not null
)
