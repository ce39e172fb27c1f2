"""The F1 pipeline from a local OpenF1 to the leaderboard, through Dagster's jobs, on a season of its own and on a real race."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from own_modules import modules_of

from ratatouille.dagster import definitions
from ratatouille.handle import Workspace

ROOT = Path(__file__).resolve().parents[2]
CHAIN = [
    "api_extracted_data",
    "bronze_tables_loaded",
    "silver_tables_built",
    "gold_core_tables_built",
    "gold_mart_tables_built",
]
GOLD = "default_gold_analytics"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("warm_dbt"),
    # Dagster's SQLite storage closes its connections when it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Paddock:
    """A copy of the workspace with the F1 pipeline alone, its definitions, and a Dagster of its own."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root, self.instance = root, instance
        self.definitions = definitions(root)
        self.pipeline = import_module("pipelines.f1")

    def module(self, name: str) -> ModuleType:
        return import_module(f"pipelines.f1.{name}")

    def run(self, job: str = "f1_pipeline_job", **options: Any) -> dg.ExecuteInProcessResult:
        config = options.pop("config", {})
        ops = {"api_extracted_data": {"config": config}} if config else {}
        ops |= {name: {"config": one} for name, one in options.pop("configs", {}).items()}
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance, run_config={"ops": ops}, raise_on_error=False, **options
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return Workspace(self.root).query(sql).rows()

    def version(self, table: str) -> int:
        return next(e.version for e in self._entries(table))

    def _entries(self, table: str) -> list[Any]:
        from ratatouille import project
        from ratatouille.engine import look

        return look.history(project.load(self.root), table)


