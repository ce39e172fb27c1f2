-- Which company of the awards owns a patent: it got it in the last assignment or merger that was recorded, under a name
-- that normalises to the same, and no other company of the awards has that name. Without an assignment, it was granted it.
with owners as (
    select assignment.grant_doc_num, entity.normalized_name, assignment.record_date as as_of_date, 'assignment' as source
    from {{ ref('transformed.patent_assignments') }} as assignment
    join {{ ref('transformed.patent_parties') }} as party on party.rf_id = assignment.rf_id and party.role = 'assignee'
    join {{ ref('transformed.patent_entities') }} as entity using (entity_id)
    where assignment.grant_doc_num <> '' and assignment.conveyance_type in ('assignment', 'merger')
    qualify rank() over (
        partition by assignment.grant_doc_num order by assignment.record_date desc nulls last, assignment.rf_id desc) = 1
),
granted as (
    select grant_doc_num, {{ sbir_name('assignee_name') }} as normalized_name, grant_date as as_of_date, 'grant' as source
    from {{ ref('transformed.patents') }}
    where assignee_name is not null and grant_doc_num not in (select grant_doc_num from owners)
),
names as (
    {{ sbir_companies_by_name(ref('validated.company_keys')) }}
)
select distinct names.company_id, owned.grant_doc_num, owned.as_of_date, owned.source
from (from owners union all from granted) as owned
join names using (normalized_name)
join {{ ref('transformed.patents') }} using (grant_doc_num)
