-- One row for each line of the table of assignments, with what the other tables know of it.
with documents as (
    select
        {{ sbir_text('rf_id') }} as rf_id,
        list_sort(list(distinct {{ sbir_grant('grant_doc_num') }}) filter (where {{ sbir_grant('grant_doc_num') }} is not null)) as grant_doc_nums,
        list_sort(list(distinct {{ sbir_text('appno_doc_num') }}) filter (where {{ sbir_text('appno_doc_num') }} is not null)) as appno_doc_nums,
        count(*) as n_documents
    from {{ ref('raw.uspto_documents') }}
    group by 1
),
assignees as (
    select {{ sbir_text('rf_id') }} as rf_id, count(*) as n_assignees
    from {{ ref('raw.uspto_assignees') }}
    where {{ sbir_words(sbir_text('ee_name')) }} is not null
    group by 1
),
assignors as (
    select
        {{ sbir_text('rf_id') }} as rf_id,
        count(*) as n_assignors,
        min({{ sbir_uspto_date(sbir_text('exec_dt')) }}) as exec_date,
        count(*) filter (where {{ sbir_text('exec_dt') }} is not null and {{ sbir_uspto_date(sbir_text('exec_dt')) }} is null) as n_unreadable
    from {{ ref('raw.uspto_assignors') }}
    where {{ sbir_words(sbir_text('or_name')) }} is not null
    group by 1
),
conveyances as (
    select {{ sbir_text('rf_id') }} as rf_id, min(lower({{ sbir_text('convey_ty') }})) as convey_ty, max({{ sbir_text('employer_assign') }}) = '1' as employer_assign
    from {{ ref('raw.uspto_conveyances') }}
    group by 1
),
lines as (
    select
        {{ sbir_text('rf_id') }} as rf_id,
        {{ sbir_text('reel_no') }} as reel_no,
        {{ sbir_text('frame_no') }} as frame_no,
        {{ sbir_words(sbir_text('convey_text')) }} as convey_text,
        {{ sbir_uspto_date(sbir_text('record_dt')) }} as record_date,
        {{ sbir_text('record_dt') }} as record_date_text,
        {{ sbir_words(sbir_text('cname')) }} as correspondent,
        _file
    from {{ ref('raw.uspto_assignments') }}
),
joined as (
    select
        line.*,
        assignor.exec_date,
        coalesce(document.grant_doc_nums, []) as grant_doc_nums,
        coalesce(document.appno_doc_nums, []) as appno_doc_nums,
        conveyance.employer_assign,
        case
            when conveyance.convey_ty in ('assignment', 'license', 'merger') then conveyance.convey_ty
            when conveyance.convey_ty like 'security%' then 'security_interest'
            when conveyance.convey_ty is not null and conveyance.convey_ty <> 'missing' then 'other'
            when upper(line.convey_text) like '%SECURITY%' then 'security_interest'
            when upper(line.convey_text) like '%LICENSE%' then 'license'
            when upper(line.convey_text) like '%MERGER%' then 'merger'
            when upper(line.convey_text) like '%ASSIGN%' then 'assignment'
            else 'other'
        end as conveyance_type,
        coalesce(document.n_documents, 0) as n_documents,
        coalesce(assignee.n_assignees, 0) as n_assignees,
        coalesce(assignor.n_assignors, 0) as n_assignors,
        coalesce(assignor.n_unreadable, 0) as n_unreadable,
        row_number() over (partition by line.rf_id order by line._file desc, line.record_date desc nulls last, line.reel_no, line.frame_no, line.convey_text) as place
    from lines as line
    left join documents as document using (rf_id)
    left join assignees as assignee using (rf_id)
    left join assignors as assignor using (rf_id)
    left join conveyances as conveyance using (rf_id)
)
select
    * exclude (record_date_text, n_unreadable, place),
    string_split(nullif(concat_ws(',',
        case when rf_id is null then 'rf_id_missing' end,
        case when rf_id is not null and place > 1 then 'rf_id_repeated' end,
        case when n_documents = 0 then 'document_missing' end,
        case when n_assignees = 0 then 'assignee_missing' end), ''), ',') as reasons,
    coalesce(string_split(nullif(concat_ws(',',
        case when n_assignors = 0 then 'assignor_missing' end,
        case when record_date_text is not null and record_date is null then 'record_date_unreadable' end,
        case when record_date_text is null then 'record_date_missing' end,
        case when n_unreadable > 0 then 'execution_date_unreadable' end,
        case when exec_date > record_date then 'recorded_before_execution' end,
        case when reel_no is null or frame_no is null then 'reel_or_frame_missing' end), ''), ','), []) as warnings
from joined
