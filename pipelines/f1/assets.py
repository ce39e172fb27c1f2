"""The assets of the pipeline: from the API to the marts, and two pictures. Tables and models are in the files beside."""

from base64 import b64encode
from pathlib import Path
from tempfile import mkdtemp

from dagster import (
    AssetExecutionContext,
    AssetKey,
    Backoff,
    Config,
    Failure,
    Jitter,
    MaterializeResult,
    MetadataValue,
    RetryPolicy,
    asset,
)
from pydantic import Field

from ratatouille import query, run, workspace
from ratatouille.dagster import dbt_asset

from .extract import Extraction, extract_sessions
from .fetching import Step
from .openf1 import ApiUnavailable, OpenF1, OpenF1Error, SessionInProgress, Settings, tell_of_retries

PROJECT = Path(__file__).parent / "dbt"
BRONZE = ("bronze_sessions", "bronze_drivers", "bronze_laps", "bronze_locations")
LANDING = Path("landing") / "f1"
# What the tables are made of. The others (car_data, position, stints, weather, intervals) are fetched where asked for.
ENTITIES = (
    *("sessions", "meetings", "drivers", "laps", "location"),
    *("pit", "race_control", "session_result", "starting_grid"),
)
# The API is busy on Sundays, and closed to those without an account while a session is live.
PATIENCE = RetryPolicy(max_retries=3, delay=30, backoff=Backoff.EXPONENTIAL, jitter=Jitter.PLUS_MINUS)


class ExtractionConfig(Config):
    """What to fetch. Addresses and secrets come from the environment: F1_API_URL, OPENF1_TOKEN."""

    mode: str = Field("latest", description="latest, oldest, year or manual")
    num_sessions: int = Field(1, description="how many, for latest and oldest")
    year: int = Field(0, description="for year; limits latest and oldest when it is given")
    session_keys: list[int] = Field([], description="for manual")
    entities: list[str] = Field(list(ENTITIES), description="endpoints to fetch")
    refresh: bool = Field(False, description="read again what is there, compare, and report what was corrected")
    settle_hours: float = Field(24, description="sessions that ended less long ago are read again")
    compressed: bool = Field(True, description="write .json.gz")


@asset(
    group_name="extraction",
    description="Finished sessions of OpenF1 as files, each whole or not at all.",
    compute_kind="python",
    retry_policy=PATIENCE,
    pool="openf1",
)
def api_extracted_data(context: AssetExecutionContext, config: ExtractionConfig) -> MaterializeResult:
    def say(step: Step) -> None:
        if step.final:
            context.log.info(str(step))

    tell_of_retries(context.log.info)
    try:
        with OpenF1(Settings.from_environment()) as client:
            done = _extract(client, config, say)
    except OpenF1Error as error:
        # What came stays aside: another attempt asks for the rest only.
        later = isinstance(error, ApiUnavailable | SessionInProgress)
        raise Failure(description=str(error), allow_retries=later) from error
    return MaterializeResult(
        metadata={
            "files_count": done.files_count,
            "extraction_mode": done.extraction_mode,
            "sessions_extracted": done.sessions_extracted,
            "sessions": [one.session_key for one in done.sessions],
            "rows": dict(done.rows),
            "requests": done.requests,
            "retries": done.retries,
            "corrections": [vars(one) if hasattr(one, "__dict__") else str(one) for one in done.corrections],
            "output_log": done.log_tail,
        }
    )


def _extract(client: OpenF1, config: ExtractionConfig, say) -> Extraction:
    from datetime import timedelta

    return extract_sessions(
        client,
        workspace().root / LANDING,
        mode=config.mode,
        sessions=config.num_sessions,
        year=config.year or None,
        session_keys=config.session_keys,
        entities=config.entities or None,
        compressed=config.compressed,
        refresh=config.refresh,
        settle=timedelta(hours=config.settle_hours),
        progress=say,
    )


class LoadConfig(Config):
    destination: str = Field("lake", description="lake, or delta: the four tables as Delta tables too, below delta/")


