"""From telemetry to a carrying flag: exact at the edges, whatever the batches, and by file on the lake."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines.forklift import landing, simulate
from pipelines.forklift.judging import anomalies_sql, load_sensor_sql, safety_sql
from pipelines.forklift.processing import Rules, WrongRules, among, batches, carrying_sql, header_sql, heights_sql

from ratatouille.errors import RatError
from ratatouille.handle import Workspace

ROOT = Path(__file__).resolve().parents[2]
MIDNIGHT = datetime(2026, 3, 3)  # noqa: DTZ001  as the lake has it: UTC, without a zone
UP, DOWN = {"height": 0.5, "load": 1.0, "speed": 5.0}, {"height": 0.0, "load": 0.0, "speed": 5.0}
RULES = Rules()
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001


@pytest.fixture(scope="module")
def sql() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'; set threads = 1")
        yield connection


def heights_table(sql: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> str:
    """A table like silver.forklift_heights; each row says what differs from a machine that stands around on duty."""
    plain = {"machine": "FL-1", "height": 0.0, "load": 0.0, "speed": 0.0, "on_duty": True, "latitude": 51.0,
             "longitude": 13.7, "commit_id": "c", "kind": "forklift", "fffid": "1", "sensor_broken": False}  # fmt: skip
    sql.execute(
        "create or replace table heights (machine varchar, height double, load double, speed double, on_duty boolean,"
        " latitude double, longitude double, commit_id varchar, kind varchar, fffid varchar, sensor_broken boolean, ts timestamp)"
    )
    sql.executemany(f"insert into heights values ({', '.join('?' * 12)})", [[*(plain | one).values()] for one in rows])
    return "heights"


def flags(sql: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]], rules: Rules = RULES) -> list[bool]:
    name = heights_table(sql, rows)
    found = sql.execute(f"select carrying from ({carrying_sql(name, 'true', rules)}) order by machine, ts").fetchall()
    return [carrying for (carrying,) in found]


def every_second(states: list[dict[str, Any]], start: datetime = MIDNIGHT) -> list[dict[str, Any]]:
    return [{**state, "ts": start + timedelta(seconds=second)} for second, state in enumerate(states)]


@pytest.mark.parametrize(("ends_after", "carries"), [(44.999999, False), (45.0, True), (45.000001, True)])
def test_a_pulse_of_exactly_45_seconds_is_one(sql: Any, ends_after: float, carries: bool) -> None:
    rows = every_second([UP] * 45)
    rows.append({**DOWN, "ts": MIDNIGHT + timedelta(seconds=ends_after)})
    assert flags(sql, rows) == [carries] * 45 + [False]
    last = [*every_second([UP] * 45), {**UP, "ts": MIDNIGHT + timedelta(seconds=ends_after)}]
    assert flags(sql, last) == [carries] * 46, "the last row says nothing about what comes after it"


@pytest.mark.parametrize(("gap", "closed"), [(0.5, True), (1.0, True), (1.000001, False), (2.0, False)])
def test_a_gap_of_exactly_one_second_is_closed(sql: Any, gap: float, closed: bool) -> None:
    rows = every_second([UP] * 30 + [DOWN])
    again = MIDNIGHT + timedelta(seconds=30 + gap)
    rows += every_second([UP] * 30 + [DOWN], again)
    assert flags(sql, rows) == ([True] * 61 + [False] if closed else [False] * 62)


def test_midnight_is_no_edge_and_silence_is_one(sql: Any) -> None:
    assert all(flags(sql, every_second([UP] * 60, MIDNIGHT - timedelta(seconds=30))))
    rows = every_second([UP] * 40) + every_second([UP] * 60, MIDNIGHT + timedelta(seconds=39 + 10))
    assert all(flags(sql, rows)), "ten seconds without a row are no silence"
    rows = every_second([UP] * 40) + every_second([UP] * 60, MIDNIGHT + timedelta(seconds=39 + 10.000001))
    assert flags(sql, rows) == [False] * 40 + [True] * 60


@pytest.mark.parametrize(
    ("change", "carries"),
    [
        ({"load": 0.5}, True), ({"load": 0.49}, False), ({"load": None}, False),
        ({"height": 0.350001}, True), ({"height": 0.35}, False), ({"height": None}, False),
        ({"speed": 7.2}, True), ({"speed": 7.21}, False), ({"on_duty": False}, False),
    ],
)  # fmt: skip
def test_each_threshold_counts_at_its_edge(sql: Any, change: dict[str, Any], carries: bool) -> None:
    assert flags(sql, every_second([UP | change] * 50)) == [carries] * 50


def test_off_duty_rows_carry_only_where_they_may_and_machines_do_not_touch_each_other(sql: Any) -> None:
    off = UP | {"on_duty": False}
    rows = every_second([UP] * 50 + [off] + [UP] * 50)
    assert flags(sql, rows) == [True] * 50 + [False] + [True] * 50, "the gap is closed, the row in it is off duty"
    assert all(flags(sql, every_second([off] * 50), replace(RULES, allow_off_duty=True)))
    two = every_second([UP] * 30) + [row | {"machine": "FL-2"} for row in every_second([UP] * 30)]
    assert not any(flags(sql, two))
    silent = every_second([UP] * 40) + every_second([UP] * 40, MIDNIGHT + timedelta(seconds=52))
    assert not any(flags(sql, silent + [row | {"machine": "FL-2"} for row in every_second([DOWN] * 92)]))
    assert flags(sql, every_second([UP, DOWN] * 3), replace(RULES, min_duration=0.0, fill_gap=0.0)) == [True, False] * 3


def by_hand(rows: list[dict[str, Any]], rules: Rules) -> list[bool]:
    """The same in plain Python, a row at a time."""
    us = [round((row["ts"] - EPOCH) / timedelta(microseconds=1)) for row in rows]
    silence, gap, least = (round(s * 1e6) for s in (rules.max_silence, rules.fill_gap, rules.min_duration))
    up = [
        row["load"] >= 0.5 and row["height"] > 0.35 and row["speed"] <= 7.2 and row.get("on_duty", True) for row in rows
    ]
    holds = [(us[i + 1] if i + 1 < len(us) and us[i + 1] - us[i] <= silence else us[i]) for i in range(len(us))]
    pulses: list[list[int]] = []
    for i, is_up in enumerate(up):
        if is_up and pulses and us[i] - pulses[-1][1] <= gap:
            pulses[-1][1] = holds[i]
        elif is_up:
            pulses.append([us[i], holds[i]])
    kept = [p for p in pulses if p[1] - p[0] >= least]
    duty = [row.get("on_duty", True) for row in rows]
    return [duty[i] and any(p[0] <= us[i] < p[1] or (us[i] == p[1] and up[i]) for p in kept) for i in range(len(rows))]


steps = st.tuples(
    st.sampled_from([0.25, 1.0, 1.0, 1.0, 1.5, 9.0, 10.0, 11.0]),
    st.sampled_from([UP, UP, UP, DOWN, UP | {"on_duty": False}]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=1, max_size=40), st.sampled_from([0.0, 3.0, 10.0]), st.sampled_from([0.0, 1.0, 2.5]))
def test_the_sql_says_what_a_row_at_a_time_says(sql: Any, taken: list[Any], least: float, gap: float) -> None:
    at, rows = MIDNIGHT - timedelta(seconds=20), []
    for step, state in taken:
        rows.append({**state, "ts": at})
        at += timedelta(seconds=step)
    rules = replace(RULES, min_duration=least, fill_gap=gap)
    assert flags(sql, rows, rules) == by_hand(rows, rules)


def header(sql: duckdb.DuckDBPyConnection, rows: str, rules: Rules = RULES) -> list[tuple[Any, ...]]:
    """`rows`: machine, height, on_duty, timestamp, load of bronze, as SQL values."""
    sql.execute(
        "create or replace table bronze as select machine, '1' as fffid, height::double as height, load::double as load,"
        " on_duty, timestamp::timestamp as timestamp, 51.0 as latitude, 13.7 as longitude, 1.0 as speed, 'c' as commit_id"
        f" from (values {rows}) t(machine, height, on_duty, timestamp, load)"
    )
    made = header_sql("bronze", "true", rules)
    return sql.execute(
        f"select machine, kind, on_duty::int, ts::varchar, load from ({made}) order by machine, ts"
    ).fetchall()


def test_headers_put_rows_in_order_once_and_leave_redundant_off_duty_rows_out(sql: Any) -> None:
    rows = ", ".join(
        f"('{machine}', {height}, {duty}, '2026-03-02 23:59:{second:02}', {load})"
        for machine, height, duty, second, load in [
            ("FL", 0, 1, 5, 0), ("FL", 0, 0, 1, 0), ("FL", 0, 0, 2, 0), ("FL", 0, 0, 3, 0), ("FL", 0, 0, 4, 0),
            ("FL", 0.2, 1, 6, 1), ("FL", 0.2, 1, 6, 1), ("FL", 0.2, 0, 6, 0), ("FL", 0, 0, 7, 0), ("FL", 0, 0, 8, 0),
            ("FL", 0, 0, 9, 0), ("TR", 0, 1, 1, 0), ("TR", 0, 1, 2, 0), ("OFF", 0, 0, 1, 0), ("OFF", 0, 0, 3, 0), ("OFF", 0, 0, 2, 0),
        ]
    )  # fmt: skip
    found = header(sql, rows)
    assert [(m, k, d, int(ts[-2:])) for m, k, d, ts, _ in found] == [
        ("FL", "forklift", 0, 1), ("FL", "forklift", 0, 4), ("FL", "forklift", 1, 5), ("FL", "forklift", 1, 6),
        ("FL", "forklift", 0, 7), ("FL", "forklift", 0, 9), ("OFF", "truck", 0, 1), ("OFF", "truck", 0, 3),
        ("TR", "truck", 1, 1), ("TR", "truck", 1, 2),
    ]  # fmt: skip
    assert [load for m, _, _, ts, load in found if m == "FL" and ts.endswith("06")] == [1.0], "on duty before off duty"


def test_local_times_become_utc_over_the_change_of_the_clock(sql: Any) -> None:
    rows = ", ".join(
        f"('FL', 1, 1, '{at}', 0)" for at in ("2026-03-29 01:59:59", "2026-03-29 03:00:00", "2026-07-01 00:00:00")
    )
    found = header(sql, rows, replace(RULES, timezone="Europe/Berlin"))
    assert [ts for *_, ts, _ in found] == ["2026-03-29 00:59:59", "2026-03-29 01:00:00", "2026-06-30 22:00:00"]


def heights(sql: Any, values: list[float | None], **rules: Any) -> list[tuple[Any, ...]]:
    name = heights_table(sql, [{"height": v, "ts": MIDNIGHT + timedelta(seconds=i)} for i, v in enumerate(values)])
    made = heights_sql(name, "true", replace(RULES, **rules))
    return sql.execute(f"select round(height, 6), height_raw, sensor_broken from ({made}) order by ts").fetchall()


def test_heights_are_dropped_clipped_or_scaled(sql: Any) -> None:
    odd: list[float | None] = [-1.0, 0.0, 3.0, 6.7, 13.4]
    assert [h for h, *_ in heights(sql, odd, height_mode="drop")] == [0.0, 3.0, 6.7]
    assert [h for h, *_ in heights(sql, odd, height_mode="clip")] == [0.0, 0.0, 3.0, 6.7, 6.7]
    scaled = heights(sql, [0.0, 3.35, 6.7, 13.4], sensor_range_quantile=1.0)
    assert [h for h, *_ in scaled] == [0.0, 1.675, 3.35, 6.7] and [raw for _, raw, _ in scaled] == [
        0.0,
        3.35,
        6.7,
        13.4,
    ]
    assert [h for h, *_ in heights(sql, [0.0, 2.0, 4.0])] == [0.0, 2.0, 4.0], "a believable range is left as it is"
    spiky = heights(sql, [0.0, 2.0] * 200 + [65.53])
    assert spiky[1][0] == 2.0 and spiky[-1][0] == 6.7, "one spike is no range"
    assert heights(sql, [None, 1.0])[0][0] is None
    assert heights(sql, [None, 0.0, 13.4], sensor_range_quantile=1.0)[0][0] is None


def test_more_than_a_tenth_above_the_maximum_is_a_broken_sensor(sql: Any) -> None:
    assert not heights(sql, [1.0] * 9 + [7.0])[0][2]
    assert heights(sql, [1.0] * 8 + [7.0])[0][2]
    assert not heights(sql, [1.0] * 5 + [6.7] * 5)[0][2]


def test_sensors_anomalies_and_safety_count_what_they_say(sql: Any) -> None:
    loaded, fast = UP, {"height": 0.6, "load": 1.0, "speed": 9.0}
    rows = every_second(
        [DOWN] * 4 + [loaded] * 2 + [DOWN] * 4 + [fast] * 3 + [DOWN | {"speed": 9.0}] + [UP | {"height": 4.0}] * 2
    )
    silent = [row | {"machine": "FL-2", "load": 0.0} for row in rows]
    # At exactly 8 km/h nothing is odd yet, and nobody drives fast.
    slow = [row | {"machine": "FL-3"} for row in every_second([s | {"speed": 8.0} for s in (DOWN, UP, UP, DOWN)])]
    heights_table(sql, rows + silent + slow)
    sql.execute(
        "create or replace table carrying as select *, false as carrying, null::varchar as pulse_id from heights"
    )

    def ask(made: Any, what: str) -> list[tuple[Any, ...]]:
        rows = f"select {what} from ({made('carrying', 'true', RULES)}) order by machine"
        return sql.execute(rows).fetchall()  # type: ignore[no-any-return]

    assert ask(load_sensor_sql, "machine, on_duty_s, toggles, segments, short_segments, verdict") == [
        ("FL-1", 15.0, 5, 6, 3, "flapping"),
        ("FL-2", 15.0, 0, 1, 0, "silent"),
        ("FL-3", 3.0, 2, 3, 3, "flapping"),
    ]
    assert ask(anomalies_sql, "machine, second(ts), load_before, load_after") == [
        ("FL-1", 10, 0, 1),
        ("FL-1", 13, 1, 0),
    ]
    assert ask(safety_sql, "raised_fast_s, raised_fast_events, high_moving_s, high_moving_events, oscillations") == [
        (3.0, 1, 1.0, 1, 4),
        (3.0, 1, 1.0, 1, 4),
        (0.0, 0, 0.0, 0, 1),
    ]


def test_machines_are_never_cut_in_two_and_odd_names_stay_names() -> None:
    assert list(batches([("a", 3), ("b", 4), ("c", 9), ("d", 1)], 7)) == [["a", "b"], ["c"], ["d"]]
    assert among(["b'x", "a"]) == "machine between 'a' and 'b''x' and machine in ('b''x', 'a')"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"min_durations": 3}, "'min_duration' may be meant"),
        ({"min_duration": "3 or 1=1"}, "write a float"),
        ({"height_mode": "squash"}, "drop, clip, scale"),
        ({"timezone": "Mars/Base"}, "like Europe/Berlin"),
        ({"fill_gap": -1}, "0 or more"),
        ({"max_height": 0}, "less than"),
        ({"sensor_range_quantile": 2}, "at most 1"),
    ],
)
def test_rules_that_mean_nothing_are_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(WrongRules, match=words):
        Rules.from_mapping(said)
    assert Rules.from_mapping(None) == RULES and Rules.from_mapping(asdict(RULES)) == RULES


# On the lake


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the tables of this pipeline alone, and the files of a small fleet."""
    root = tmp_path_factory.mktemp("kitchen")
    for part in ("bronze", "silver", "gold"):
        (root / "pipelines/forklift" / part).mkdir(parents=True)
        for path in (ROOT / "pipelines/forklift" / part).glob("forklift_*"):
            if path.stem in TABLES:
                shutil.copy(path, root / "pipelines/forklift" / part)
    for path in (ROOT / "pipelines/forklift").glob("*.py"):
        shutil.copy(path, root / "pipelines/forklift")
    (root / "workspace.yaml").write_text("name: kitchen\nresources: {memory: 1GB, threads: 2}\n")
    fleet = simulate.Fleet(forklifts=4, trucks=1, days=1)
    simulate.write(fleet, root / landing.FOLDER / "real_data", root / "truth", only=slice(1, None))
    return Workspace(root)


