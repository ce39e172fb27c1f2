-- What SAM.gov has registered, from its files and from its API, with names as they are compared.
-- What the API said counts for an entity that the file lacks.
with entities as (
    select
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
        'file' as said_by
    from {{ ref('raw.sam_entities') }}
    union all by name
    select
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
        'api' as said_by
    from {{ ref('raw.sam_api_entities') }}
    where unique_entity_id not in (
        select unique_entity_id from {{ ref('raw.sam_entities') }} where unique_entity_id is not null
    )
)
select
    *,
    {{ sbir_name('legal_business_name') }} as normalized_name,
    {{ sbir_name('dba_name') }} as normalized_dba
from entities
