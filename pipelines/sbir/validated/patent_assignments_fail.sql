-- Lines of the table of assignments that cannot be used, with every reason.
select *
from {{ ref('validated.patent_assignment_lines') }}
where reasons is not null
