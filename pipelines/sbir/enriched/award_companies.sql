-- One row for each company of the awards: what is known about it from its latest award that says it.
with said as (
    select
        company_id,
        company_name,
        uei,
        duns,
        city,
        state,
        zip,
        (coalesce(award_date, make_date(award_year, 1, 1)), award_id) as moment
    from {{ ref('validated.sbir_awards_pass') }}
),
companies as (
    select
        company_id,
        arg_max(company_name, moment) as company_name,
        coalesce(
            arg_max(uei, moment) filter (where uei is not null),
            case when company_id like 'UEI:%' then substr(company_id, 5) end
        ) as uei,
        arg_max(duns, moment) filter (where duns is not null) as duns,
        arg_max(city, moment) filter (where city is not null) as city,
        arg_max(state, moment) filter (where state is not null) as state,
        arg_max(zip, moment) filter (where zip is not null) as zip,
        count(*) as n_awards
    from said
    group by company_id
)
select
    company_id,
    company_name,
    {{ sbir_name('company_name') }} as normalized_name,
    uei,
    duns,
    null::varchar as cage_code,
    city,
    state,
    zip,
    n_awards
from companies
