-- Which patents an award has to do with: those whose grant number its text names, and those of its company that were
-- applied for between the award and three years after its end. Numbers are compared exactly; a number that is near is another patent.
with texts as (
    select award_id, regexp_replace(concat_ws('. ', award_title, abstract), '\s+', ' ', 'g') as text
    from {{ ref('validated.sbir_awards_pass') }}
),
-- "Patent Nos. 9,123,456 and US 10123456 B2", "US-9123456": the numbers that follow the word, one after the other.
lists as (
    select
        award_id,
        text,
        unnest(regexp_extract_all(
            text,
            '(?i)(?:\bpat(?:ents?|s?\.)(?: (?:nos?\.?|numbers?|#))*:?|\bU\.?S\.?)[ -]?(?:(?:U\.?S\.?|no\.?|#|RE|PP|D)? ?(?:\d{1,2},\d{3},\d{3}|\d{7,8})\b(?: ?[ABES]\d?\b)?(?:,|;| |and|&)*)+'
        )) as listed
    from texts
    where regexp_matches(text, '(?i)\bpat(ent|s?\.)|\bU\.?S\.?[ -]?\d')
),
named as (
    select award_id, text, unnest(regexp_extract_all(listed, '(?i)(?:RE|PP|D)?(?:\d{1,2},\d{3},\d{3}|\d{7,8})\b')) as written
    from lists
),
by_number as (
    select
        named.award_id,
        patent.grant_doc_num,
        'grant_number' as method,
        0.95 as confidence,
        to_json({
            'written': any_value(written),
            'excerpt': any_value(substr(text, greatest(1, instr(text, written) - 60), 60 + length(written) + 20))
        })::varchar as evidence
    from named
    join {{ ref('validated.patents') }} as patent on patent.grant_doc_num = replace(upper(named.written), ',', '')
    group by named.award_id, patent.grant_doc_num
),
by_company as (
    select
        award.award_id,
        owned.grant_doc_num,
        'assignee' as method,
        0.60 as confidence,
        to_json({
            'company_id': award.company_id,
            'applied_on': any_value(patent.appno_date),
            'award_from': any_value(award.award_date),
            'award_to': any_value(award.contract_end_date)
        })::varchar as evidence
    from {{ ref('validated.sbir_awards_pass') }} as award
    join {{ ref('transformed.company_patents') }} as owned using (company_id)
    join {{ ref('validated.patents') }} as patent using (grant_doc_num)
    where patent.appno_date between award.award_date
        and coalesce(award.contract_end_date, award.award_date + interval 2 year) + interval 3 year
    group by award.award_id, award.company_id, owned.grant_doc_num
)
select * from by_number
union all
select * from by_company anti join by_number using (award_id, grant_doc_num)
