-- Where each enriched value of an award comes from: one row for each award and field.
with said as (
    select award.uei, award.company_name, enriched.*
    from {{ ref('enriched.award_enrichment') }} as enriched
    join {{ ref('validated.sbir_awards_pass') }} as award using (award_id)
)
select award_id, 'naics_code' as field, null::varchar as original_value, naics_code as value, naics_source as source,
    case naics_source
        when 'usaspending' then 'most frequent of its actions'
        when 'geographic' then 'most firms of its ZIP code'
        when 'agency_default' then 'default of the agency'
        when 'sector_default' then 'default of all'
        else enrichment_method
    end as method,
    naics_confidence as confidence,
    matched_at as enriched_at,
    case naics_source
        when 'usaspending' then spending_evidence
        when 'geographic' then geographic_evidence
        when 'sam' then match_evidence
        when 'fuzzy' then match_evidence
    end as evidence
from said
union all
select award_id, 'uei', uei, sam_uei, 'sam', enrichment_method, enrichment_confidence, matched_at, match_evidence
from said
where sam_gov_data is not null and sam_uei is not null
union all
select award_id, 'cage_code', null, sam_cage_code, 'sam', enrichment_method, enrichment_confidence, matched_at, match_evidence
from said
where sam_gov_data is not null and sam_cage_code is not null
union all
select award_id, 'legal_business_name', company_name, sam_name, 'sam', enrichment_method, enrichment_confidence, matched_at, match_evidence
from said
where sam_gov_data is not null and sam_name is not null
