select
    grant_doc_num,
    title,
    abstract,
    grant_date,
    appno_doc_num,
    appno_date,
    language,
    assignee_name,
    md5(concat_ws('|', grant_doc_num, title, coalesce(abstract, ''), coalesce(grant_date::varchar, ''), coalesce(appno_doc_num, ''),
        coalesce(appno_date::varchar, ''), coalesce(language, ''), coalesce(assignee_name, ''))) as content_hash
from {{ ref('validated.patents') }}
