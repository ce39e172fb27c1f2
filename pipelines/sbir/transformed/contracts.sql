-- One row for each contract number of an agency; an award without one has none.
select
    contract,
    agency,
    count(*) as award_count,
    sum(award_amount) as total_amount,
    min(award_date) as first_award_date,
    max(award_date) as last_award_date,
    max(contract_end_date) as contract_end_date,
    arg_max(company_id, (award_amount, award_id)) as company_id,
    count(distinct company_id) as company_count
from {{ ref('validated.sbir_awards_pass') }}
where contract is not null
group by contract, agency
