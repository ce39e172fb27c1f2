-- Every line of documentid.csv, as text.
select
    rf_id,
    title,
    lang,
    appno_doc_num,
    appno_date,
    appno_country,
    pgpub_doc_num,
    pgpub_date,
    pgpub_country,
    grant_doc_num,
    grant_date,
    grant_country,
    _file
from {{ source('uspto_documentid') }}
