select * from {{ source('drivers') }}
