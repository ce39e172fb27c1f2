-- What SAM.gov has registered, by its files, with names as they are compared. `entity_id` numbers the rows of this version.
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
        naics_code_string
    from {{ ref('raw.sam_entities') }}
),
named as (
    select
        row_number() over () as entity_id,
        *,
        {{ sbir_name('legal_business_name') }} as normalized_name,
        {{ sbir_name('dba_name') }} as normalized_dba
    from entities
),
-- Of several registrations with one UEI the active one counts, then the first by name.
others as (
    select entity_id
    from named
    where unique_entity_id in (select unique_entity_id from entities group by all having count(*) > 1)
    qualify row_number() over (
        partition by unique_entity_id
        order by registration_status not in ('A', 'Active'), legal_business_name, cage_code, zip_postal_code, entity_id
    ) > 1
)
select * from named
where entity_id not in (select entity_id from others)
