select * from {{ source('sessions') }}
