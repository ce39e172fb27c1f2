-- Lines that break a rule of severity error, as the file says them, with every reason.
select
    line.reasons,
    line.warnings,
    line.n_lines,
    texts.*
from (
    select distinct on (line_id) *
    from {{ ref('raw.sbir_awards') }}
    where line_id in (select line_id from {{ ref('validated.sbir_award_lines') }} where reasons is not null)
) as texts
join {{ ref('validated.sbir_award_lines') }} as line using (line_id)