TABLES = ("forklift_objects", "forklift_telemetry", "forklift_header", "forklift_heights", "forklift_carrying",
          "forklift_load_sensor", "forklift_anomalies", "forklift_safety")  # fmt: skip
STORED = ("silver.forklift_header", "silver.forklift_heights", "silver.forklift_carrying", "gold.forklift_load_sensor",
          "gold.forklift_anomalies", "gold.forklift_safety")  # fmt: skip


def contents(kitchen: Workspace) -> dict[str, Any]:
    """A hash of all rows of each table, in any order."""
    return {
        name: kitchen.query(f"select count(*) as n, sum(hash(columns(*))::hugeint % 1000000007) from (select columns(c -> c not like '\\_%') from {name} t)").rows()
        for name in STORED
    }  # fmt: skip


def test_files_become_tables_one_by_one_and_a_rebuild_gives_the_same(kitchen: Workspace) -> None:
    files = kitchen.root / landing.FOLDER / "real_data"
    kitchen.run()
    verdicts = dict(kitchen.query("select machine, verdict from gold.forklift_load_sensor order by 1").rows())
    assert verdicts == {"FL-0002": "flapping", "FL-0003": "ok", "FL-0004": "silent"}, "a truck has no load sensor"
    kinds = dict(kitchen.query("select distinct machine, kind from silver.forklift_header").rows())
    assert kinds.pop("TR-0005") == "truck" and set(kinds.values()) == {"forklift"}
    assert kitchen.query("select distinct machine from silver.forklift_heights where sensor_broken").rows() == [
        ("FL-0003",)
    ]
    assert kitchen.query(
        "select count(*) from silver.forklift_carrying where machine = 'FL-0004' and carrying"
    ).rows() == [(0,)]

    # A new file, one that was removed, one that was rewritten, and one that is none.
    simulate.write(simulate.Fleet(forklifts=4, trucks=1, days=1), files, kitchen.root / "truth", only=slice(0, 1))
    (files / "FL-0003.csv").write_bytes(landing.TOMBSTONE)
    shorter = (files / "FL-0002.csv").read_text().splitlines(keepends=True)[:20_000]
    (files / "FL-0002.csv").write_text("".join(shorter))
    (files / "FL-0009.csv").write_text("a;b\nthis is no telemetry\n")
    done = kitchen.run()
    steps = {step["asset"]: step for step in done["steps"]} if isinstance(done["steps"], list) else done["steps"]
    assert all(steps[name]["mode"] == "incremental" for name in STORED)
    [aside] = steps["bronze.forklift_telemetry"]["set_aside"]
    assert aside["file"].endswith("FL-0009.csv") and aside["reason"]
    built = kitchen.query("select machine, count(*) as n from bronze.forklift_telemetry group by 1 order by 1").rows()
    assert dict(built)["FL-0002"] == 20_000 and "FL-0003" not in dict(built)
    for name in STORED:
        machines = {m for (m,) in kitchen.query(f"select distinct machine from {name}").rows()}
        assert "FL-0003" not in machines, f"{name} still has rows of a file that is gone"
    commits = kitchen.query("select distinct machine, commit_id from silver.forklift_carrying order by 1").rows()
    assert len(commits) == 3 and all(commit.startswith("sha256:") for _, commit in commits)
    stands = contents(kitchen)
    kitchen.run("silver.forklift_header+", full=True)
    assert contents(kitchen) == stands

    # Scored against the truth, where neither sensor is at fault and the forks travel high enough to be seen.
    truth = kitchen.root / "truth" / "FL-0001.parquet"
    rows = kitchen.query("select ts, carrying from silver.forklift_carrying where machine = 'FL-0001'")
    with duckdb.connect() as scoring:
        scoring.register("said", rows.to_arrow())
        found, right = scoring.execute(
            f"select avg(said.carrying::int) filter (where t.carrying), avg(t.carrying::int) filter (where said.carrying)"
            f" from said join '{truth}' t using (ts)"
        ).fetchone() or (0, 0)
    assert found > 0.75 and right > 0.6, (found, right)


