-- What is said of granted patents: by the file of grants, which has abstracts, and by the assignment data set.
with said as (
    select
        grant_doc_num, title, abstract, grant_date, appno_doc_num, appno_date, lang, assignee,
        1 as source_rank, 'patents' as source, _file
    from {{ ref('raw.patents') }}
    union all
    select
        grant_doc_num, title, null, grant_date, appno_doc_num, appno_date, lang, null,
        2, 'uspto_documents', _file
    from {{ ref('raw.uspto_documents') }}
    where {{ sbir_text('grant_doc_num') }} is not null
),
typed as (
    select
        {{ sbir_grant('grant_doc_num') }} as grant_doc_num,
        {{ sbir_text('grant_doc_num') }} as grant_doc_num_text,
        {{ sbir_words(sbir_text('title')) }} as title,
        {{ sbir_prose(sbir_text('abstract')) }} as abstract,
        {{ sbir_uspto_date(sbir_text('grant_date')) }} as grant_date,
        {{ sbir_text('grant_date') }} as grant_date_text,
        {{ sbir_text('appno_doc_num') }} as appno_doc_num,
        {{ sbir_uspto_date(sbir_text('appno_date')) }} as appno_date,
        {{ sbir_text('appno_date') }} as appno_date_text,
        case upper({{ sbir_text('lang') }}) when 'ENGLISH' then 'en' when 'ENG' then 'en' else lower({{ sbir_text('lang') }}) end as language,
        {{ sbir_words(sbir_text('assignee')) }} as assignee_name,
        source_rank,
        source,
        _file
    from said
)
select
    * exclude (grant_date_text, appno_date_text),
    string_split(nullif(concat_ws(',',
        case when grant_doc_num_text is null then 'grant_number_missing' end,
        case when grant_doc_num_text is not null and grant_doc_num is null then 'grant_number_unreadable' end,
        case when title is null then 'title_missing' end), ''), ',') as reasons,
    coalesce(string_split(nullif(concat_ws(',',
        case when grant_date_text is not null and grant_date is null then 'grant_date_unreadable' end,
        case when appno_date_text is not null and appno_date is null then 'application_date_unreadable' end,
        case when appno_doc_num is null then 'application_number_missing' end,
        case when grant_date < appno_date then 'granted_before_application' end), ''), ','), []) as warnings
from typed
