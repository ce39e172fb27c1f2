-- One row for each entity: of layout V2, with the DUNS that layout V1 knew for its CAGE code; and entities of V1 that
-- V2 does not have, which have no UEI.
with duns_of_cage as (
    select cage_code, min(duns_number) as duns_number
    from {{ ref('raw.sam_registrations') }}
    where layout = 'V1' and cage_code is not null
    group by cage_code
    having count(distinct duns_number) = 1
)
select entity.* replace (coalesce(entity.duns_number, old.duns_number) as duns_number)
from {{ ref('raw.sam_registrations') }} as entity
left join duns_of_cage as old on entity.cage_code = old.cage_code and entity.layout = 'V2'
where entity.layout = 'V2'
    or entity.cage_code is null
    or entity.cage_code not in (
        select cage_code from {{ ref('raw.sam_registrations') }} where layout = 'V2' and cage_code is not null
    )
