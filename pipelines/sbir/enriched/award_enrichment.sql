-- What other sources say about each award: its company in SAM.gov, its industry, and how sure that is.
-- Of the ways to an industry code the first that gives one counts, and a way by default never makes a success.
with awards as (
    select award_id, company_id, contract, uei, duns, zip, {{ sbir_agency_code('agency') }} as agency_code
    from {{ ref('validated.sbir_awards_pass') }}
),
spending as (
    select
        regexp_replace(upper(award_id_piid), '[^A-Z0-9]', '', 'g') as contract,
        {{ sbir_uei('uei') }} as uei,
        {{ sbir_duns('duns') }} as duns,
        case when regexp_full_match(trim(naics_code), '\d{2,6}') then trim(naics_code) end as naics_code
    from {{ ref('raw.usaspending_awards') }}
),
-- The code that a contract, a UEI or a DUNS has most often; of codes as frequent as each other the smallest.
spent as (
    select kind, value, arg_max(naics_code, (n, -try_cast(naics_code as integer))) as naics_code, sum(n)::bigint as n_actions
    from (
        select 'contract' as kind, contract as value, naics_code, count(*) as n from spending where length(contract) >= 5 group by all
        union all
        select 'uei', uei, naics_code, count(*) from spending where uei is not null group by all
        union all
        select 'duns', duns, naics_code, count(*) from spending where duns is not null group by all
    )
    group by kind, value
),
found as (
    select
        awards.*,
        match.uei as sam_uei,
        match.cage_code as sam_cage_code,
        match.sam_name,
        match.sam_gov_data,
        match.method as match_method,
        match.status as match_status,
        match.ambiguous,
        match.confidence as match_confidence,
        match.evidence as match_evidence,
        match.matched_at,
        match.primary_naics,
        coalesce(by_contract.kind, by_uei.kind, by_duns.kind) as spending_key,
        coalesce(by_contract.naics_code, by_uei.naics_code, by_duns.naics_code) as spending_naics,
        coalesce(by_contract.n_actions, by_uei.n_actions, by_duns.n_actions) as spending_actions
    from awards
    left join {{ ref('enriched.company_matches') }} as match using (company_id)
    left join spent as by_contract
        on by_contract.kind = 'contract'
        and by_contract.value = regexp_replace(upper(awards.contract), '[^A-Z0-9]', '', 'g')
    left join spent as by_uei on by_uei.kind = 'uei' and by_uei.value = awards.uei
    left join spent as by_duns on by_duns.kind = 'duns' and by_duns.value = awards.duns
),
-- What most firms of a ZIP code do, where that is known of enough of them.
neighbours as (
    select
        zip5,
        arg_max(naics_code, (firms, -try_cast(naics_code as integer))) as naics_code,
        max(firms) / sum(firms) as share
    from (
        select left(zip, 5) as zip5, coalesce(spending_naics, primary_naics) as naics_code, count(distinct company_id) as firms
        from found
        where zip is not null and coalesce(spending_naics, primary_naics) is not null
        group by all
    )
    group by zip5
    having sum(firms) >= {{ var('sbir.enrichment.neighbours.firms') }}
        and share > {{ var('sbir.enrichment.neighbours.share') }}
),
coded as (
    select
        found.*,
        case
            when spending_naics is not null then 'usaspending'
            when primary_naics is not null and match_method = 'fuzzy' then 'fuzzy'
            when primary_naics is not null then 'sam'
            when neighbours.naics_code is not null then 'geographic'
            when agency_code in ({{ var('sbir.enrichment.agency_naics').keys() | list | literal }}) then 'agency_default'
            else 'sector_default'
        end as naics_source,
        neighbours.naics_code as zip_naics,
        neighbours.share as zip_share
    from found
    left join neighbours on neighbours.zip5 = left(found.zip, 5)
),
valued as (
    select
        *,
        case naics_source
            when 'usaspending' then spending_naics
            when 'fuzzy' then primary_naics
            when 'sam' then primary_naics
            when 'geographic' then zip_naics
            when 'agency_default' then map([{{ var('sbir.enrichment.agency_naics').keys() | list | literal }}], [{{ var('sbir.enrichment.agency_naics').values() | list | literal }}])[agency_code]
            else {{ var('sbir.enrichment.sector_naics') | literal }}
        end as naics_code,
        case naics_source
            when 'usaspending' then {{ var('sbir.enrichment.sources.usaspending.confidence') }}
            when 'sam' then {{ var('sbir.enrichment.sources.sam_gov.confidence') }}
            when 'fuzzy' then match_confidence
            when 'geographic' then {{ var('sbir.enrichment.sources.proximity.confidence') }}
            when 'agency_default' then {{ var('sbir.enrichment.sources.agency_default.confidence') }}
            else {{ var('sbir.enrichment.sources.sector_default.confidence') }}
        end as naics_confidence,
        case
            when match_status = 'matched' then match_method
            when spending_key is not null then 'usaspending'
            else 'none'
        end as enrichment_method,
        case
            when match_status = 'matched' then match_confidence
            when spending_key is not null then {{ var('sbir.enrichment.sources.usaspending.confidence') }}
        end as enrichment_confidence
    from coded
)
select
    award_id,
    company_id,
    sam_gov_data,
    sam_uei,
    sam_cage_code,
    sam_name,
    naics_code,
    naics_source,
    naics_confidence,
    enrichment_method,
    enrichment_confidence,
    case
        when enrichment_confidence >= {{ var('sbir.enrichment.bands.high') }} then 'High'
        when enrichment_confidence >= {{ var('sbir.enrichment.bands.medium') }} then 'Medium'
        when enrichment_confidence is not null then 'Low'
    end as confidence_band,
    case
        when enrichment_method = 'none' and ambiguous then 'several entities of SAM.gov are as likely'
        when enrichment_method = 'none' and match_status = 'review' then 'only candidates for review'
        when enrichment_method = 'none' then 'no source knows the company'
        when enrichment_confidence < {{ var('sbir.enrichment.bands.medium') }} then 'the match is not sure enough'
        when naics_source in ('geographic', 'agency_default', 'sector_default') then 'the industry is a guess'
    end as partial_reason,
    match_evidence,
    to_json({'key': spending_key, 'actions': spending_actions})::varchar as spending_evidence,
    to_json({'zip': left(zip, 5), 'share': round(zip_share, 3)})::varchar as geographic_evidence,
    spending_key is not null as in_usaspending,
    matched_at
from valued
