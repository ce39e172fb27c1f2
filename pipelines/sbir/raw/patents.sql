-- Every line of every file of granted patents, as text.
select
    grant_doc_num,
    title,
    abstract,
    grant_date,
    appno_doc_num,
    appno_date,
    lang,
    assignee,
    _file
from {{ source('patents') }}
