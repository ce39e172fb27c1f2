-- One row for each different line of the award files: its values typed, the rules that it breaks, the keys of its
-- award and of its company. Nothing here looks at another line, so it streams, and what comes after needs no join with
-- long texts: half a million of them do not fit into a small memory.
{% set columns = [
    'company_name', 'award_title', 'agency', 'branch', 'phase', 'program',
    'agency_tracking_number', 'contract', 'award_date', 'contract_end_date', 'solicitation_number', 'solicitation_year',
    'solicitation_close_date', 'proposal_receipt_date', 'date_of_notification', 'topic_code', 'award_year', 'award_amount',
    'uei', 'duns', 'hubzone_owned', 'socially_and_economically_disadvantaged', 'woman_owned', 'number_employees',
    'company_website', 'address1', 'address2', 'city', 'state', 'zip',
    'abstract', 'contact_name', 'contact_phone', 'contact_email', 'pi_name', 'pi_phone',
    'pi_email', 'ri_name', 'research_keywords', 'contact_title', 'pi_title', 'ri_poc_name',
    'ri_poc_phone'] %}
with repeated as (
    select line_id, count(*) as n_lines
    from {{ ref('raw.sbir_awards') }}
    group by line_id
    having count(*) > 1
),
lines as (
    select *, 1 as n_lines
    from {{ ref('raw.sbir_awards') }}
    where line_id not in (select line_id from repeated)
    union all by name
    select raw.*, n_lines
    from (select distinct on (line_id) * from {{ ref('raw.sbir_awards') }} where line_id in (select line_id from repeated)) as raw
    join repeated using (line_id)
),
cleaned as (
    select
        line_id, _file, source_format, n_lines
        {%- for column in columns %},
        {{ sbir_text(column) }} as {{ column }}
        {%- endfor %}
    from lines
),
typed as (
    select
        line_id,
        _file,
        source_format,
        n_lines,
        {{ sbir_words('company_name') }} as company_name,
        {{ sbir_words('award_title') }} as award_title,
        {{ sbir_words('agency') }} as agency,
        {{ sbir_words('branch') }} as branch,
        {{ sbir_phase('phase') }} as phase,
        {{ sbir_program('program') }} as program,
        agency_tracking_number,
        contract,
        award_date as award_date_text,
        {{ sbir_date('award_date', 'source_format') }} as award_date,
        contract_end_date as contract_end_date_text,
        {{ sbir_date('contract_end_date', 'source_format') }} as contract_end_date,
        {{ sbir_date('solicitation_close_date', 'source_format') }} as solicitation_close_date,
        {{ sbir_date('proposal_receipt_date', 'source_format') }} as proposal_receipt_date,
        {{ sbir_date('date_of_notification', 'source_format') }} as date_of_notification,
        try_cast(solicitation_year as integer) as solicitation_year,
        try_cast(award_year as integer) as award_year,
        award_amount as award_amount_text,
        {{ sbir_amount('award_amount') }} as award_amount,
        uei as uei_text,
        {{ sbir_uei('uei') }} as uei,
        duns as duns_text,
        {{ sbir_duns('duns') }} as duns,
        {{ sbir_flag('hubzone_owned') }} as hubzone_owned,
        {{ sbir_flag('socially_and_economically_disadvantaged') }} as socially_and_economically_disadvantaged,
        {{ sbir_flag('woman_owned') }} as woman_owned,
        try_cast(try_cast(number_employees as double) as integer) as number_employees,
        state as state_text,
        {{ sbir_state('state') }} as state,
        zip,
        contact_email,
        contact_phone,
        pi_email,
        pi_phone,
        {{ sbir_words('ri_name') }} as ri_name,
        solicitation_number,
        topic_code,
        company_website,
        {{ sbir_words('address1') }} as address1,
        {{ sbir_words('address2') }} as address2,
        {{ sbir_words('city') }} as city,
        abstract,
        {{ sbir_words('contact_name') }} as contact_name,
        {{ sbir_words('contact_title') }} as contact_title,
        {{ sbir_words('pi_name') }} as pi_name,
        {{ sbir_words('pi_title') }} as pi_title,
        {{ sbir_words('ri_poc_name') }} as ri_poc_name,
        ri_poc_phone,
        research_keywords,
        {{ sbir_filled(columns) }} as n_filled,
        year(current_date) as this_year
    from cleaned
)
select
    * exclude (award_date_text, contract_end_date_text, award_amount_text, uei_text, duns_text, state_text, this_year),
    md5(concat_ws('|', upper(agency), upper(coalesce(branch, '')), upper(coalesce(agency_tracking_number, '')),
        upper(coalesce(contract, '')), phase, program)) as award_id,
    lower(concat_ws('|', coalesce(uei, ''), coalesce(duns, ''), coalesce(company_name, ''), coalesce(state, ''))) as company_key,
    {{ sbir_broken_rules('error') }} as reasons,
    coalesce({{ sbir_broken_rules('warn') }}, []) as warnings
from typed
