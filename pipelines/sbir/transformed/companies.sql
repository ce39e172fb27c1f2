-- One row for each company of the awards. What awards say differently is taken from the latest that says it.
with said as (
    select
        *,
        (coalesce(award_date, make_date(award_year, 1, 1)), award_id) as moment
    from {{ ref('validated.sbir_awards_pass') }}
),
companies as (
    select
        company_id,
        arg_max(company_name, moment) as name,
        arg_max(uei, moment) filter (where uei is not null) as uei,
        arg_max(duns, moment) filter (where duns is not null) as duns,
        arg_max(address1, moment) filter (where address1 is not null) as address1,
        arg_max(address2, moment) filter (where address1 is not null) as address2,
        arg_max(city, moment) filter (where city is not null) as city,
        arg_max(state, moment) filter (where state is not null) as state,
        arg_max({{ sbir_zip('zip') }}, moment) filter (where {{ sbir_zip('zip') }} is not null) as zip,
        arg_max(company_website, moment) filter (where company_website is not null) as website,
        arg_max(hubzone_owned, moment) filter (where hubzone_owned is not null) as hubzone_owned,
        arg_max(socially_and_economically_disadvantaged, moment)
            filter (where socially_and_economically_disadvantaged is not null) as socially_and_economically_disadvantaged,
        arg_max(woman_owned, moment) filter (where woman_owned is not null) as woman_owned,
        arg_max(number_employees, moment) filter (where number_employees > 0) as number_employees,
        list_sort(list(distinct company_name)) as names,
        count(*) as award_count,
        sum(award_amount) as total_funding,
        count(*) filter (where phase = 'Phase I') as phase_1_count,
        count(*) filter (where phase = 'Phase II') as phase_2_count,
        count(*) filter (where phase = 'Phase III') as phase_3_count,
        min(award_date) as first_award_date,
        max(award_date) as last_award_date,
        min(award_year) as first_award_year,
        max(award_year) as last_award_year,
        list_sort(list(distinct agency)) as agencies
    from said
    group by company_id
),
described as (
    select
        * exclude (names),
        {{ sbir_name('name') }} as normalized_name,
        nullif(concat_ws(', ', address1, address2, city, nullif(concat_ws(' ', state, zip), '')), '') as full_address,
        list_filter(names, lambda other: other <> name) as aliases,
        case greatest(phase_1_count, phase_2_count, phase_3_count)
            when phase_1_count then 'Phase I' when phase_2_count then 'Phase II' else 'Phase III' end as dominant_phase,
        (phase_1_count > 0)::int + (phase_2_count > 0)::int + (phase_3_count > 0)::int > 1 as is_multi_phase
    from companies
)
select *, md5(row(*columns(*))::varchar) as content_hash
from described
