select * from {{ source('pit') }}
