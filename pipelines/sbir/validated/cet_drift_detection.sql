-- Whether what the classifier says of a year is unlike what it said of the five years before: the population stability
-- index over areas (0.10 is some drift, 0.25 much), and how far the mean score and the share without an area moved.
-- Few awards differ from few others by chance: the index that chance alone gives, 21 x (1/n + 1/m), is taken off.
with said as (
    select award.award_year, coalesce(said.cet_id, 'none') as cet_id, said.score
    from {{ ref('validated.sbir_awards_pass') }} as award
    left join {{ ref('enriched.cet_award_classifications') }} as said on said.award_id = award.award_id and said.is_primary
),
years as (
    select award_year, count(*) as awards, avg(score) as mean_score, avg((score is null)::int) as none_share
    from said
    group by award_year
),
compared as (
    select now.award_year, now.awards, now.mean_score, now.none_share,
        sum(past.awards)::bigint as baseline_awards,
        sum(past.mean_score * past.awards * (1 - past.none_share)) / nullif(sum(past.awards * (1 - past.none_share)), 0) as baseline_score,
        sum(past.none_share * past.awards) / sum(past.awards) as baseline_none_share
    from years as now
    join years as past on past.award_year between now.award_year - 5 and now.award_year - 1
    group by all
),
areas as (
    select cet_id from {{ ref('raw.cet_taxonomy') }} union all select 'none'
),
shares as (
    select
        compared.award_year,
        areas.cet_id,
        -- Half an award for each area, so that an area that nobody spoke of has a logarithm.
        (count(said.award_year) filter (said.award_year = compared.award_year) + 0.5) / (compared.awards + 11) as now_share,
        (count(said.award_year) filter (said.award_year < compared.award_year) + 0.5) / (compared.baseline_awards + 11) as past_share
    from compared
    cross join areas
    left join said
        on said.cet_id = areas.cet_id and said.award_year between compared.award_year - 5 and compared.award_year
    group by compared.award_year, areas.cet_id, compared.awards, compared.baseline_awards
),
drift as (
    select
        award_year,
        sum((now_share - past_share) * ln(now_share / past_share)) as psi,
        arg_max(cet_id, abs(now_share - past_share)) as moved_most
    from shares
    group by award_year
)
select
    compared.award_year,
    compared.awards,
    compared.baseline_awards,
    round(drift.psi, 4) as psi,
    round(21 * (1 / compared.awards + 1 / compared.baseline_awards), 4) as psi_by_chance,
    drift.moved_most,
    round(compared.mean_score - compared.baseline_score, 2) as score_shift,
    round(compared.none_share - compared.baseline_none_share, 4) as none_shift,
    case
        when least(compared.awards, compared.baseline_awards) < {{ var('sbir.cet.drift.least') }} then 'too few'
        when drift.psi - psi_by_chance >= {{ var('sbir.cet.drift.alert') }} then 'alert'
        when drift.psi - psi_by_chance >= {{ var('sbir.cet.drift.warn') }} then 'warn'
        else 'ok'
    end as status
from compared
join drift using (award_year)
