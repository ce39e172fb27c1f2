-- Published applications, one row each. What is said of one in several files is taken from the last of them that says it.
select
    publication_number,
    arg_max(title, place) as title,
    arg_max(abstract, place) filter (where abstract is not null) as abstract,
    arg_max(publication_date, place) filter (where publication_date is not null) as publication_date,
    arg_max(appno_doc_num, place) filter (where appno_doc_num is not null) as appno_doc_num,
    arg_max(appno_date, place) filter (where appno_date is not null) as appno_date,
    arg_max(assignee_name, place) filter (where assignee_name is not null) as assignee_name,
    arg_max(warnings, place) as warnings,
    count(*) as n_lines
from (select *, (_file, title, coalesce(appno_doc_num, ''), coalesce(abstract, '')) as place from {{ ref('validated.patent_publication_lines') }})
where reasons is null
group by publication_number
