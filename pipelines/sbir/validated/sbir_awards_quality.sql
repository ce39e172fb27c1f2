-- How much of the awards is filled, by field and band of years, and how often each rule is broken.
with bands as (
    {%- for band in var('sbir.data_quality.year_bands') %}
    {{ 'union all' if not loop.first }}
    select '{{ band.name }}' as band, {{ band['from'] }} as first_year, {{ band.to }} as last_year
    {%- endfor %}
),
counted as (
    select
        coalesce(bands.band, 'all') as band,
        count(*) as n_awards,
        {%- for field in ['company_name', 'award_amount', 'award_date', 'contract_end_date', 'contract', 'agency_tracking_number', 'uei', 'duns', 'abstract', 'state', 'zip', 'pi_name', 'contact_email'] %}
        count({{ field }}) as {{ field }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ ref('validated.sbir_awards_pass') }} as award
    join bands on award.award_year between bands.first_year and bands.last_year
    group by rollup (bands.band)
),
filled as (
    unpivot counted on columns(* exclude (band, n_awards)) into name measure value n_filled
),
broken as (
    select 'error' as severity, unnest(reasons) as measure, n_lines from {{ ref('validated.sbir_awards_fail') }}
    union all
    select 'warn', unnest(warnings), 1 from {{ ref('validated.sbir_awards_pass') }}
)
select 'filled' as kind, band, measure, n_filled as n, n_awards as of_n, n_filled / n_awards as rate
from filled
union all
select severity, 'all', measure, sum(n_lines)::bigint, lines.n, sum(n_lines) / lines.n
from broken
cross join (select count(*) as n from {{ ref('raw.sbir_awards') }}) as lines
group by severity, measure, lines.n
