-- Every row of every file as the machines sent it. A file that comes again replaces the rows that it had brought; one
-- that was removed leaves a line without values behind, so its rows go.
select
    o.machine,
    t.fffid,
    t.height,
    t.load,
    t.on_duty,
    t.timestamp,
    t.latitude,
    t.longitude,
    t.speed,
    t._file,
    o.commit_id,
    t._loaded_at
from {{ source('forklift_telemetry') }} as t
left join {{ ref('bronze.forklift_objects') }} as o on o.file = t._file
where not (t.fffid is null and t.height is null and t.load is null and t.on_duty is null and t.timestamp is null)
