"""Sessions into files: which ones, what is written, not twice, and read again while they are corrected."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from f1_bench import LATER, RACE_END, Extract, data_in, files_in, home_of, manifest_of, settings_of
from pipelines.f1.answers import Folders
from pipelines.f1.extract import extract_sessions
from pipelines.f1.fetching import ENTITIES
from pipelines.f1.landing import manifests
from pipelines.f1.openf1 import BadRequest, OpenF1
from pipelines.f1.season import Season, generate
from pipelines.f1.server import Server, Trouble, serve

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("quiet_retries")


# Which sessions


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"mode": "latest"}, [9006]),
        ({"mode": "latest", "sessions": 3}, [9004, 9005, 9006]),
        ({"mode": "latest", "sessions": 99}, [9001, 9002, 9003, 9004, 9005, 9006]),
        ({"mode": "oldest", "sessions": 2}, [9001, 9002]),
        ({"mode": "year", "year": 2024}, [9001, 9002, 9003, 9004, 9005, 9006]),
        ({"mode": "manual", "session_keys": [9004, 9002]}, [9002, 9004]),
        ({"mode": "manual", "session_keys": [9002, 9007, 9008]}, [9002]),  # cancelled, and of a year to come
        ({"mode": "latest", "now": RACE_END + timedelta(minutes=31)}, [9002]),
        ({"mode": "latest", "now": RACE_END + timedelta(minutes=29)}, [9001]),  # it may run late
        ({"mode": "year", "year": 2024, "now": RACE_END}, [9001]),
    ],
)
def test_each_mode_takes_finished_sessions_that_were_not_cancelled(
    extract: Extract, wish: dict[str, Any], expected: list[int]
) -> None:
    done = extract(entities=["sessions"], **wish)
    assert [one.session_key for one in done.sessions] == expected
    assert (done.extraction_mode, done.sessions_extracted, done.files_count) == (
        wish["mode"],
        len(expected),
        len(expected),
    )


def test_a_year_says_what_it_left_out(extract: Extract) -> None:
    log = "\n".join(extract(mode="year", year=2024, entities=["sessions"]).output_log)
    assert "left out: 9007 Imola Race 2024-05-19 is cancelled" in log


@pytest.mark.parametrize(
    "wish",
    [
        {"mode": "newest"},
        {"sessions": 0},
        {"mode": "year"},
        {"mode": "manual"},
        {"mode": "manual", "session_keys": [1]},
        {"mode": "year", "year": 1950},
        {"entities": ["lapz"]},
        {"entities": []},
        {"naming": "flat"},
        {"workers": 0},
    ],
)
def test_a_request_that_cannot_be_met_is_refused_with_a_way_on(
    extract: Extract, tmp_path: Path, wish: dict[str, Any]
) -> None:
    with pytest.raises(BadRequest) as caught:
        extract(**wish)
    assert caught.value.exit_code == 2
    assert caught.value.what and caught.value.next
    assert files_in(tmp_path) == {}


# What is written


def as_sent(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what the extraction adds: of which session and day they are."""
    assert all({"session_name", "batch_day"} <= set(row) for row in rows)
    return [{name: value for name, value in row.items() if name not in ("session_name", "batch_day")} for row in rows]


def test_a_session_is_five_files_and_a_manifest(extract: Extract, tmp_path: Path, season: Season) -> None:
    done = extract(mode="manual", session_keys=[9002])
    assert (done.sessions_extracted, done.files_count) == (1, 5)
    home = tmp_path / "year=2024" / "meeting=1201" / "session=9002"
    names = {"sessions.json", "meetings.json", "drivers.json", "laps.json", "location.json", "manifest.json"}
    assert {path.name for path in home.iterdir()} == names
    for entity in ("laps", "drivers"):
        sent = [row for row in season.rows(entity) if row["session_key"] == 9002]
        stored = json.loads((home / f"{entity}.json").read_text(encoding="utf-8"))
        stored = as_sent(stored) if entity == "laps" else stored
        key = ENTITIES[entity]
        assert stored == sorted(sent, key=lambda row: [row[name] for name in key])
    points = season.telemetry("location", 9002)
    assert as_sent(json.loads((home / "location.json").read_text())) == points.to_dicts()
    assert done.rows == {"sessions": 1, "meetings": 1, "drivers": 8, "laps": 78, "location": points.height}
    assert done.windows.fetched and done.windows.empty and not done.windows.failed
    assert not (tmp_path / ".aside" / "session=9002").exists()
    assert "9002 Montréal Race 2024-03-03: extracted" in done.log_tail


