-- Persons without exactly one current row.
select person_key, sum(case when is_current then 1 else 0 end) as current_rows
from {{ ref('dim_drivers') }}
group by person_key
having sum(case when is_current then 1 else 0 end) <> 1
