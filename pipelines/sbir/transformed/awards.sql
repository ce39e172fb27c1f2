-- Awards in one spelling, with what follows from their values.
with funding as (
    select
        award_id,
        sum(award_amount) over (
            partition by company_id
            order by coalesce(award_date, make_date(award_year, 1, 1)), award_id
        ) as cumulative_company_funding
    from {{ ref('validated.sbir_awards_pass') }}
),
both_phases as (
    select agency, agency_tracking_number
    from {{ ref('validated.sbir_awards_pass') }}
    where agency_tracking_number is not null
    group by all
    having count(distinct phase) > 1
)
select
    award.award_id,
    award.company_id,
    award.agency_tracking_number,
    award.contract,
    award.company_name,
    award.award_title,
    award.agency,
    {{ sbir_agency_code('award.agency') }} as agency_code,
    award.branch,
    award.phase,
    case award.phase when 'Phase I' then 1 when 'Phase II' then 2 else 3 end as phase_number,
    award.program,
    award.award_amount,
    award.award_date,
    award.award_date_source,
    award.contract_end_date,
    award.award_year,
    coalesce(year(award.award_date + interval 3 month), award.award_year)::integer as fiscal_year,
    case when award.award_date is null then 'award_year' else 'award_date' end as fiscal_year_source,
    case when award.contract_end_date >= award.award_date then award.contract_end_date - award.award_date end::integer as award_duration_days,
    award.solicitation_number,
    award.solicitation_year,
    award.topic_code,
    award.address1,
    award.address2,
    award.city,
    award.state,
    {{ sbir_zip('award.zip') }} as zip,
    nullif(concat_ws(', ', award.address1, award.address2, award.city,
        nullif(concat_ws(' ', award.state, {{ sbir_zip('award.zip') }}), '')), '') as full_address,
    {{ sbir_phone('award.contact_phone') }} as contact_phone,
    lower(award.contact_email) as contact_email,
    award.contact_name,
    award.pi_name,
    {{ sbir_phone('award.pi_phone') }} as pi_phone,
    lower(award.pi_email) as pi_email,
    award.ri_name,
    award.hubzone_owned,
    award.socially_and_economically_disadvantaged,
    award.woman_owned,
    award.number_employees,
    {{ sbir_prose('award.abstract') }} as abstract,
    award.research_keywords,
    both_phases.agency is not null as is_multi_phase,
    funding.cumulative_company_funding,
    md5(concat_ws('|', award.content_hash, both_phases.agency is not null, funding.cumulative_company_funding)) as content_hash
from {{ ref('validated.sbir_awards_pass') }} as award
join funding using (award_id)
left join both_phases
    on both_phases.agency = award.agency and both_phases.agency_tracking_number = award.agency_tracking_number
