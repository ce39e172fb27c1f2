-- Recorded assignments, one row for each rf_id; they may be of several patents.
select * exclude (reasons)
from {{ ref('validated.patent_assignment_lines') }}
where reasons is null