@asset(
    group_name="bronze",
    deps=[api_extracted_data],
    description="Extracted files as tables, row for row: sessions, drivers, laps, locations.",
    compute_kind="duckdb",
)
def bronze_tables_loaded(context: AssetExecutionContext, config: LoadConfig) -> MaterializeResult:
    # By their names: what a function runs or reads by name is its lineage.
    done = run(
        "bronze_raw.bronze_sessions",
        "bronze_raw.bronze_drivers",
        "bronze_raw.bronze_laps",
        "bronze_raw.bronze_locations",
        "bronze_raw.bronze_session_results",
        "bronze_raw.bronze_starting_grid",
        "bronze_raw.bronze_pit",
        "bronze_raw.bronze_race_control",
    )
    steps = done["steps"]
    log = [f"{name}: {step['status']}, {step['rows_written']} rows written" for name, step in steps.items()]
    metadata = {
        "tables_count": len(BRONZE),
        "schema": "bronze_raw",
        "rows": {name: _count(f"bronze_raw.{name}") for name in BRONZE},
        "rows_written": {name: steps[f"bronze_raw.{name}"]["rows_written"] for name in BRONZE},
        "rows_kept_out": {
            name: steps[f"bronze_raw.{name}"]["rows_quarantined"] + steps[f"bronze_raw.{name}"]["rows_rejected"]
            for name in BRONZE
        },
        "files_loaded": sum(len(step["files"]) for step in steps.values()),
        "files_set_aside": sum(len(step["set_aside"]) for step in steps.values()),
        "warnings": [f"{name}: {said}" for name, step in steps.items() for said in step["warnings"]],
        "output_log": "\n".join(log)[-1000:],
    }
    if config.destination == "delta":
        from .delta import write_slices

        written = write_slices(workspace().root / "delta" / "bronze_raw", BRONZE, query)
        metadata["delta"] = written
    for line in log:
        context.log.info(line)
    return MaterializeResult(metadata=metadata)


def _count(table: str) -> int:
    return int(query(f"select count(*) as rows from {table}")["rows"][0])


silver_tables_built = dbt_asset(
    name="silver_tables_built",
    project_dir=PROJECT,
    select="silver",
    group_name="silver",
    deps=[bronze_tables_loaded],
    description="Sessions, drivers, laps and locations: one row each, typed and named.",
)

gold_core_tables_built = dbt_asset(
    name="gold_core_tables_built",
    project_dir=PROJECT,
    select="core",
    group_name="gold",
    deps=[silver_tables_built],
    description="Dimensions of sessions and drivers, and the facts of every lap.",
)

gold_mart_tables_built = dbt_asset(
    name="gold_mart_tables_built",
    project_dir=PROJECT,
    select="marts",
    group_name="gold",
    deps=[gold_core_tables_built],
    description="The leaderboard of each session, drivers and teams in figures.",
)


class PicturesConfig(Config):
    session_key: int = Field(0, description="which session; none means the newest")


@asset(
    group_name="reports",
    deps=[gold_mart_tables_built],
    io_manager_key="artifact_io_manager",
    description="Two pictures of a session: how lap times are spread, and how the field comes apart.",
    compute_kind="altair",
)
def session_pictures(context: AssetExecutionContext, config: PicturesConfig) -> Path:
    from .pictures import gaps, lap_times

    newest = "select session_key, concat_ws(' ', location, year, session_name) as title from"
    chosen = f"session_key = {config.session_key}" if config.session_key else "true"
    session = query(f"{newest} default_gold_analytics.dim_sessions where {chosen} order by date_start desc limit 1")
    if session.is_empty():
        raise Failure(
            description="There is no such session.\nNext: rat run gold_mart_tables_built", allow_retries=False
        )
    key, title = int(session["session_key"][0]), session["title"][0]
    laps = query(
        "select name_acronym, team_colour, lap_number, lap_duration, is_valid_lap,"
        " epoch_ms(date_start) / 1000.0 - min(epoch_ms(date_start) / 1000.0) over (partition by lap_number) as gap"
        " from default_gold_analytics.fact_laps join default_gold_analytics.dim_drivers using (driver_key)"
        f" where session_key = {key} order by name_acronym, lap_number"
    )
    pictures = {
        "lap_times": lap_times(laps.filter(laps["is_valid_lap"]), f"{title}: lap times"),
        "gaps": gaps(laps.filter(laps["gap"].is_not_null()), f"{title}: behind the first"),
    }
    folder = Path(mkdtemp(prefix="f1-pictures-"))
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    shown = {
        name: MetadataValue.md(f"![{name}](data:image/png;base64,{b64encode(png).decode()})")
        for name, png in pictures.items()
    }
    context.add_output_metadata({"session_key": key, **shown})
    return folder


CHAIN = [
    AssetKey("api_extracted_data"),
    AssetKey("bronze_tables_loaded"),
    AssetKey("silver_tables_built"),
    AssetKey("gold_core_tables_built"),
    AssetKey("gold_mart_tables_built"),
]
