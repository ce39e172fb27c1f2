-- One row for each award and area: the primary one and up to three others.
with said as (
    select key as award_id, taxonomy_version, classified_at, unnest(areas) as area
    from {{ ref('enriched.cet_award_areas') }}
)
select
    award_id,
    area.cet_id,
    area.score,
    area.classification,
    area.is_primary,
    area.evidence,
    classified_at,
    taxonomy_version,
    area.method
from said
