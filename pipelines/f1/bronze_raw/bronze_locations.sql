select * from {{ source('location') }}