def test_the_manifest_has_counts_checksums_and_days(extract: Extract, tmp_path: Path) -> None:
    extract(mode="manual", session_keys=[9006])
    manifest, home = manifest_of(tmp_path, 9006), home_of(tmp_path, 9006)
    assert manifest.complete and manifest.missing == ()
    assert (manifest.batch_day, manifest.local_day) == ("2024-04-01", "2024-03-31")  # a night race
    for entry in manifest.entities.values():
        assert entry.file is not None
        content = (home / entry.file).read_bytes()
        assert (entry.bytes, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert entry.rows == len(json.loads(content))
    location = manifest.entities["location"]
    assert location.requests == location.windows.fetched + location.windows.empty == 10 * 6 + 0
    assert location.api_s > 0
    assert location.extracted_at == LATER.isoformat()


def test_every_entity_can_be_asked_for(extract: Extract, tmp_path: Path, season: Season) -> None:
    done = extract(mode="manual", session_keys=[9005], entities=list(ENTITIES))
    for entity in set(ENTITIES) - {"sessions", "meetings", "location", "car_data"}:
        assert done.rows[entity] == len([row for row in season.rows(entity) if row["session_key"] == 9005]) > 0, entity
    assert done.rows["car_data"] == season.telemetry("car_data", 9005).height
    assert done.files_count == len(ENTITIES)


def test_the_document_s_names_are_there_on_request(extract: Extract, tmp_path: Path) -> None:
    done = extract(mode="latest", sessions=2, naming="document")
    assert done.files_count == 8
    assert set(files_in(tmp_path)) == {
        f"{entity}_{session}.json"
        for entity in ("sessions", "drivers", "laps", "locations")
        for session in ("2024-03-17_São_Paulo_Race", "2024-04-01_Las_Vegas_Race")
    }
    for entity in ("laps", "locations"):
        text = (tmp_path / f"{entity}_2024-03-17_São_Paulo_Race.json").read_text(encoding="utf-8")
        assert text.startswith("[\n  {\n    ")  # indented by two
        for row in json.loads(text):
            assert (row["session_name"], row["batch_day"], row["session_key"]) == ("Race", "2024-03-17", 9005)
            assert row["driver_number"]
    assert [manifest.complete for _, manifest in manifests(tmp_path)] == [True, True]
    assert extract(mode="latest", sessions=2, naming="document").sessions_extracted == 0


def test_two_sessions_with_the_same_name_in_the_document_s_layout_are_not_mixed(
    server: Server, extract: Extract
) -> None:
    rows = [dict(row) for row in server.source.rows("sessions")]
    twin = {**rows[4], "session_key": 9995}
    assert isinstance(server.source, Season)
    server.source = replace(server.source, tables={**server.source.tables, "sessions": [*rows, twin]})
    with pytest.raises(BadRequest, match="same file names"):
        extract(mode="manual", session_keys=[9005, 9995], naming="document")


def test_compressed_files_hold_the_same_rows_and_the_same_bytes_each_time(extract: Extract, tmp_path: Path) -> None:
    extract(tmp_path / "plain", mode="manual", session_keys=[9002])
    extract(tmp_path / "one", mode="manual", session_keys=[9002], compressed=True)
    extract(tmp_path / "two", mode="manual", session_keys=[9002], compressed=True)
    packed = data_in(tmp_path / "one")
    assert packed == data_in(tmp_path / "two")
    unpacked = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in packed.items()}
    assert unpacked == data_in(tmp_path / "plain")
    assert {content[4:8] for content in packed.values()} == {bytes(4)}  # no time of writing in them


