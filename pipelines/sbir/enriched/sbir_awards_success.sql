-- Awards whose company and industry another source knows well enough.
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
where said.partial_reason is null
