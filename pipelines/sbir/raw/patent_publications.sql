-- Every record of every file of published applications, as text.
select
    doc_number,
    date as publication_date,
    json_extract_string(application_reference, '$."doc-number"') as appno_doc_num,
    json_extract_string(application_reference, '$.date') as appno_date,
    title,
    abstract,
    json_extract_string(assignee, '$.orgname') as assignee,
    _file
from {{ source('publications') }}
