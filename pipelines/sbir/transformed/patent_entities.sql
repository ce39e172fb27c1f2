-- People and organisations that gave or got patents, one row for each normalised name.
with parties as (
    select
        {{ sbir_words(sbir_text('ee_name')) }} as name, {{ sbir_words(sbir_text('ee_city')) }} as city, {{ sbir_text('ee_state') }} as state,
        {{ sbir_words(sbir_text('ee_country')) }} as country, 1 as source_rank
    from {{ ref('raw.uspto_assignees') }}
    union all
    select {{ sbir_words(sbir_text('or_name')) }}, null, null, null, 2
    from {{ ref('raw.uspto_assignors') }}
),
entities as (
    select
        {{ sbir_entity_id('name') }} as entity_id,
        {{ sbir_name('name') }} as normalized_name,
        name,
        city,
        state,
        country,
        (source_rank, name, coalesce(city, ''), coalesce(state, '')) as place
    from parties
    where name is not null and {{ sbir_name('name') }} <> ''
),
merged as (
    select
        entity_id,
        arg_min(name, place) as name,
        min(normalized_name) as normalized_name,
        arg_min(city, place) filter (where city is not null) as city,
        arg_min(state, place) filter (where state is not null) as state,
        arg_min(country, place) filter (where country is not null) as country
    from entities
    group by entity_id
)
select
    entity_id,
    name,
    normalized_name,
    case
        when regexp_matches(upper(name), '\b(UNIVERSITY|COLLEGE|INSTITUTE|REGENTS)\b') then 'university'
        when regexp_matches(upper(name), '\b(UNITED STATES|DEPARTMENT|SECRETARY|GOVERNMENT|AGENCY|ADMINISTRATION)\b') then 'government'
        when regexp_matches(upper(name), '\b(INC|LLC|LTD|CORP|CORPORATION|COMPANY|CO|LP|LLP|GMBH|AG|SA|BANK|TECHNOLOGIES|SYSTEMS)\b\.?') then 'company'
        when regexp_full_match(name, '[^,]+, [^,]+') then 'person'
        else 'company'
    end as kind,
    city,
    state,
    country,
    md5(concat_ws('|', name, coalesce(city, ''), coalesce(state, ''), coalesce(country, ''))) as content_hash
from merged
