-- Lines that say again what another one says, and which award was kept instead. Three rules, one after the other:
-- the same line twice in a file; two lines of one award, of which the better source, then the later file counts;
-- two awards of one company with the same agency, tracking number and phase, of which the more complete one counts.
with passed as (
    select
        line.line_id, line.award_id, line._file, line.n_filled, line.agency, line.agency_tracking_number, line.phase,
        key.company_id,
        case line.source_format when 'bulk' then 1 when 'api' then 2 else 3 end as source_rank
    from {{ ref('validated.sbir_award_lines') }} as line
    join {{ ref('validated.company_keys') }} as key using (company_key)
    where line.reasons is null
),
contested as (
    select award_id from passed group by award_id having count(*) > 1
),
of_one_award as (
    select line_id, award_id,
        row_number() over (partition by award_id order by source_rank, _file desc, n_filled desc, line_id) as place
    from passed
    where award_id in (select award_id from contested)
),
awards as (
    select *
    from passed
    where line_id not in (select line_id from of_one_award where place > 1)
),
told_twice as (
    select agency, agency_tracking_number, phase, company_id
    from awards
    where agency_tracking_number is not null
    group by all
    having count(*) > 1
),
of_one_project as (
    select line_id, award_id,
        row_number() over same as place,
        first_value(award_id) over same as kept_award_id
    from awards
    semi join told_twice using (agency, agency_tracking_number, phase, company_id)
    window same as (
        partition by agency, agency_tracking_number, phase, company_id
        order by n_filled desc, source_rank, _file desc, award_id
    )
),
losers as (
    select line_id, award_id as kept_award_id, 'same_award' as rule from of_one_award where place > 1
    union all
    select line_id, kept_award_id, 'same_tracking_and_phase' from of_one_project where place > 1
),
finally as (
    select loser.line_id, loser.rule, coalesce(better.kept_award_id, loser.kept_award_id) as kept_award_id
    from losers as loser
    left join of_one_project as better on better.award_id = loser.kept_award_id and better.place > 1
),
copies as (
    select line_id, n_lines from {{ ref('validated.sbir_award_lines') }} where n_lines > 1 and reasons is null
),
rows as (
    select line_id, rule, kept_award_id, 1 as copy from finally
    union all
    select
        copies.line_id, 'same_line', coalesce(finally.kept_award_id, line.award_id), unnest(range(2, copies.n_lines + 1))
    from copies
    join {{ ref('validated.sbir_award_lines') }} as line using (line_id)
    left join finally using (line_id)
),
texts as (
    select distinct on (line_id) *
    from {{ ref('raw.sbir_awards') }}
    where line_id in (select line_id from rows)
)
select
    rows.rule,
    rows.kept_award_id,
    line.award_id,
    rows.copy,
    texts.*
from rows
join {{ ref('validated.sbir_award_lines') }} as line using (line_id)
join texts using (line_id)
