select * from {{ source('session_result') }}
