select * from {{ source('race_control') }}
