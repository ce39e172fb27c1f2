-- Awards that could not be enriched enough, with the reason.
select
    award.*,
    said.sam_gov_data,
    said.naics_code,
    said.naics_source,
    said.naics_confidence,
    said.enrichment_method,
    said.enrichment_confidence,
    said.confidence_band,
    said.partial_reason
from {{ ref('validated.sbir_awards_pass') }} as award
join {{ ref('enriched.award_enrichment') }} as said using (award_id)
where said.partial_reason is not null
