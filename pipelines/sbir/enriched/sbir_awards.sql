-- Every award with what other sources say of it, success or partial.
select * from {{ ref('enriched.sbir_awards_success') }}
union all by name
select * from {{ ref('enriched.sbir_awards_partial') }}