def test_the_order_of_the_api_does_not_change_the_files(server: Server, extract: Extract, tmp_path: Path) -> None:
    extract(tmp_path / "one", mode="manual", session_keys=[9002], entities=["laps", "stints", "race_control"])
    assert isinstance(server.source, Season)
    turned = {
        name: [dict(reversed(row.items())) for row in reversed(rows)] for name, rows in server.source.tables.items()
    }
    server.source = replace(server.source, tables=turned)
    extract(tmp_path / "two", mode="manual", session_keys=[9002], entities=["laps", "stints", "race_control"])
    assert data_in(tmp_path / "one") == data_in(tmp_path / "two")


# Not twice, and again


def test_a_complete_session_is_not_fetched_twice(server: Server, extract: Extract, tmp_path: Path) -> None:
    extract(mode="manual", session_keys=[9002])
    before = files_in(tmp_path)
    server.requests.clear()
    again = extract(mode="manual", session_keys=[9002])
    assert server.requests == {"sessions": 1}
    assert (again.sessions_extracted, again.files_count, again.sessions[0].status) == (0, 0, "kept")
    assert files_in(tmp_path) == before


def test_a_session_read_within_a_day_of_its_end_is_read_again(server: Server, extract: Extract, tmp_path: Path) -> None:
    early, inside, settled = (RACE_END + timedelta(hours=hours) for hours in (1, 20, 25))
    asked = {"mode": "manual", "session_keys": [9002], "entities": ["laps"]}
    assert extract(now=early, **asked).sessions[0].status == "extracted"
    assert extract(now=inside, **asked).sessions[0].status == "unchanged"
    assert isinstance(server.source, Season)
    server.source = server.source.corrected()
    corrected = extract(now=settled, **asked)
    assert corrected.sessions[0].status == "corrected"
    assert [(one.entity, one.added, one.changed, one.removed) for one in corrected.corrections] == [("laps", 1, 1, 1)]
    assert extract(now=settled + timedelta(hours=1), **asked).sessions[0].status == "kept"


