-- Who is who among the companies of the awards. A company is known by its UEI, else its DUNS, else its normalised name
-- and state. A line that lacks a number gets the company of the lines that share its DUNS, or its name and state, when
-- all of those are one company. The company file of SBIR.gov, where there is one, tells such numbers too.
{% macro number_id(row) -%}
case when coalesce({{ row }}.uei, by_duns.uei) is not null then 'UEI:' || coalesce({{ row }}.uei, by_duns.uei)
    when duns is not null then 'DUNS:' || duns end
{%- endmacro %}
with said as (
    select
        company_key,
        min(uei) as uei,
        min(duns) as duns,
        min(company_name) as company_name,
        min(state) as state,
        sum(n_lines)::bigint as n_lines
    from {{ ref('validated.sbir_award_lines') }}
    where reasons is null
    group by company_key
),
named as (
    select *, {{ sbir_name('company_name') }} as normalized_name
    from said
),
known as (
    select uei, duns, normalized_name, state
    from named
    union all
    select
        {{ sbir_uei(sbir_text('uei')) }},
        {{ sbir_duns(sbir_text('duns')) }},
        {{ sbir_name(sbir_text('company_name')) }},
        {{ sbir_state(sbir_text('state')) }}
    from {{ ref('raw.companies') }}
),
uei_of_duns as (
    select duns, min(uei) as uei
    from known
    where duns is not null and uei is not null
    group by duns
    having count(distinct uei) = 1
),
company_of_name as (
    select normalized_name, state, min({{ number_id('known') }}) as number_id
    from known
    left join uei_of_duns as by_duns using (duns)
    where {{ number_id('known') }} is not null and normalized_name <> ''
    group by normalized_name, state
    having count(distinct {{ number_id('known') }}) = 1
),
numbered as (
    select named.*, {{ number_id('named') }} as number_id
    from named
    left join uei_of_duns as by_duns using (duns)
)
select
    company_key,
    numbered.uei,
    numbered.duns,
    numbered.company_name,
    numbered.normalized_name,
    numbered.state,
    coalesce(numbered.number_id, by_name.number_id, 'NAME:' || numbered.normalized_name || '|' || coalesce(numbered.state, '')) as company_id,
    case
        when numbered.uei is not null then 'uei'
        when numbered.number_id is not null and numbered.number_id like 'UEI:%' then 'uei by duns'
        when numbered.duns is not null then 'duns'
        when by_name.number_id is not null then 'number by name and state'
        else 'name and state'
    end as known_by,
    numbered.n_lines
from numbered
left join company_of_name as by_name
    on numbered.normalized_name = by_name.normalized_name
    and numbered.state is not distinct from by_name.state
