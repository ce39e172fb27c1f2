"""Triggers of sidecars in Dagster: schedules, file sensors, upstream automation, freshness."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._utils.schedules import (
    has_out_of_range_cron_interval,
    is_valid_cron_string,
    schedule_execution_time_iterator,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ratatouille.dagster import arrivals, triggers
from ratatouille.engine.landing import matching_files
from ratatouille.project import load
from ratatouille.project.cron import cron_line

FILES = {
    "landing/sales/a.csv": "id,total\n1,10\n",
    "pipelines/sales/bronze/sales.sql": "select id, total, _file from {{ source('landing/sales/*.csv') }}",
    "pipelines/sales/bronze/sales.yaml": "materialize: append\ntriggers: [{files: landing/sales/*.csv}]\n",
    "pipelines/sales/silver/sales.sql": "select id, total::integer as total from {{ ref('bronze.sales') }}",
    "pipelines/sales/silver/sales.yaml": "columns: {total: {checks: [positive]}}\ntriggers: [{upstream: true}]\n",
    "pipelines/sales/gold/summary.sql": "select sum(total) as total from {{ ref('silver.sales') }}",
    "pipelines/sales/gold/summary.yaml": "triggers: [{schedule: daily}]\n",
}

# What a test asks here, the daemon asks through another door.
beta = pytest.mark.filterwarnings(
    "ignore:Parameter .include_sources. of function:dagster_shared.utils.warnings.BetaWarning"
)


def in_words(trigger: str) -> str:
    return f"triggers: [{trigger}]\n"


def assets_with(kitchen, *sidecars: str):
    """A project with one asset `silver.t<n>` of pipeline `p` for each sidecar."""
    for number, text in enumerate(sidecars):
        kitchen.write(
            {f"pipelines/p/silver/t{number}.sql": "select 1 as a", f"pipelines/p/silver/t{number}.yaml": text}
        )
    project = load(kitchen.root)
    assert project.errors == ()
    return project


def selected(job, defs: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in defs.get_repository_def().get_job(job.name).asset_layer.selected_asset_keys}


# Schedules


@pytest.mark.parametrize(
    ("trigger", "name", "cron", "timezone", "status"),
    [
        ("{schedule: daily}", "p_daily", "0 0 * * *", "UTC", "STOPPED"),
        ("{schedule: '@hourly', status: running}", "p_hourly", "0 * * * *", "UTC", "RUNNING"),
        ("{schedule: weekly, status: stopped}", "p_weekly", "0 0 * * 0", "UTC", "STOPPED"),
        ("{schedule: monthly}", "p_monthly", "0 0 1 * *", "UTC", "STOPPED"),
        ("{schedule: 0 2 * * *}", "p_daily_0200", "0 2 * * *", "UTC", "STOPPED"),
        (
            "{schedule: 30 6 * * 1, timezone: Europe/Paris}",
            "p_weekly_mon_0630_europe_paris",
            "30 6 * * 1",
            "Europe/Paris",
            "STOPPED",
        ),
        ("{schedule: 5 * * * *}", "p_hourly_05", "5 * * * *", "UTC", "STOPPED"),
        ("{schedule: 0 4 15 * *}", "p_monthly_15_0400", "0 4 15 * *", "UTC", "STOPPED"),
        ("{schedule: '*/10 * * * *'}", "p_every_10_minutes", "*/10 * * * *", "UTC", "STOPPED"),
        (
            "{schedule: '0 8-18/2 * * mon-fri'}",
            "p_cron_0_8to18by2_x_x_montofri",
            "0 8-18/2 * * mon-fri",
            "UTC",
            "STOPPED",
        ),
    ],
)
def test_a_schedule(kitchen, trigger, name, cron, timezone, status):
    (found,) = triggers.schedules(assets_with(kitchen, in_words(trigger)), kitchen.root)
    assert (found.name, found.cron_schedule, found.execution_timezone) == (name, cron, timezone)
    assert found.default_status == dg.DefaultScheduleStatus[status]
    assert found.job.name == f"{name}_job"


def test_assets_share_a_schedule_and_say_whether_it_runs(kitchen):
    project = assets_with(
        kitchen,
        in_words("{schedule: daily}"),
        in_words("{schedule: 0 0 * * *, status: running}"),
        in_words("{schedule: midnight, status: stopped}"),
        in_words("{schedule: daily, timezone: Asia/Tokyo}"),
    )
    found = {one.name: one for one in triggers.schedules(project, kitchen.root)}
    assert {name: one.default_status.name for name, one in found.items()} == {
        "p_daily": "RUNNING",
        "p_daily_stopped": "STOPPED",
        "p_daily_asia_tokyo": "STOPPED",
    }
    defs = kitchen.defs()
    assert selected(found["p_daily"].job, defs) == {"silver/t0", "silver/t1"}
    assert selected(found["p_daily_stopped"].job, defs) == {"silver/t2"}


def test_names_do_not_collide_and_do_not_depend_on_the_order(kitchen):
    one, other = in_words("{files: landing/a-b.csv}"), in_words("{files: landing/a_b.csv}")
    names = [sensor.name for sensor in triggers.file_sensors(assets_with(kitchen, one, other), kitchen.root)]
    assert len(set(names)) == 2 and all(name.startswith("p_landing_a_b_csv_") for name in names)
    swapped = [sensor.name for sensor in triggers.file_sensors(assets_with(kitchen, other, one), kitchen.root)]
    assert sorted(swapped) == sorted(names)
    (prefixed,) = triggers.schedules(assets_with(kitchen, in_words("{schedule: daily}"), ""), kitchen.root, ("shop",))
    assert prefixed.name == "shop_p_daily"
    for taken in ({"p_daily"}, {"p_daily_job"}):
        (renamed,) = triggers.schedules(load(kitchen.root), kitchen.root, taken=taken)
        assert (renamed.name, renamed.job.name) == ("kitchen_p_daily", "kitchen_p_daily_job")


def test_a_schedule_fires_at_its_hour_on_both_sides_of_summer_time(kitchen):
    project = assets_with(kitchen, in_words("{schedule: 30 2 * * *, timezone: Europe/Paris}"))
    (schedule,) = triggers.schedules(project, kitchen.root)
    start = datetime(2026, 3, 28, tzinfo=UTC).timestamp()
    times = schedule_execution_time_iterator(start, schedule.cron_schedule, schedule.execution_timezone)
    found = [next(times).astimezone(UTC) for _ in range(3)]
    # 02:30 does not exist on 29 March: it becomes 03:00 summer time, which is 01:00 UTC.
    assert [f"{one:%d %H:%M}" for one in found] == ["28 01:30", "29 01:00", "30 00:30"]


def test_a_tick_of_a_schedule_asks_for_its_job_and_the_job_builds_what_is_above(kitchen, instance):
    kitchen.write(FILES)
    defs = kitchen.defs()
    schedule = defs.get_repository_def().get_schedule_def("sales_daily")
    tick = datetime(2026, 11, 21, tzinfo=UTC)
    with dg.build_schedule_context(
        instance, scheduled_execution_time=tick, repository_def=defs.get_repository_def()
    ) as context:
        (request,) = schedule.evaluate_tick(context).run_requests
    assert selected(schedule.job, defs) == {"bronze/sales", "silver/sales", "gold/summary"}
    job = defs.get_repository_def().get_job("sales_daily_job")
    tags = {**request.tags, "dagster/schedule_name": schedule.name}
    assert job.execute_in_process(instance=instance, tags=tags).success
    assert kitchen.rows("select total from gold.summary") == [(10,)]
    # Again: everything is fresh, so nothing is built.
    before = kitchen.rows("select count(*) from rat.ledger")
    assert job.execute_in_process(instance=instance, tags=tags).success
    assert kitchen.rows("select count(*) from rat.ledger") == before


field = st.one_of(
    st.just("*"),
    st.integers(0, 70).map(str),
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda t: f"{t[0]}-{t[1]}"),
    st.tuples(st.sampled_from(["*", "0", "5", "1-20", "3-3"]), st.integers(0, 70)).map(lambda t: f"{t[0]}/{t[1]}"),
    st.sampled_from(["jan", "mon", "MON-FRI", "feb-mar", "sun", "?", "L", "1#2", "15W", "-1", "1,2", "7", "1,,2", "r"]),
)
part = st.lists(field, min_size=1, max_size=3).map(",".join)


@settings(max_examples=1500, deadline=None)
@given(st.lists(part, min_size=4, max_size=6).map(" ".join))
def test_dagster_takes_every_cron_line_that_rat_check_takes(line):
    try:
        accepted = cron_line(line)
    except ValueError:
        return
    assert is_valid_cron_string(accepted), accepted
    assert not has_out_of_range_cron_interval(accepted), accepted


# Files


class Watched:
    """A file sensor and its ticks, with the cursor that Dagster would keep."""

    def __init__(self, kitchen, instance, pattern="landing/sales/*.csv"):
        kitchen.write({**FILES, "pipelines/sales/bronze/sales.yaml": in_words(f"{{files: '{pattern}'}}")})
        self.root, self.instance, self.defs = kitchen.root, instance, kitchen.defs()
        (sensor,) = triggers.file_sensors(load(kitchen.root), kitchen.root)
        self.sensor = self.defs.get_repository_def().get_sensor_def(sensor.name)
        self.cursor = None

    def tick(self) -> dg.RunRequest | None:
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=self.defs.get_repository_def()
        )
        said = self.sensor.evaluate_tick(context)
        self.cursor, self.said = said.cursor, said.skip_message
        assert len(said.run_requests or []) <= 1
        return said.run_requests[0] if said.run_requests else None

    def settle(self) -> dg.RunRequest | None:
        """Two looks, so that what was written is taken to be whole."""
        assert self.tick() is None
        return self.tick()

    def write(self, name: str, text: str, at: float | None = None) -> None:
        path = self.root / "landing/sales" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if at is not None:
            os.utime(path, (at, at))


@pytest.fixture
def watched(kitchen, instance):
    return Watched(kitchen, instance)


def test_the_sensor_is_named_after_its_files_and_stopped(watched):
    assert watched.sensor.name == "sales_landing_sales_csv"
    assert watched.sensor.default_status == dg.DefaultSensorStatus.STOPPED
    project = load(watched.root)
    assert watched.sensor.job.name == "sales_landing_sales_csv_job"
    assert [s.name for s in triggers.file_sensors(project, watched.root, ("w",))] == ["w_sales_landing_sales_csv"]


def test_files_that_are_there_arrive_once(watched):
    request = watched.settle()
    assert request is not None and request.tags["rat/files"] == "landing/sales/a.csv"
    for _ in range(3):
        assert watched.tick() is None
    assert "1 known" in watched.said


def test_a_new_file_a_rewritten_one_and_one_that_comes_out_of_order(watched):
    keys = [watched.settle().run_key]
    watched.write("b.csv", "id,total\n2,20\n", at=1.7e9)
    keys.append(watched.settle().run_key)
    # Older than everything, and first by name: neither decides.
    watched.write("0.csv", "id,total\n3,30\n", at=time.time() - 10**7)
    request = watched.settle()
    assert request.tags["rat/files"] == "landing/sales/0.csv"
    keys.append(request.run_key)
    watched.write("b.csv", "id,total\n2,21\n")  # as long as before
    keys.append(watched.settle().run_key)
    watched.write("b.csv", "id,total\n2,20\n", at=1.7e9)  # and back, its time too: another run than the first one
    keys.append(watched.settle().run_key)
    assert len(set(keys)) == 5


def test_a_file_that_grows_waits_until_it_is_whole(watched):
    watched.settle()
    for rows in range(1, 5):
        watched.write("big.csv", "id,total\n" + "1,1\n" * rows)
        assert watched.tick() is None
        assert "1 may still be written" in watched.said
    assert watched.tick().tags["rat/files"] == "landing/sales/big.csv"


def test_unfinished_and_hidden_files_and_links_out_of_the_workspace_do_not_count(watched, tmp_path):
    watched.settle()
    for name in ("c.csv.tmp", "c.csv.part", ".c.csv", "c.csv~"):
        watched.write(name, "id,total\n")
    outside = tmp_path / "outside.csv"
    outside.write_text("id,total\n")
    (watched.root / "landing/sales/link.csv").symlink_to(outside)
    (watched.root / "landing/sales/dead.csv").symlink_to(tmp_path / "nothing")
    (watched.root / "landing/sales/folder.csv").mkdir()
    assert watched.settle() is None and watched.tick() is None
    (watched.root / "landing/sales/c.csv.tmp").rename(watched.root / "landing/sales/c.csv")
    assert watched.settle().tags["rat/files"] == "landing/sales/c.csv"


def test_a_touch_is_no_arrival_and_reads_the_file_once(watched, monkeypatch):
    watched.settle()
    read = []
    checksum = arrivals._checksum
    monkeypatch.setattr(arrivals, "_checksum", lambda path, seen: read.append(path.name) or checksum(path, seen))
    watched.write("a.csv", "id,total\n1,10\n", at=time.time() - 50)
    assert watched.settle() is None and watched.tick() is None
    assert read == ["a.csv"]


def test_a_large_file_is_not_read_and_its_touch_counts(watched, monkeypatch):
    monkeypatch.setattr(arrivals, "HASHED_BYTES", 5)
    monkeypatch.setattr(arrivals, "_checksum", lambda *_: pytest.fail("it was read"))
    assert watched.settle() is not None
    watched.write("a.csv", "id,total\n1,10\n", at=time.time() - 50)
    assert watched.settle() is not None


def test_a_deletion_is_no_arrival_and_a_file_that_comes_back_is(watched):
    watched.settle()
    path = watched.root / "landing/sales/a.csv"
    text = path.read_text()
    path.unlink()
    assert watched.settle() is None and "0 known" in watched.said
    path.write_text(text)
    assert watched.settle() is not None


def test_a_folder_that_goes_away_and_comes_back_is_no_arrival(watched):
    watched.settle()
    landing = watched.root / "landing"
    landing.rename(watched.root / "unmounted")
    assert watched.tick() is None and "1 known" in watched.said
    (watched.root / "unmounted").rename(landing)
    assert watched.settle() is None and watched.tick() is None


def test_a_tick_that_is_repeated_asks_for_the_same_run(watched):
    watched.tick()
    before = watched.cursor
    first = watched.tick()
    watched.cursor = before  # the daemon died before it wrote the cursor down
    assert watched.tick().run_key == first.run_key


@pytest.mark.parametrize(
    "cursor", ["", "nonsense", "[]", '{"file": "../../etc/passwd"}', '{"file": 3}', '{"known": 1}']
)
def test_a_cursor_that_cannot_be_used_is_a_fresh_start(watched, cursor):
    watched.cursor = cursor
    assert watched.settle() is not None


def test_many_files_keep_the_cursor_short_and_are_all_remembered(watched):
    for number in range(2_000):
        watched.write(f"f{number:05}.csv", f"id,total\n{number},1\n")
    watched.settle()
    assert len(watched.cursor) < 100
    folder = watched.root / arrivals.FOLDER
    watched.write("f01000.csv", "id,total\n5,5\n")
    request = watched.settle()
    assert request.tags["rat/files"] == "landing/sales/f01000.csv"
    assert len(list(folder.iterdir())) == 2  # this memory and the one before
    before = watched.cursor
    assert watched.tick() is None and watched.cursor == before
    # Its file is lost: all files arrive once more, and the steps will find them read.
    for path in folder.iterdir():
        path.unlink()
    assert watched.settle().tags["rat/files"].endswith("and 1996 more")


def test_a_memory_that_was_changed_is_not_believed(tmp_path):
    memory = arrivals.Memory("t", {f"landing/{n}.csv": (1, 2, "abc") for n in range(1_000)})
    text = arrivals.as_text(memory, tmp_path, "s")
    assert arrivals.from_text(text, tmp_path) == memory
    path = tmp_path / arrivals.FOLDER / json.loads(text)["file"]
    path.write_text(path.read_text().replace("abc", "abd", 1))
    assert arrivals.from_text(text, tmp_path) == arrivals.Memory()


def test_the_files_of_a_sensor_are_those_that_a_step_reads(tmp_path):
    for name in ("a.csv", "b.csv.gz", "deep/er/c.csv", ".d.csv", "e.csv.partial", "deep/.h/f.csv", "g.txt"):
        path = tmp_path / "landing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "landing/inside.csv").symlink_to(tmp_path / "landing/a.csv")
    for pattern in (
        "landing/*.csv",
        "landing/**/*.csv",
        "landing/*.csv*",
        "landing/a.csv",
        "nothing/*",
        "landing/**",
        "./landing//*.csv",
    ):
        assert sorted(arrivals.sightings(tmp_path, pattern)) == matching_files(tmp_path, pattern), pattern


def test_a_look_at_unchanged_files_is_one_system_call_each(tmp_path, monkeypatch):
    folder = tmp_path / "landing"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.csv").write_text("x")
    memory = arrivals.look(tmp_path, "landing/*.csv", arrivals.Memory()).memory
    memory = arrivals.look(tmp_path, "landing/*.csv", memory).memory
    calls: list[str] = []
    for name in ("lstat", "stat", "open"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _real=real, _name=name, **k: calls.append(_name) or _real(*a, **k))
    look = arrivals.look(tmp_path, "landing/*.csv", memory)
    assert look.arrived == () and look.memory == memory
    assert calls.count("lstat") == 300 and len(calls) < 320


def test_the_run_that_a_sensor_asks_for_reads_the_file(watched, kitchen):
    request = watched.settle()
    job = watched.defs.get_repository_def().get_job(watched.sensor.job.name)
    tags = {**request.tags, "dagster/sensor_name": watched.sensor.name, "dagster/run_key": request.run_key}
    assert job.execute_in_process(instance=watched.instance, tags=tags, run_config=request.run_config).success
    assert kitchen.rows("select id, _file from bronze.sales") == [("1", "landing/sales/a.csv")]


def test_what_cannot_be_written_down_is_said(watched, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr(arrivals, "LONGEST_TEXT", 10)
    monkeypatch.setattr(arrivals, "_write", full)
    assert watched.tick() is None
    assert watched.cursor is None and "No space left on device" in watched.said


# Upstream


def test_an_asset_says_that_it_follows_what_it_reads(kitchen):
    kitchen.write(FILES)
    project = load(kitchen.root)
    assert triggers.automation_condition(project.assets["gold.summary"]) is None
    assert triggers.automation_condition(project.assets["silver.sales"]) is not None
    (sensor,) = triggers.upstream_sensors(project, kitchen.root)
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert (sensor.name, sensor.default_status) == ("sales_upstream", dg.DefaultSensorStatus.STOPPED)
    project = assets_with(
        kitchen, in_words("{upstream: true, status: running}"), in_words("{upstream: true, status: stopped}")
    )
    found = {one.name: one.default_status.name for one in triggers.upstream_sensors(project, kitchen.root)}
    assert found == {"p_upstream": "RUNNING", "p_upstream_stopped": "STOPPED", "sales_upstream": "STOPPED"}


@beta
def test_it_runs_after_an_update_and_not_while_a_blocking_check_above_has_failed(kitchen, instance):
    kitchen.write(
        {
            "pipelines/p/bronze/a.csv": "id\n1\n",
            "pipelines/p/bronze/a.yaml": "columns: {id: {checks: [{range: {min: 0}}, {unique: {severity: warn}}]}}\n",
            "pipelines/p/silver/b.sql": "select id from {{ ref('bronze.a') }}",
            "pipelines/p/silver/b.yaml": in_words("{upstream: true}"),
        }
    )
    below = dg.AssetKey(["silver", "b"])

    def run_above() -> bool:
        job = kitchen.defs().get_repository_def().get_job("p_job")
        selection = [dg.AssetKey(["bronze", "a"])]
        return job.execute_in_process(instance=instance, asset_selection=selection, raise_on_error=False).success

    cursor = None

    def requested() -> int:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(kitchen.defs(), instance, cursor=cursor)
        cursor = result.cursor
        return result.get_num_requested(below)

    assert requested() == 0  # nothing above was ever built
    assert run_above() and requested() == 1
    assert requested() == 0
    kitchen.write({"pipelines/p/bronze/a.csv": "id\n-1\n"})
    assert not run_above() and requested() == 0
    # An update of the history that a gate has not passed: what eager() alone would start from.
    instance.report_runless_asset_event(dg.AssetMaterialization(["bronze", "a"]))
    assert requested() == 0
    kitchen.write({"pipelines/p/bronze/a.csv": "id\n5\n5\n"})  # a warning does not hold it back
    assert run_above() and requested() == 1


# Freshness


@pytest.mark.parametrize(
    ("said", "fail", "warn"),
    [
        ("{warn_after: 6h, error_after: 24h}", timedelta(days=1), timedelta(hours=6)),
        ("{error_after: 90s}", timedelta(seconds=90), None),
        ("{warn_after: 1m}", timedelta(days=36_500), timedelta(minutes=1)),
    ],
)
def test_freshness(kitchen, said, fail, warn):
    (asset,) = assets_with(kitchen, f"freshness: {said}\n").assets.values()
    policy = triggers.freshness_policy(asset)
    assert policy.fail_window.to_timedelta() == fail
    assert (policy.warn_window.to_timedelta() if policy.warn_window else None) == warn
    spec = kitchen.defs().get_repository_def().asset_graph.get(dg.AssetKey(["silver", "t0"]))
    assert spec.freshness_policy == policy


def test_without_freshness_there_is_no_policy(kitchen):
    (asset,) = assets_with(kitchen, "freshness: {}\n").assets.values()
    assert triggers.freshness_policy(asset) is None


def test_wrong_triggers_are_problems_with_their_line_and_take_nothing_down(kitchen):
    kitchen.write({**FILES, "pipelines/sales/gold/summary.yaml": "owners: a\ntriggers: [{schedule: 0 25 * * *}]\n"})
    code, out, err = kitchen.rat("check")
    assert code == 2
    assert "pipelines/sales/gold/summary.yaml:2:23" in out + err and "the hour is from 0 to 23" in out + err
    names = {sensor.name for sensor in kitchen.defs().get_repository_def().sensor_defs}
    assert "sales_landing_sales_csv" in names


def test_a_sensor_for_a_job_of_ones_own_asks_for_a_part_of_it(kitchen) -> None:
    @dg.asset
    def fetched() -> None: ...

    @dg.asset(deps=[fetched])
    def loaded() -> None: ...

    job = dg.define_asset_job("everything", [fetched, loaded])
    kitchen.write({"landing/a.json": "[]"})
    sensor = triggers.file_sensor(
        name="new_files", files="landing/*.json", job=job, asset_selection=[dg.AssetKey("loaded")], every_s=300,
        workspace=kitchen.root,
    )  # fmt: skip
    assert sensor.minimum_interval_seconds == 300 and sensor.default_status == dg.DefaultSensorStatus.STOPPED
    repository = dg.Definitions(assets=[fetched, loaded], jobs=[job], sensors=[sensor]).get_repository_def()

    def look(cursor: str | None):
        return sensor.evaluate_tick(dg.build_sensor_context(cursor=cursor, repository_def=repository))

    first = look(None)
    assert first.run_requests == []
    second = look(first.cursor)
    [request] = second.run_requests
    assert request.asset_selection == [dg.AssetKey("loaded")] and request.tags["rat/files"] == "landing/a.json"
    assert look(second.cursor).run_requests == []