def test_refresh_reads_all_again_and_reports_each_correction(server: Server, extract: Extract, tmp_path: Path) -> None:
    entities = ["laps", "session_result", "location"]
    extract(mode="year", year=2024, entities=entities)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("l*.json")}
    assert isinstance(server.source, Season)
    server.source = server.source.corrected()
    done = extract(mode="year", year=2024, entities=entities, refresh=True)
    found = {(one.session_key, one.entity): (one.added, one.changed, one.removed) for one in done.corrections}
    assert found == {(9002, "laps"): (1, 1, 1), (9002, "session_result"): (0, 1, 0)}
    (laps,) = [one for one in done.corrections if one.entity == "laps"]
    assert any("lap_duration" in example and "->" in example for example in laps.examples)
    assert done.sessions_extracted == 6
    assert "session 9002 laps: 1 added, 1 changed, 1 removed" in done.output_log
    touched = [path for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert [path.parent.name for path in touched] == ["session=9002"]  # what did not change was not written


def test_an_entity_that_became_empty_takes_its_file_along(server: Server, extract: Extract, tmp_path: Path) -> None:
    extract(mode="manual", session_keys=[9002], entities=["pit", "laps"])
    home = home_of(tmp_path, 9002)
    (home / "laps.json.gz").write_bytes(b"left by somebody")
    server.troubles.append(Trouble("empty", "pit"))
    done = extract(mode="manual", session_keys=[9002], entities=["pit", "laps"], refresh=True)
    assert sorted(path.name for path in home.iterdir()) == ["laps.json", "manifest.json", "sessions.json"]
    entry = manifest_of(tmp_path, 9002).entities["pit"]
    assert (entry.rows, entry.file, entry.sha256, entry.windows.empty) == (0, None, None, 1)
    assert [(one.entity, one.added, one.changed) for one in done.corrections] == [("pit", 0, 0)]
    assert done.corrections[0].removed > 0


def test_what_was_not_asked_for_before_is_fetched_alone(server: Server, extract: Extract, tmp_path: Path) -> None:
    extract(mode="manual", session_keys=[9002], entities=["laps"])
    server.requests.clear()
    extract(mode="manual", session_keys=[9002], entities=["laps", "pit"])
    assert server.requests == {"sessions": 1, "pit": 1}
    assert set(manifest_of(tmp_path, 9002).entities) == {"sessions", "laps", "pit"}


def test_a_file_that_went_missing_or_was_cut_is_fetched_again(extract: Extract, tmp_path: Path) -> None:
    extract(mode="manual", session_keys=[9002], entities=["laps", "pit"])
    whole = files_in(tmp_path)
    home = home_of(tmp_path, 9002)
    (home / "pit.json").unlink()
    (home / "laps.json").write_bytes(b"[")
    extract(mode="manual", session_keys=[9002], entities=["laps", "pit"])
    assert data_in(tmp_path) == {name: content for name, content in whole.items() if not name.endswith("manifest.json")}


# Telemetry


def test_a_gap_in_the_middle_does_not_end_the_fetch(server: Server, extract: Extract, season: Season) -> None:
    """Two hours without a point, then the second half: an earlier implementation stopped after three empty windows."""
    track = season.tracks[9002]
    gap = (track.start + timedelta(minutes=10), track.start + timedelta(minutes=130))
    long = replace(track, end=track.start + timedelta(hours=4), gap=gap)
    rows = [
        {**row, "date_end": long.end.isoformat()} if row["session_key"] == 9002 else row
        for row in season.rows("sessions")
    ]
    server.source = replace(season, tracks={9002: long}, tables={**season.tables, "sessions": rows})
    done = extract(mode="manual", session_keys=[9002])
    assert done.rows["location"] == server.source.telemetry("location", 9002).height
    assert done.windows.empty >= 7 * 8


def test_a_session_that_runs_late_is_followed_to_its_last_point(
    server: Server, extract: Extract, season: Season
) -> None:
    late = replace(season.tracks[9002], end=RACE_END + timedelta(hours=2), gap=None)
    server.source = replace(season, tracks={9002: late})
    done = extract(mode="manual", session_keys=[9002])
    assert done.rows["location"] == server.source.telemetry("location", 9002).height
    assert (
        f"{RACE_END + timedelta(hours=2):%H:%M}"
        < json.loads("[" + server.source.telemetry("location", 9002).tail(1).write_json()[1:])[0]["date"][11:16]
    )


def test_points_after_a_pause_at_the_end_are_fetched(server: Server, extract: Extract, season: Season) -> None:
    gap = (RACE_END - timedelta(minutes=20), RACE_END + timedelta(minutes=16))
    server.source = replace(
        season, tracks={9002: replace(season.tracks[9002], end=RACE_END + timedelta(minutes=21), gap=gap)}
    )
    points = server.source.telemetry("location", 9002)
    assert points["date"].max() > f"{RACE_END + timedelta(minutes=20):%Y-%m-%dT%H:%M}"
    assert extract(mode="manual", session_keys=[9002]).rows["location"] == points.height


def test_a_window_that_is_too_large_loses_nothing(
    server: Server, extract: Extract, tmp_path: Path, season: Season
) -> None:
    server.max_rows = 40
    done = extract(mode="manual", session_keys=[9002])
    assert done.windows.split > 0
    assert done.rows["location"] == season.telemetry("location", 9002).height
    stored = json.loads((home_of(tmp_path, 9002) / "location.json").read_text())
    assert as_sent(stored) == season.telemetry("location", 9002).to_dicts()


def test_laps_that_are_too_many_are_asked_for_by_driver(server: Server, extract: Extract, season: Season) -> None:
    server.troubles.append(Trouble("422", "laps"))
    done = extract(mode="manual", session_keys=[9002], entities=["laps", "drivers"])
    assert done.rows["laps"] == 78  # those without a start too, which a window of time would have lost
    assert server.requests["laps"] == 9


@pytest.mark.parametrize("entity", ["position", "intervals", "weather", "race_control", "pit"])
def test_other_rows_that_are_too_many_are_asked_for_by_time(
    server: Server, extract: Extract, season: Season, entity: str
) -> None:
    server.troubles.append(Trouble("422", entity, times=2))
    done = extract(mode="manual", session_keys=[9002], entities=[entity])
    assert done.rows[entity] == len([row for row in season.rows(entity) if row["session_key"] == 9002])
    assert server.requests[entity] == 4  # whole, two days, and each half of them


def test_telemetry_asks_for_all_drivers_even_where_only_laps_are_there(
    server: Server, extract: Extract, season: Season
) -> None:
    track = season.tracks[9001]
    more = replace(track, numbers=(*track.numbers, 50))  # a car that never completed a lap
    server.source = replace(season, tracks={9001: more})
    extract(mode="manual", session_keys=[9001], entities=["laps"])
    done = extract(mode="manual", session_keys=[9001], entities=["location"])
    assert done.rows["location"] == server.source.telemetry("location", 9001).height


def test_drivers_without_a_point_are_named(extract: Extract) -> None:
    done = extract(mode="manual", session_keys=[9001])
    assert "9001 location: no rows of drivers 50, 97" in done.output_log


def test_whoever_has_laps_has_telemetry_even_without_a_driver_row(
    server: Server, extract: Extract, season: Season
) -> None:
    fewer = [row for row in season.rows("drivers") if row["driver_number"] != 7]
    server.source = replace(season, tables={**season.tables, "drivers": fewer})
    assert extract(mode="manual", session_keys=[9002]).rows["location"] == season.telemetry("location", 9002).height


def test_a_session_without_drivers_is_said_to_be_one(server: Server, extract: Extract) -> None:
    server.troubles.append(Trouble("empty", times=None, endpoint="drivers"))
    server.troubles.append(Trouble("empty", times=None, endpoint="laps"))
    done = extract(mode="manual", session_keys=[9002])
    assert "9002 Montréal Race 2024-03-03: the API knows no driver of it" in done.output_log
    assert done.rows["location"] == 0


def test_memory_does_not_grow_with_the_session(tmp_path: Path) -> None:
    """80,000 points are some 50 MB as Python rows; one window of them is what may be held."""

    def peak_of(hertz: float) -> tuple[int, int]:
        big = generate(sessions=2, drivers=20, laps=15, hertz=hertz)
        with serve(big) as server, OpenF1(settings_of(server)) as client:
            big.telemetry("location", 9002)  # what the server holds is not what is measured
            tracemalloc.start()
            done = extract_sessions(
                client, tmp_path / str(hertz), mode="manual", session_keys=[9002], workers=1, now=LATER
            )
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return done.rows["location"], peak

    small, large = peak_of(0.3), peak_of(1.8)
    assert large[0] > 80_000 > 5 * small[0]
    assert large[1] < 16 * 2**20


# Real rows, and stand-ins of the same shape


@pytest.fixture(params=["made_up", pytest.param("real", marks=[pytest.mark.real_data, pytest.mark.slow])])
def race(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, dict[str, int]]:
    """(source, rows per entity) of one race with every point of its telemetry."""
    if request.param == "real":
        f1 = request.getfixturevalue("real_data") / "f1"
        counts = {"drivers": 20, "laps": 1_272, "pit": 42, "stints": 63, "location": 518_800}
        return Folders([f1 / "api", f1 / "location"]), counts
    made = generate(seed=9531, sessions=2, drivers=20, laps=40, hertz=1)
    counts = {
        name: len([row for row in made.rows(name) if row["session_key"] == 9002])
        for name in ("drivers", "laps", "pit", "stints")
    }
    return made, {**counts, "location": made.telemetry("location", 9002).height}


def test_a_whole_race_is_extracted_without_losing_a_point(race: tuple[Any, dict[str, int]], tmp_path: Path) -> None:
    source, counts = race
    key = 9531 if isinstance(source, Folders) else 9002
    with serve(source) as server, OpenF1(settings_of(server)) as client:
        done = extract_sessions(
            client, tmp_path, mode="manual", session_keys=[key], entities=["meetings", *counts], now=LATER
        )
    assert {name: done.rows[name] for name in counts} == counts
    assert done.windows.failed == 0
    stored = pl.read_json(home_of(tmp_path, key) / "location.json")
    sent = source.telemetry("location", key)
    columns = ["driver_number", "date", "x", "y", "z"]
    assert stored.select(columns).equals(sent.sort("driver_number", "date").select(columns))
    laps = pl.read_json(home_of(tmp_path, key) / "laps.json", infer_schema_length=None)
    assert laps.select(pl.struct("driver_number", "lap_number").n_unique()).item() == counts["laps"]
