-- Who gave and who got: one row for each assignment, entity and role.
with parties as (
    select {{ sbir_text('rf_id') }} as rf_id, 'assignee' as role, {{ sbir_words(sbir_text('ee_name')) }} as name, null::date as exec_date
    from {{ ref('raw.uspto_assignees') }}
    union all
    select {{ sbir_text('rf_id') }}, 'assignor', {{ sbir_words(sbir_text('or_name')) }}, {{ sbir_uspto_date(sbir_text('exec_dt')) }}
    from {{ ref('raw.uspto_assignors') }}
)
select
    party.rf_id,
    {{ sbir_entity_id('party.name') }} as entity_id,
    party.role,
    min(case party.role when 'assignee' then assignment.record_date else party.exec_date end) as date
from parties as party
join {{ ref('validated.patent_assignments') }} as assignment using (rf_id)
where party.name is not null and {{ sbir_name('party.name') }} <> ''
group by 1, 2, 3
