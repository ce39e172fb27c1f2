-- What the files say of published applications, typed. Their numbers are a year and seven digits: no grant has such a one.
with typed as (
    select
        nullif(regexp_extract(regexp_replace(upper({{ sbir_text('doc_number') }}), '[\s,./-]', '', 'g'), '^(?:US)?((?:19|20)\d{9})(?:A[129])?$', 1), '') as publication_number,
        {{ sbir_text('doc_number') }} as publication_number_text,
        {{ sbir_uspto_date(sbir_text('publication_date')) }} as publication_date,
        {{ sbir_text('publication_date') }} as publication_date_text,
        {{ sbir_text('appno_doc_num') }} as appno_doc_num,
        {{ sbir_uspto_date(sbir_text('appno_date')) }} as appno_date,
        {{ sbir_words(sbir_text('title')) }} as title,
        {{ sbir_prose(sbir_text('abstract')) }} as abstract,
        {{ sbir_words(sbir_text('assignee')) }} as assignee_name,
        _file
    from {{ ref('raw.patent_publications') }}
)
select
    * exclude (publication_date_text),
    string_split(nullif(concat_ws(',',
        case when publication_number_text is null then 'publication_number_missing' end,
        case when publication_number_text is not null and publication_number is null then 'publication_number_unreadable' end,
        case when title is null then 'title_missing' end), ''), ',') as reasons,
    coalesce(string_split(nullif(concat_ws(',',
        case when publication_date_text is not null and publication_date is null then 'publication_date_unreadable' end,
        case when appno_doc_num is null then 'application_number_missing' end,
        case when abstract is null then 'abstract_missing' end,
        case when publication_date < appno_date then 'published_before_application' end), ''), ','), []) as warnings
from typed