def test_without_any_file_the_tables_are_there_and_empty(kitchen: Workspace, tmp_path: Path) -> None:
    shutil.copytree(kitchen.root, tmp_path / "empty", ignore=shutil.ignore_patterns(".rat", "landing"))
    empty = Workspace(tmp_path / "empty")
    assert empty.run()["status"] == "completed"
    assert [row for name in STORED for row in empty.query(f"select count(*) from {name}").rows()] == [(0,)] * 6


def test_wrong_rules_stop_the_step_with_the_near_miss(kitchen: Workspace) -> None:
    text = (kitchen.root / "workspace.yaml").read_text()
    (kitchen.root / "workspace.yaml").write_text(text + "vars: {forklift: {min_durations: 3}}\n")
    with pytest.raises(RatError, match="'min_duration' may be meant"):
        kitchen.run("silver.forklift_header")
    (kitchen.root / "workspace.yaml").write_text(text)


@pytest.mark.real_data
def test_real_tracks_with_simulated_forks_go_through_the_chain(real_data: Path, sql: Any, tmp_path: Path) -> None:
    """Positions, times and gaps of real GPS tracks; Height, Load, OnDuty and Speed are made up on top of them."""
    points = real_data / "telemetry/go_track_trackspoints.csv"
    sql.execute(
        "create or replace table bronze as select concat('HYBRID-', track_id) as machine, track_id::varchar as fffid,"
        " (id % 90 between 20 and 80)::int * 0.6 as height, (id % 90 between 20 and 80)::double as load, 1 as on_duty,"
        " time::timestamp as timestamp, latitude, longitude, 5.0 as speed, 'real' as commit_id"
        f" from read_csv('{points}')"
    )
    n_moments = sql.execute("select count(*) from (select distinct machine, timestamp from bronze)").fetchone()[0]
    everything = sql.execute("select distinct machine from bronze order by 1").fetchall()
    sql.execute(f"create or replace table h as {header_sql('bronze', 'true', RULES)}")
    assert sql.execute("select count(*) from h").fetchone()[0] == n_moments > 1000
    forklifts = sql.execute("select count(distinct machine) from h where kind = 'forklift'").fetchone()[0]
    assert 0 < forklifts <= len(everything)
    sql.execute(f"create or replace table heights_real as {heights_sql('h', 'true', RULES)}")
    rules = replace(RULES, max_silence=120.0)
    whole = sql.execute(
        f"select * from ({carrying_sql('heights_real', 'true', rules)}) order by machine, ts"
    ).fetchall()
    apart = []
    for group in batches([(m, 1) for (m,) in everything], 7):
        made = carrying_sql("heights_real", among(group), rules)
        apart += sql.execute(f"select * from ({made}) order by machine, ts").fetchall()
    assert sorted(apart, key=str) == sorted(whole, key=str) and len(whole) > 1000
    assert any(row[-2] for row in whole)
