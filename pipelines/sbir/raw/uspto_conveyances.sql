-- Every line of assignment_conveyance.csv, as text.
select
    rf_id,
    convey_ty,
    employer_assign,
    _file
from {{ source('uspto_assignment_conveyance') }}
