"""gold.forklift_windows: what may be seen of each machine's recent past, computed anew for machines that changed."""

from pipelines.forklift.features import steps, windows

COLUMNS = "machine, ts, height, load, on_duty, latitude, longitude, speed"
LABELS = "carrying, sensor_broken, commit_id, ts::date as day"


def build(context):
    rows = context.ref("silver.forklift_carrying").project(f"{COLUMNS}, {LABELS}")
    if context.is_incremental():
        changed = context.changes("silver.forklift_carrying").project("machine").distinct().set_alias("changed")
        rows = rows.set_alias("rows").join(changed, "machine", how="semi")
    # Windows do not look across midnight, so a day of a machine is all that must be in memory at once.
    for chunk in context.chunks(rows, by=["machine", "day"]):
        yield windows(steps(chunk))
