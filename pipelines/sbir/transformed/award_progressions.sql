-- Which award goes on from which: the same company, agency and program, a later phase. A shared tracking number is
-- exact; a shared topic and a shared investigator make it likely. Only the best predecessor of an award is kept.
with awards as (
    select
        award_id, company_id, agency, program, agency_tracking_number, topic_code, award_year, award_date,
        case phase when 'Phase I' then 1 when 'Phase II' then 2 else 3 end as phase_number,
        nullif(lower(pi_name), '') as pi
    from {{ ref('validated.sbir_awards_pass') }}
),
pairs as (
    {%- for reason in ['agency_tracking_number', 'topic_code', 'pi'] %}
    {%- if not loop.first %}
    union{% endif %}
    select earlier.award_id as from_award_id, later.award_id as to_award_id
    from awards as earlier
    join awards as later
        on earlier.company_id = later.company_id and earlier.agency = later.agency and earlier.program = later.program
        and earlier.{{ reason }} = later.{{ reason }} and earlier.phase_number + 1 = later.phase_number
    {%- endfor %}
),
judged as (
    select
        pairs.*,
        coalesce(earlier.agency_tracking_number = later.agency_tracking_number, false) as same_tracking,
        coalesce(earlier.topic_code = later.topic_code, false) as same_topic,
        coalesce(earlier.pi = later.pi, false) as same_pi,
        later.award_year - earlier.award_year as years_between,
        coalesce(later.award_date >= earlier.award_date, true) as in_order
    from pairs
    join awards as earlier on earlier.award_id = pairs.from_award_id
    join awards as later on later.award_id = pairs.to_award_id
),
scored as (
    select
        * exclude (in_order),
        case when same_tracking then 1.0 else least(1.0, 0.5
            + case when same_topic then 0.3 else 0 end
            + case when same_pi then 0.2 else 0 end
            + case when years_between between 1 and 4 then 0.1 else 0 end) end::decimal(4, 2) as confidence
    from judged
    where same_tracking or (in_order and years_between >= 0)
)
select from_award_id, to_award_id, confidence, same_tracking, same_topic, same_pi, years_between
from scored
where confidence >= {{ var('sbir.transform.progression_min_confidence') }}
qualify row_number() over (partition by to_award_id order by confidence desc, abs(years_between), from_award_id) = 1
