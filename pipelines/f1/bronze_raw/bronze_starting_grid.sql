select * from {{ source('starting_grid') }}
