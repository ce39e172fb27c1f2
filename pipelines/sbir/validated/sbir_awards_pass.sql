-- The awards: one row each, typed. Of lines that say the same award one is here, the others are in the duplicates.
{% set columns = [
    'solicitation_number', 'topic_code', 'company_website', 'address1', 'address2', 'city',
    'abstract', 'contact_name', 'contact_title', 'pi_name', 'pi_title', 'ri_poc_name',
    'ri_poc_phone', 'research_keywords'] %}
with lines as (
    select *
    from {{ ref('validated.sbir_award_lines') }}
    where reasons is null
        and line_id not in (select line_id from {{ ref('validated.sbir_awards_duplicate') }} where rule <> 'same_line')
),
repeated as (
    select line_id from {{ ref('validated.sbir_award_lines') }} where n_lines > 1
),
lines_of_files as (
    select * from {{ ref('raw.sbir_awards') }}
    where line_id not in (select line_id from repeated)
    union all
    select distinct on (line_id) * from {{ ref('raw.sbir_awards') }}
    where line_id in (select line_id from repeated)
),
texts as (
    select
        line_id
        {%- for column in columns %},
        {{ sbir_text(column) }} as {{ column }}
        {%- endfor %}
    from lines_of_files
),
awards as (
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
        texts.solicitation_number as solicitation_number,
        line.solicitation_year,
        line.solicitation_close_date,
        line.proposal_receipt_date,
        line.date_of_notification,
        texts.topic_code as topic_code,
        line.uei,
        line.duns,
        line.hubzone_owned,
        line.socially_and_economically_disadvantaged,
        line.woman_owned,
        line.number_employees,
        texts.company_website as company_website,
        {{ sbir_words('texts.address1') }} as address1,
        {{ sbir_words('texts.address2') }} as address2,
        {{ sbir_words('texts.city') }} as city,
        line.state,
        line.zip,
        texts.abstract as abstract,
        {{ sbir_words('texts.contact_name') }} as contact_name,
        {{ sbir_words('texts.contact_title') }} as contact_title,
        nullif(line.contact_phone, '() -') as contact_phone,
        line.contact_email,
        {{ sbir_words('texts.pi_name') }} as pi_name,
        {{ sbir_words('texts.pi_title') }} as pi_title,
        nullif(line.pi_phone, '() -') as pi_phone,
        line.pi_email,
        line.ri_name,
        {{ sbir_words('texts.ri_poc_name') }} as ri_poc_name,
        nullif(texts.ri_poc_phone, '() -') as ri_poc_phone,
        texts.research_keywords as research_keywords,
        line.warnings,
        line.source_format,
        line.line_id
    from lines as line
    join texts using (line_id)
    join {{ ref('validated.company_keys') }} as key using (company_key)
)
-- What is said of the award, not which line says it.
select *, md5(row(*columns(* exclude (line_id, source_format)))::varchar) as content_hash
from awards
