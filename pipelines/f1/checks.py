"""Nothing is lost on the way: the rows of each layer are those of the layer above."""

from dagster import AssetCheckResult, AssetCheckSeverity, AssetKey

from ratatouille import query, workspace
from ratatouille.dagster import asset_check

from .assets import LANDING
from .landing import manifests

ENTITIES = {"sessions": "sessions", "drivers": "drivers", "laps": "laps", "location": "locations"}


def _numbers(sql: str) -> dict[int, int]:
    frame = query(sql)
    return dict(zip(frame[frame.columns[0]].to_list(), frame[frame.columns[1]].to_list(), strict=True))


@asset_check(
    asset=AssetKey("bronze_tables_loaded"), description="Rows that the API gave = rows in bronze + rows kept out."
)
def bronze_has_every_row_of_the_api() -> AssetCheckResult:
    given = [one for _, one in manifests(workspace().root / LANDING) if one.complete]
    lost = {}
    for entity, table in ENTITIES.items():
        rows = {one.session_key: one.entities[entity].rows for one in given if entity in one.entities}
        there = _numbers(f"select session_key, count(*) from bronze_raw.bronze_{table} group by 1")
        out = query(f"select count(*) as n from rat.quarantine where asset = 'bronze_raw.bronze_{table}'")["n"][0]
        missing = {key: [count, there.get(key, 0)] for key, count in rows.items() if there.get(key, 0) != count}
        if sum(rows.values()) != sum(there.get(key, 0) for key in rows) + out:
            lost[table] = missing
    return AssetCheckResult(passed=not lost, metadata={"sessions": len(given), "lost": lost})


@asset_check(asset=AssetKey("silver_tables_built"), description="Rows in bronze = rows in silver + duplicates.")
def silver_has_every_row_of_bronze() -> AssetCheckResult:
    keys = {
        "sessions": "session_key",
        "drivers": "session_key, driver_number",
        "laps": "session_key, driver_number, lap_number",
        "locations": "session_key, driver_number, date",
    }
    counted = {}
    for table, key in keys.items():
        found = query(
            f"select (select count(*) from bronze_raw.bronze_{table}) as bronze,"
            f" (select count(*) from (select distinct {key} from bronze_raw.bronze_{table})) as different,"
            f" (select count(*) from default_silver_clean.silver_{table}) as silver"
        )
        counted[table] = {name: found[name][0] for name in found.columns}
    wrong = [table for table, rows in counted.items() if rows["silver"] != rows["different"]]
    return AssetCheckResult(passed=not wrong, metadata={"rows": counted, "wrong": wrong})


@asset_check(
    asset=AssetKey("gold_mart_tables_built"), description="Laps in silver = laps in the facts = laps in the summary."
)
def gold_has_every_lap_of_silver() -> AssetCheckResult:
    found = query(
        "select (select count(*) from default_silver_clean.silver_laps) as silver,"
        " (select count(*) from default_gold_analytics.fact_laps) as facts,"
        " (select sum(total_laps) from default_gold_analytics.driver_session_summary) as summary"
    )
    counts = {name: found[name][0] for name in found.columns}
    return AssetCheckResult(passed=len(set(counts.values())) == 1, metadata={"laps": counts})


@asset_check(
    asset=AssetKey("bronze_tables_loaded"),
    blocking=False,
    description="Every window of location that was asked for was answered.",
)
def telemetry_windows_are_covered() -> AssetCheckResult:
    failed = {}
    for _, one in manifests(workspace().root / LANDING):
        location = one.entities.get("location")
        if one.missing or (location is not None and location.windows.failed):
            failed[one.session_key] = [*one.missing]
    return AssetCheckResult(passed=not failed, severity=AssetCheckSeverity.WARN, metadata={"not_covered": failed})


all_checks = [
    bronze_has_every_row_of_the_api,
    silver_has_every_row_of_bronze,
    gold_has_every_lap_of_silver,
    telemetry_windows_are_covered,
]
