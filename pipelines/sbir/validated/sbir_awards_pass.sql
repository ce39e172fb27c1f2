-- The awards: one row each, typed. Of lines that say the same award one is here, the others are in the duplicates.
with awards as (
    select
        line.award_id,
        key.company_id,
        line.agency_tracking_number,
        line.contract,
        line.company_name,
        line.award_title,
        line.agency,
        line.branch,
        line.phase,
        line.program,
        line.award_year,
        line.award_amount,
        line.award_date,
        case when line.award_date is not null then 'stated' else 'missing' end as award_date_source,
        line.contract_end_date,
        line.solicitation_number,
        line.solicitation_year,
        line.solicitation_close_date,
        line.proposal_receipt_date,
        line.date_of_notification,
        line.topic_code,
        line.uei,
        line.duns,
        line.hubzone_owned,
        line.socially_and_economically_disadvantaged,
        line.woman_owned,
        line.number_employees,
        line.company_website,
        line.address1,
        line.address2,
        line.city,
        line.state,
        line.zip,
        line.abstract,
        line.contact_name,
        line.contact_title,
        nullif(line.contact_phone, '() -') as contact_phone,
        line.contact_email,
        line.pi_name,
        line.pi_title,
        nullif(line.pi_phone, '() -') as pi_phone,
        line.pi_email,
        line.ri_name,
        line.ri_poc_name,
        nullif(line.ri_poc_phone, '() -') as ri_poc_phone,
        line.research_keywords,
        line.warnings,
        line.source_format,
        line.line_id
    from {{ ref('validated.sbir_award_lines') }} as line
    join {{ ref('validated.company_keys') }} as key using (company_key)
    where line.reasons is null
        and line.line_id not in (select line_id from {{ ref('validated.sbir_awards_duplicate') }} where rule <> 'same_line')
)
-- What is said of the award, not which line says it.
select *, md5(row(*columns(* exclude (line_id, source_format)))::varchar) as content_hash
from awards
