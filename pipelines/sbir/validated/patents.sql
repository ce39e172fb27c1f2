-- Granted patents, one row each: the file of grants counts before the assignment data set, which fills what it lacks.
select
    grant_doc_num,
    arg_min(title, place) as title,
    arg_min(abstract, place) filter (where abstract is not null) as abstract,
    arg_min(grant_date, place) filter (where grant_date is not null) as grant_date,
    arg_min(appno_doc_num, place) filter (where appno_doc_num is not null) as appno_doc_num,
    arg_min(appno_date, place) filter (where appno_date is not null) as appno_date,
    arg_min(language, place) filter (where language is not null) as language,
    arg_min(assignee_name, place) filter (where assignee_name is not null) as assignee_name,
    arg_min(warnings, place) as warnings,
    count(*) as n_lines
from (select *, (source_rank, _file, title, coalesce(appno_doc_num, ''), coalesce(abstract, '')) as place from {{ ref('validated.patent_lines') }})
where reasons is null
group by grant_doc_num
