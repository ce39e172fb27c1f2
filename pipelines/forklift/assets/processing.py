"""header_assigned_dataset, cleaned_height_dataset, carrying_dataset: the silver tables by the document's names.

The gates of the tables are in their YAML files; the checks here say what only a look at several tables tells.
"""

from typing import Any

from dagster import AssetCheckResult, AssetExecutionContext, AssetKey, MaterializeResult, asset, asset_check

from ratatouille import query, run


def _said(done: dict[str, Any], commits: Any, **more: Any) -> MaterializeResult:
    shown = {
        name: done[name]
        for name in ("status", "version", "rows_total", "rows_written", "seconds")
        if done.get(name) is not None
    }
    return MaterializeResult(metadata={**shown, "commits": commits["commit_id"].to_list(), **more})


@asset(
    group_name="processing",
    deps=[AssetKey("raw_forklift_snapshot")],
    description="Named columns in the order of time; forklifts and trucks told apart; redundant off-duty rows dropped.",
    compute_kind="duckdb",
)
def header_assigned_dataset(context: AssetExecutionContext) -> MaterializeResult:
    done = run("silver.forklift_header")
    kinds = query(
        "select kind, count(distinct machine) as machines from silver.forklift_header group by kind order by kind"
    )
    commits = query("select distinct commit_id from silver.forklift_header order by commit_id limit 100")
    context.log.info(f"silver.forklift_header: {done['status']}")
    return _said(done, commits, machines=dict(kinds.iter_rows()))


@asset(
    group_name="processing",
    deps=[header_assigned_dataset],
    description="Rows of forklifts with believable heights; broken height sensors are named.",
    compute_kind="duckdb",
)
def cleaned_height_dataset(context: AssetExecutionContext) -> MaterializeResult:
    done = run("silver.forklift_heights")
    broken = query("select distinct machine from silver.forklift_heights where sensor_broken order by machine")
    commits = query("select distinct commit_id from silver.forklift_heights order by commit_id limit 100")
    if broken.height:
        context.log.warning(f"broken height sensors: {', '.join(broken['machine'])}")
    return _said(done, commits, broken_height_sensors=broken["machine"].to_list())


@asset(
    group_name="processing",
    deps=[cleaned_height_dataset],
    description="Whether a forklift carries, debounced, and the pulse that each row lies in.",
    compute_kind="duckdb",
)
def carrying_dataset(context: AssetExecutionContext) -> MaterializeResult:
    done = run("silver.forklift_carrying")
    found = query(
        "select count(distinct pulse_id) as pulses, avg(carrying::int) as share from silver.forklift_carrying"
    )
    commits = query("select distinct commit_id from silver.forklift_carrying order by commit_id limit 100")
    context.log.info(f"silver.forklift_carrying: {done['status']}")
    return _said(done, commits, pulses=found["pulses"][0], carrying_share=found["share"][0] or 0.0)


_MACHINES = (
    "select distinct machine from silver.forklift_header where kind = 'forklift'"
    " except select distinct machine from silver.forklift_carrying order by 1"
)


@asset_check(asset=header_assigned_dataset, blocking=True, description="There is a forklift among the machines.")
def header_assigned_dataset_forklifts_check() -> AssetCheckResult:
    forklifts = query("select count(distinct machine) as n from silver.forklift_header where kind = 'forklift'")["n"][0]
    return AssetCheckResult(passed=forklifts > 0, metadata={"forklifts": forklifts})


@asset_check(asset=cleaned_height_dataset, blocking=True, description="At most half of all height sensors are broken.")
def cleaned_height_dataset_sensors_check() -> AssetCheckResult:
    share = query(
        "select avg(broken::int) as share from (select bool_or(sensor_broken) as broken from silver.forklift_heights group by machine)"
    )["share"][0]
    return AssetCheckResult(passed=share is not None and share <= 0.5, metadata={"broken_share": share or 0.0})


@asset_check(asset=carrying_dataset, blocking=True, description="No forklift was lost on the way from the headers.")
def carrying_dataset_machines_check() -> AssetCheckResult:
    lost = query(_MACHINES)["machine"].to_list()
    return AssetCheckResult(passed=not lost, metadata={"lost": lost[:20]})


all_processing_assets = [header_assigned_dataset, cleaned_height_dataset, carrying_dataset]
all_processing_checks = [
    header_assigned_dataset_forklifts_check,
    cleaned_height_dataset_sensors_check,
    carrying_dataset_machines_check,
]
