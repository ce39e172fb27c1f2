-- Awards and money by area and year, and how that moves.
with said as (
    select award.award_year, coalesce(said.cet_id, 'none') as cet_id, said.score, said.classification, award.award_amount, award.company_id
    from {{ ref('validated.sbir_awards_pass') }} as award
    left join {{ ref('enriched.cet_award_classifications') }} as said on said.award_id = award.award_id and said.is_primary
),
years as (
    select
        cet_id,
        award_year,
        count(*) as award_count,
        count(distinct company_id) as company_count,
        sum(award_amount) as total_funding,
        round(avg(score), 2) as avg_score,
        count(*) filter (classification = 'High') as high_count
    from said
    group by cet_id, award_year
)
select
    *,
    round(award_count / sum(award_count) over (partition by award_year), 4) as share_of_year,
    award_count - lag(award_count) over (partition by cet_id order by award_year) as change_in_awards,
    round(avg(award_count) over (partition by cet_id order by award_year range between 2 preceding and current row), 2) as awards_in_three_years
from years
