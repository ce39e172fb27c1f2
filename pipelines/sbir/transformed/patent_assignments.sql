-- One row for each assignment and patent; an assignment of applications alone has one row without a patent.
select
    rf_id,
    coalesce(grant_doc_num, '') as grant_doc_num,
    record_date,
    exec_date,
    conveyance_type,
    employer_assign,
    reel_no,
    frame_no,
    convey_text,
    md5(concat_ws('|', rf_id, coalesce(grant_doc_num, ''), coalesce(record_date::varchar, ''), coalesce(exec_date::varchar, ''),
        conveyance_type, coalesce(reel_no, ''), coalesce(frame_no, ''))) as content_hash
from (
    select *, unnest(case when len(grant_doc_nums) = 0 then [null] else grant_doc_nums end) as grant_doc_num
    from {{ ref('validated.patent_assignments') }}
)
