select * from {{ source('laps') }}
