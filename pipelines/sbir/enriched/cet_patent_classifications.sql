-- One row for each patent and area: the primary one and up to three others.
with said as (
    select key as grant_doc_num, taxonomy_version, classified_at, unnest(areas) as area
    from {{ ref('enriched.cet_patent_areas') }}
)
select
    grant_doc_num,
    area.cet_id,
    area.score,
    area.classification,
    area.is_primary,
    area.evidence,
    classified_at,
    taxonomy_version,
    area.method
from said
