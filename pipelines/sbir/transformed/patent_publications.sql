-- Published applications: what was granted (by the exact number of the application, where it names one grant), and which
-- company of the awards applied (by a normalised name that no other one has).
with grants as (
    select appno_doc_num, min(grant_doc_num) as grant_doc_num
    from {{ ref('transformed.patents') }}
    where appno_doc_num is not null
    group by appno_doc_num
    having count(*) = 1
),
names as (
    {{ sbir_companies_by_name(ref('validated.company_keys')) }}
)
select
    said.publication_number,
    said.title,
    said.abstract,
    said.publication_date,
    said.appno_doc_num,
    said.appno_date,
    said.assignee_name,
    grants.grant_doc_num,
    names.company_id
from {{ ref('validated.patent_publications') }} as said
left join grants using (appno_doc_num)
left join names on names.normalized_name = {{ sbir_name('said.assignee_name') }}
