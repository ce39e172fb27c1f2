-- Two rows of one person at the same time.
select a.person_key, a.valid_from, b.valid_from as other_from
from {{ ref('dim_drivers') }} as a
inner join {{ ref('dim_drivers') }} as b
    on a.person_key = b.person_key
    and a.driver_key <> b.driver_key
    and a.valid_from < coalesce(b.valid_to, cast('9999-01-01' as timestamp))
    and b.valid_from < coalesce(a.valid_to, cast('9999-01-01' as timestamp))
