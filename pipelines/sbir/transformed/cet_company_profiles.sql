-- What each company works on: one row for each company and area of its awards. The award's primary area counts.
with awards as (
    select
        award.company_id,
        said.cet_id,
        said.score,
        award.award_id,
        award.award_amount,
        award.award_date,
        award.award_year,
        award.phase
    from {{ ref('enriched.cet_award_classifications') }} as said
    join {{ ref('validated.sbir_awards_pass') }} as award using (award_id)
    where said.is_primary
),
totals as (
    select company_id, count(*) as n_awards, count(said.award_id) as n_classified
    from {{ ref('validated.sbir_awards_pass') }} as award
    left join awards as said using (award_id, company_id)
    group by company_id
),
areas as (
    select
        company_id,
        cet_id,
        count(*) as award_count,
        sum(award_amount) as total_funding,
        round(avg(score), 2) as avg_score,
        case greatest(
            count(*) filter (phase = 'Phase I'), count(*) filter (phase = 'Phase II'), count(*) filter (phase = 'Phase III'))
            when count(*) filter (phase = 'Phase I') then 'Phase I'
            when count(*) filter (phase = 'Phase II') then 'Phase II'
            else 'Phase III' end as dominant_phase,
        min(award_date) as first_award_date,
        max(award_date) as last_award_date,
        min(award_year) as first_award_year,
        max(award_year) as last_award_year,
        count(*) / sum(count(*)) over (partition by company_id) as share
    from awards
    group by company_id, cet_id
)
select
    areas.*,
    totals.n_awards as company_awards,
    round(totals.n_classified / totals.n_awards, 4) as coverage,
    row_number() over (partition by company_id order by award_count desc, total_funding desc, cet_id) = 1 as is_dominant,
    -- Herfindahl: 1 for a company of one area, towards 0 for one of many.
    round(sum(share * share) over (partition by company_id), 4) as specialization_index,
    round(share * avg_score / 100, 4) as specialization_score
from areas
join totals using (company_id)