def metadata(result: dg.ExecuteInProcessResult, key: str) -> dict[str, Any]:
    [event] = result.asset_materializations_for_node(key)
    return {name: value.value for name, value in event.metadata.items()}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {one.check_name: one.passed for one in result.get_asset_check_evaluations()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each test has its workspace. What dbt has parsed is kept by path and content: it is parsed once for all."""
    return tmp_path_factory.mktemp("f1") / "kitchen"


@pytest.fixture
def paddock(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paddock]:
    root, parsed = place, tmp_path / "parsed"
    if (root / ".rat" / "cache" / "dbt").exists():
        shutil.move(root / ".rat" / "cache" / "dbt", parsed)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    if parsed.exists():
        (root / ".rat" / "cache").mkdir(parents=True, mode=0o700)
        shutil.move(parsed, root / ".rat" / "cache" / "dbt")
    shutil.copy(ROOT / "workspace.yaml", root)
    shutil.copytree(
        ROOT / "pipelines" / "f1",
        root / "pipelines" / "f1",
        ignore=shutil.ignore_patterns("target", "logs", "*.duckdb"),
    )
    (root / "pipelines" / "__init__.py").write_text("")
    monkeypatch.setenv("F1_API_URL", "http://127.0.0.1:9/v1")
    (tmp_path / "home").mkdir()
    with modules_of(root), dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield Paddock(root, instance)


@pytest.fixture
def api(paddock: Paddock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Any]]:
    """`api(source)` serves rows from now on and gives the server, which misbehaves on request."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def serve(source: Any) -> Any:
            server = stack.enter_context(paddock.module("server").serve(source))
            monkeypatch.setenv("F1_API_URL", server.address)
            return server

        yield serve


def season(paddock: Paddock, **size: Any) -> Any:
    return paddock.module("season").generate(2024, **{"sessions": 6, "drivers": 6, "laps": 8, "hertz": 0.05, **size})


def test_the_document_is_kept_by_name(paddock: Paddock) -> None:
    repository = paddock.definitions.get_repository_def()
    graph = repository.asset_graph
    groups = {key: graph.get(dg.AssetKey(key)).group_name for key in CHAIN}
    assert list(groups.values()) == ["extraction", "bronze", "silver", "gold", "gold"]
    for above, below in itertools.pairwise(CHAIN):
        assert dg.AssetKey(above) in graph.get(dg.AssetKey(below)).parent_keys
    selected = {
        job.name: {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
        for job in repository.get_all_jobs()
        if job.name != "__ASSET_JOB"
    }
    assert selected["f1_pipeline_job"] == selected["f1_data_pipeline"] == set(CHAIN)
    assert selected["extraction_job"] == {CHAIN[0]} and selected["bronze_job"] == {CHAIN[1]}
    assert selected["silver_job"] == {CHAIN[2]} and selected["gold_job"] == set(CHAIN[3:])
    found = {one.name: (one.job_name, one.cron_schedule, one.default_status.value) for one in repository.schedule_defs}
    assert found == {
        "daily_f1_pipeline": ("f1_pipeline_job", "0 2 * * *", "STOPPED"),
        "hourly_api_extraction": ("extraction_job", "0 * * * *", "STOPPED"),
        "weekly_full_refresh": ("f1_pipeline_job", "0 3 * * 0", "STOPPED"),
    }
    sensor = repository.get_sensor_def("new_session_file_sensor")
    assert (sensor.minimum_interval_seconds, sensor.default_status.value) == (300, "STOPPED")
    names = [key.asset_key.to_user_string() for key in graph.asset_check_keys]
    assert names.count("silver_tables_built") >= 48 + 1 and names.count("gold_core_tables_built") >= 35


def test_a_season_from_the_api_to_the_marts_and_only_what_changes_after(paddock: Paddock, api: Any) -> None:
    made = season(paddock)
    server = api(made)
    first = paddock.run(config={"mode": "latest", "num_sessions": 3})
    assert first.success
    said = metadata(first, "api_extracted_data")
    assert (said["extraction_mode"], said["sessions_extracted"]) == ("latest", 3)
    assert said["files_count"] >= 4 * 3 and len(said["output_log"]) <= 1000
    said = metadata(first, "bronze_tables_loaded")
    assert (said["tables_count"], said["schema"]) == (4, "bronze_raw")
    assert metadata(first, "silver_tables_built")["models_count"] == 4
    assert metadata(first, "silver_tables_built")["tests_passed"] >= 48
    assert metadata(first, "gold_core_tables_built")["tests_passed"] >= 35
    assert metadata(first, "gold_mart_tables_built")["schema"] == GOLD
    passed = checks(first)
    for name in ("bronze_has_every_row_of_the_api", "silver_has_every_row_of_bronze", "gold_has_every_lap_of_silver"):
        assert passed[name], name

    # Nothing new: the API is asked for the list of sessions, and no more.
    before = dict(server.counts) if hasattr(server, "counts") else {}
    second = paddock.run(config={"mode": "latest", "num_sessions": 3})
    assert second.success
    assert metadata(second, "api_extracted_data")["sessions_extracted"] == 0
    if before:
        assert server.counts.get("location", 0) == before.get("location", 0)

    # The sessions before these arrive late: what is there already is not built again.
    laps = paddock.rows(f"select session_key, max(updated_at) from {GOLD}.fact_laps group by 1")
    third = paddock.run(config={"mode": "oldest", "num_sessions": 2})
    assert third.success
    after = dict(paddock.rows(f"select session_key, max(updated_at) from {GOLD}.fact_laps group by 1"))
    assert len(after) == 5
    assert len(paddock.rows(f"select session_key from {GOLD}.session_leaderboard where position = 1")) == 5
    moved = {key for key, stamp in laps if after[key] != stamp}
    stale = {
        row[0]
        for row in paddock.rows(
            "select distinct d.session_key from default_silver_clean.silver_drivers d"
            " where person_key in (select person_key from default_silver_clean.silver_drivers"
            f" where session_key not in ({', '.join(str(key) for key, _ in laps)}))"
        )
    }
    assert moved <= stale  # only sessions of persons whose time began earlier than was known

    # Whoever changed the team in the middle of the season has a row for each, although the later one was loaded first.
    spells = paddock.rows(
        "select person_key, list(team_name order by valid_from), count(*) filter (is_current),"
        f" bool_and(valid_to is null or valid_to > valid_from) from {GOLD}.dim_drivers group by 1 having count(*) > 1"
    )
    assert spells and any(len(set(teams)) > 1 for _, teams, *_ in spells)
    assert {tuple(rest) for _, _, *rest in spells} == {(1, True)}
    laps_by_team = (
        f"select count(*) filter (k.team_name = d.team_name), count(*) from {GOLD}.fact_laps f"
        f" join {GOLD}.dim_drivers k using (driver_key) join default_silver_clean.silver_drivers d"
        " on d.session_key = f.session_key and d.driver_number = f.driver_number"
    )
    [(right, all_laps)] = paddock.rows(laps_by_team)
    assert right == all_laps == paddock.rows(f"select count(*) from {GOLD}.fact_laps")[0][0]


def test_a_corrected_lap_rebuilds_the_slice_of_its_session(paddock: Paddock, api: Any) -> None:
    made = season(paddock)
    api(made)
    assert paddock.run(config={"mode": "latest", "num_sessions": 6}).success
    before = dict(paddock.rows(f"select session_key, max(updated_at) from {GOLD}.fact_laps group by 1"))
    times = dict(paddock.rows(f"select lap_key, lap_duration from {GOLD}.fact_laps where lap_duration is not null"))
    api(made.corrected())
    again = paddock.run(config={"mode": "latest", "num_sessions": 6, "refresh": True})
    assert again.success
    corrections = metadata(again, "api_extracted_data")["corrections"]
    assert corrections
    after = dict(paddock.rows(f"select session_key, max(updated_at) from {GOLD}.fact_laps group by 1"))
    rebuilt = {key for key in after if after[key] != before.get(key)}
    changed = {
        row[0]
        for row in paddock.rows(f"select distinct session_key, lap_key, lap_duration from {GOLD}.fact_laps")
        if row[1] in times and row[2] is not None and times[row[1]] != row[2]
    }
    assert changed and changed <= rebuilt and rebuilt < set(after)


def test_a_failing_silver_test_blocks_what_is_below_and_readers_keep_the_last_good_version(
    paddock: Paddock, api: Any
) -> None:
    api(season(paddock))
    assert paddock.run(config={"mode": "latest", "num_sessions": 2}).success
    good = paddock.rows("select count(*), max(updated_at) from default_silver_clean.silver_laps")
    board = paddock.rows(f"select * from {GOLD}.session_leaderboard order by session_key, position")
    home = next((paddock.root / "landing" / "f1").rglob("drivers.json*"))
    text = home.read_bytes()
    import gzip

    rows = json.loads(gzip.decompress(text) if home.suffix == ".gz" else text)
    rows[0]["driver_number"] = 120  # no car has this number
    changed = json.dumps(rows).encode()
    home.write_bytes(gzip.compress(changed) if home.suffix == ".gz" else changed)
    keys = [dg.AssetKey(name) for name in CHAIN[1:]]
    result = paddock.run(asset_selection=keys)
    assert not result.success
    failed = [name for name, passed in checks(result).items() if not passed]
    assert any("between" in name and "driver_number" in name for name in failed)
    done = {event.step_key for event in result.all_events if event.is_step_success}
    assert "gold_core_tables_built" not in done and "gold_mart_tables_built" not in done
    assert paddock.rows("select count(*), max(updated_at) from default_silver_clean.silver_laps") == good
    assert paddock.rows(f"select * from {GOLD}.session_leaderboard order by session_key, position") == board

    # Skip the failed one and continue: what is below is built from the version that stands.
    version = paddock.rows("select max(updated_at) from default_gold_analytics.dim_sessions")
    assert paddock.run(asset_selection=[dg.AssetKey("gold_core_tables_built")]).success
    assert paddock.rows("select max(updated_at) from default_gold_analytics.dim_sessions") > version
    # Materialize the failed one only, once its cause is gone.
    home.write_bytes(text)
    keys = [dg.AssetKey(name) for name in CHAIN[1:3]]
    assert paddock.run(asset_selection=keys).success


def test_the_api_dies_in_the_middle_and_a_rerun_goes_on(
    paddock: Paddock, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = api(season(paddock))
    trouble = paddock.module("server").Trouble
    server.troubles.append(trouble("500", "location", None))
    monkeypatch.setattr(paddock.module("openf1").Settings, "wait_s", 0.01, raising=False)
    settings = paddock.module("openf1").Settings
    quick = settings.from_environment

    def from_environment(*arguments: Any, **named: Any) -> Any:
        from dataclasses import replace

        return replace(quick(*arguments, **named), attempts=2, wait_s=0.01, jitter_s=0.01)

    monkeypatch.setattr(settings, "from_environment", staticmethod(from_environment))
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda *_: 0.01)
    broken = paddock.run(config={"mode": "latest", "num_sessions": 1})
    assert not broken.success
    assert not list((paddock.root / "landing" / "f1").rglob("year=*/**/laps*.json*"))
    server.troubles.clear()
    assert paddock.run(config={"mode": "latest", "num_sessions": 1}).success
    assert len(paddock.rows("select * from default_silver_clean.silver_sessions")) == 1


def test_bronze_as_delta_tables_and_pictures_of_a_session(paddock: Paddock, api: Any) -> None:
    import deltalake

    api(season(paddock))
    first = paddock.run(
        config={"mode": "latest", "num_sessions": 2}, configs={"bronze_tables_loaded": {"destination": "delta"}}
    )
    assert first.success
    for name in ("bronze_sessions", "bronze_drivers", "bronze_laps", "bronze_locations"):
        table = deltalake.DeltaTable(paddock.root / "delta" / "bronze_raw" / name)
        rows = table.to_pyarrow_table()
        keys = paddock.rows(f"select session_key, count(*) from bronze_raw.{name} group by 1 order by 1")
        counted = rows.group_by("session_key").aggregate([([], "count_all")]).sort_by("session_key")
        assert [tuple(row.values()) for row in counted.to_pylist()] == keys
    chain = [dg.AssetKey(CHAIN[1])]
    again = paddock.run("bronze_job", configs={"bronze_tables_loaded": {"destination": "delta"}}, asset_selection=chain)
    assert again.success and set(metadata(again, "bronze_tables_loaded")["delta"].values()) == {0}

    job = paddock.definitions.resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(instance=paddock.instance, asset_selection=[dg.AssetKey("session_pictures")])
    assert done.success
    said = metadata(done, "session_pictures")
    assert said["lap_times"].startswith("![lap_times](data:image/png;base64,")
    folder = next((paddock.root / ".rat" / "artifacts").rglob("lap_times.png")).parent
    for name in ("lap_times", "gaps"):
        png = (folder / f"{name}.png").read_bytes()
        assert png[:8] == b"\x89PNG\r\n\x1a\n" and len(png) > 5_000


@pytest.mark.real_data
def test_the_race_of_montreal(paddock: Paddock, api: Any, real_data: Path) -> None:
    api(paddock.module("answers").Folders([real_data / "f1" / "api", real_data / "f1" / "location"]))
    result = paddock.run(config={"mode": "manual", "session_keys": [9531], "entities": ["sessions", "meetings", "drivers", "laps", "location", "pit", "stints", "weather"]})  # fmt: skip
    assert result.success
    assert paddock.rows("select count(*), sum(is_valid_lap::int), sum(is_pit_out_lap::int) from default_silver_clean.silver_laps") == [(1272, 1205, 62)]  # fmt: skip
    assert paddock.rows("select count(*) from default_silver_clean.silver_locations") == [(518_800,)]
    assert paddock.rows("select count(distinct driver_key) from default_gold_analytics.fact_laps") == [(20,)]
    board = paddock.rows(
        "select driver_number, fastest_lap_time, delta_to_fastest, fastest_lap_number"
        f" from {GOLD}.session_leaderboard order by position limit 5"
    )
    assert board == [(44, 74.856, 0.0, 70), (63, 74.895, 0.039, 70), (4, 75.558, 0.702, 67), (1, 75.569, 0.713, 70), (81, 76.247, 1.391, 65)]  # fmt: skip
