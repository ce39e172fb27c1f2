"""Sessions into files: whole or not at all, not twice, read again while they are corrected, and healed after a failure."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import stamina.instrumentation
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipelines.f1 import extract_sessions as command
from pipelines.f1.answers import Folders
from pipelines.f1.corrections import compare, rows_of_file
from pipelines.f1.extract import Extraction, ExtractionIncomplete, extract_sessions
from pipelines.f1.fetching import ENTITIES, Step
from pipelines.f1.landing import Layout, Manifest, Part, Session, chunk_of, manifests
from pipelines.f1.openf1 import ApiUnavailable, BadRequest, OpenF1, OpenF1Error, SessionInProgress, Settings
from pipelines.f1.season import Season, generate
from pipelines.f1.server import Server, Trouble, serve

ROOT = Path(__file__).resolve().parents[2]
Extract = Callable[..., Extraction]
RACE_END = datetime(2024, 3, 3, 19, tzinfo=UTC)  # session 9002
LATER = datetime(2024, 12, 1, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def quiet_retries() -> Iterator[None]:
    stamina.instrumentation.set_on_retry_hooks([])
    yield
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.fixture(scope="module")
def season() -> Season:
    return generate()


@pytest.fixture
def server(season: Season) -> Iterator[Server]:
    with serve(season) as running:
        yield running


def settings_of(server: Server) -> Settings:
    return Settings(base_url=server.address, requests_per_span=None, wait_s=0.005, jitter_s=0, attempts=3, timeout_s=10)


@pytest.fixture
def extract(server: Server, tmp_path: Path) -> Iterator[Extract]:
    """extract_sessions with a client of the server, into `tmp_path`, in December."""
    with OpenF1(settings_of(server)) as client:

        def go(folder: Path = tmp_path, **wish: Any) -> Extraction:
            return extract_sessions(client, folder, **{"now": LATER, **wish})

        yield go


def manifest_of(folder: Path, key: int) -> Manifest:
    (found,) = [manifest for _, manifest in manifests(folder) if manifest.session_key == key]
    return found


def home_of(folder: Path, key: int) -> Path:
    (found,) = folder.glob(f"year=*/meeting=*/session={key}")
    return found


def files_in(folder: Path) -> dict[str, bytes]:
    """Every visible file below `folder`, and its bytes."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    shown = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in shown}


def data_in(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_in(folder).items() if not name.endswith("manifest.json")}


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


def test_a_session_is_five_files_and_a_manifest(extract: Extract, tmp_path: Path, season: Season) -> None:
    done = extract(mode="manual", session_keys=[9002])
    assert (done.sessions_extracted, done.files_count) == (1, 5)
    home = tmp_path / "year=2024" / "meeting=1201" / "session=9002"
    names = {"sessions.json", "meetings.json", "drivers.json", "laps.json", "location.json", "manifest.json"}
    assert {path.name for path in home.iterdir()} == names
    for entity in ("laps", "drivers"):
        sent = [row for row in season.rows(entity) if row["session_key"] == 9002]
        stored = json.loads((home / f"{entity}.json").read_text(encoding="utf-8"))
        key = ENTITIES[entity]
        assert stored == sorted(sent, key=lambda row: [row[name] for name in key])
    points = season.telemetry("location", 9002)
    assert json.loads((home / "location.json").read_text()) == points.to_dicts()
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
    assert (
        json.loads((home_of(tmp_path, 9002) / "location.json").read_text())
        == season.telemetry("location", 9002).to_dicts()
    )


def test_laps_that_are_too_many_are_asked_for_by_driver(server: Server, extract: Extract, season: Season) -> None:
    server.troubles.append(Trouble("422", "laps"))
    done = extract(mode="manual", session_keys=[9002], entities=["laps", "drivers"])
    assert done.rows["laps"] == 78  # those without a start too, which a window of time would have lost
    assert server.requests["laps"] == 9


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
    """120,000 points are some 100 MB as Python rows; one window of them is what may be held."""

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
    assert large[0] > 100_000 > 5 * small[0]
    assert large[1] < 16 * 2**20


# Failing and going on


def kill_api_after(server: Server, good: int) -> None:
    server.troubles.append(Trouble("500", "location", times=None, after=good))


def test_the_api_dies_midway_and_the_next_run_asks_for_the_rest_only(
    server: Server, extract: Extract, tmp_path: Path, season: Season
) -> None:
    kill_api_after(server, 20)
    with pytest.raises(ApiUnavailable) as caught:
        extract(mode="manual", session_keys=[9002])
    assert "stays aside" in caught.value.state and len(str(caught.value).splitlines()) == 4
    assert server.requests["location"] <= 20 + 3 * 10  # three windows failed, some were on their way: then it gave up
    manifest, home = manifest_of(tmp_path, 9002), home_of(tmp_path, 9002)
    assert not manifest.complete and "location" in manifest.missing
    assert [path.name for path in home.iterdir()] == ["manifest.json"]  # nothing else is visible

    server.troubles.clear()
    server.requests.clear()
    done = extract(mode="manual", session_keys=[9002])
    assert server.requests == {"sessions": 1, "location": 64 - 20}
    assert done.windows.resumed == 20 + 4
    assert done.rows["location"] == season.telemetry("location", 9002).height
    assert manifest_of(tmp_path, 9002).complete
    extract(tmp_path / "undisturbed", mode="manual", session_keys=[9002])
    assert data_in(home) == data_in(home_of(tmp_path / "undisturbed", 9002))


def test_one_window_that_fails_for_good_leaves_the_session_incomplete_and_the_others_whole(
    server: Server, extract: Extract, tmp_path: Path, season: Season
) -> None:
    server.troubles.append(Trouble("500", "location", times=3, after=10))
    with pytest.raises(ExtractionIncomplete, match="9001") as caught:
        extract(mode="oldest", sessions=2, workers=1)
    done = caught.value.extraction
    assert [(one.session_key, one.status) for one in done.sessions] == [(9001, "incomplete"), (9002, "extracted")]
    assert done.windows.failed == 1
    assert manifest_of(tmp_path, 9001).missing[0].startswith("location ")
    server.requests.clear()
    healed = extract(mode="oldest", sessions=2)
    assert server.requests == {"sessions": 2, "location": 1}
    assert healed.rows["location"] == season.telemetry("location", 9001).height


def test_failures_here_and_there_do_not_mean_that_the_api_is_down(server: Server, extract: Extract) -> None:
    server.troubles += [Trouble("500", "location", times=3, after=after) for after in (5, 15, 25)]
    with pytest.raises(ExtractionIncomplete) as caught:
        extract(mode="manual", session_keys=[9002], workers=1)
    assert caught.value.extraction.windows.failed == 3
    assert extract(mode="manual", session_keys=[9002]).windows.resumed == 61 + 4


def test_a_failed_second_reading_leaves_the_first_one_standing(
    server: Server, extract: Extract, tmp_path: Path
) -> None:
    extract(mode="manual", session_keys=[9002])
    before = files_in(tmp_path)
    kill_api_after(server, 5)
    with pytest.raises(ApiUnavailable):
        extract(mode="manual", session_keys=[9002], refresh=True)
    assert files_in(tmp_path) == before


def test_a_live_session_is_retry_later_and_costs_nothing(server: Server, extract: Extract, tmp_path: Path) -> None:
    server.troubles.append(Trouble("live", "location", after=7, times=None))
    with pytest.raises(SessionInProgress) as caught:
        extract(mode="manual", session_keys=[9002])
    assert "stays aside" in caught.value.state
    assert not manifest_of(tmp_path, 9002).complete
    server.troubles.clear()
    assert extract(mode="manual", session_keys=[9002]).windows.resumed >= 7


def test_windows_of_an_old_attempt_or_of_other_times_are_not_taken_up(server: Server, extract: Extract) -> None:
    kill_api_after(server, 20)
    with pytest.raises(ApiUnavailable):
        extract(mode="manual", session_keys=[9002])
    server.troubles.clear()
    server.requests.clear()
    done = extract(mode="manual", session_keys=[9002], now=LATER + timedelta(hours=25))
    assert (done.windows.resumed, server.requests["location"]) == (0, 64)


def test_what_an_attempt_left_half_written_is_dropped(tmp_path: Path) -> None:
    cost = {"api_s": 0.1, "requests": 1, "retries": 0, "splits": 0}
    with Part(tmp_path, "laps") as part:
        for number in range(3):
            part.add(f"{number}", chunk_of([{"n": number}], ("n",), "session"), rows=1, **cost)
    for damage in (b"half a row", b""):
        with (tmp_path / "laps.part").open("ab") as file:
            file.write(damage)
        with Part(tmp_path, "laps") as part:
            assert list(part.pieces) == ["0", "1", "2"]
            part.assemble(["2", "0"], tmp_path / "laps.json")
        assert json.loads((tmp_path / "laps.json").read_text()) == [{"n": 2}, {"n": 0}]
    content = (tmp_path / "laps.part").read_bytes()
    (tmp_path / "laps.part").write_bytes(content[:8] + b"X" + content[9:])  # a bad byte in the second row
    with Part(tmp_path, "laps") as part:
        assert list(part.pieces) == ["0"]
        part.add("1", chunk_of([{"n": 1}], ("n",), "session"), rows=1, **cost)
    with Part(tmp_path, "laps") as part:
        assert list(part.pieces) == ["0", "1"]


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_a_kill_at_any_moment_leaves_whole_files_and_is_healed(
    server: Server, extract: Extract, tmp_path: Path, delay_s: float
) -> None:
    folder = tmp_path / "killed"
    arguments = ["--mode", "manual", "--session-key", "9002", "--folder", str(folder), "--api-url", server.address]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    program = [sys.executable, "-m", "pipelines.f1.extract_sessions", *arguments]
    with subprocess.Popen(
        program, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        give_up_at = time.monotonic() + 60
        while not server.requests["drivers"] and process.poll() is None and time.monotonic() < give_up_at:
            time.sleep(0.002)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
    for name, content in data_in(folder).items():
        assert json.loads(content), name
    extract(folder, mode="manual", session_keys=[9002])
    extract(tmp_path / "undisturbed", mode="manual", session_keys=[9002])
    assert data_in(folder) == data_in(tmp_path / "undisturbed")
    assert manifest_of(folder, 9002).complete


def test_a_kill_between_the_renames_says_so_and_needs_no_request(
    server: Server, extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(mode="manual", session_keys=[9002], entities=["laps", "session_result"])
    assert isinstance(server.source, Season)
    server.source = server.source.corrected()

    def power_cut(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.f1.publishing.sync_folder", power_cut)
        with pytest.raises(SystemExit):
            extract(mode="manual", session_keys=[9002], entities=["laps", "session_result"], refresh=True)
    assert not manifest_of(tmp_path, 9002).complete
    server.requests.clear()
    extract(mode="manual", session_keys=[9002], entities=["laps", "session_result"])
    assert server.requests == {"sessions": 1}
    assert manifest_of(tmp_path, 9002).complete
    assert len(json.loads((home_of(tmp_path, 9002) / "laps.json").read_text())) == 78


def test_two_extractions_do_not_work_in_one_folder(extract: Extract, tmp_path: Path) -> None:
    def second(step: Step) -> None:
        with pytest.raises(OpenF1Error, match="Another extraction"):
            extract(mode="latest", entities=["sessions"])
        seen.append(step)

    seen: list[Step] = []
    extract(mode="latest", entities=["sessions"], progress=second)
    assert seen


def test_a_full_disk_is_an_error_of_four_lines(
    extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "laps.json"))

    monkeypatch.setattr(Part, "assemble", full)
    with pytest.raises(OpenF1Error, match="No space left on device") as caught:
        extract(mode="latest")
    assert len(str(caught.value).splitlines()) == 4


def test_progress_counts_the_windows(extract: Extract) -> None:
    steps: list[Step] = []
    extract(mode="manual", session_keys=[9002], progress=steps.append)
    windows = [step for step in steps if step.entity == "location" and not step.final]
    assert [step.done for step in windows[:64]] == list(range(1, 65))
    assert {step.total for step in windows} == {64}
    assert windows[-1].rows == 2_093


# Hostile rows


NAMES = (
    st.none()
    | st.text(max_size=300)
    | st.sampled_from(["../../etc", "a/b", "..", "C:\\x", "São Paulo", "\n\t", "É" * 200])
)


@settings(max_examples=300, deadline=None)
@given(
    keys=st.tuples(*[st.integers(0, 10**8)] * 3),
    location=NAMES,
    name=NAMES,
    offset=st.none() | st.text(max_size=8) | st.just("-04:00:00"),
)
def test_a_session_s_files_stay_in_its_folder_whatever_the_api_says(
    keys: tuple[int, ...], location: str | None, name: str | None, offset: str | None
) -> None:
    row = dict(zip(("session_key", "meeting_key", "year"), keys, strict=True))
    times = {"date_start": "2024-06-09 18:00:00", "date_end": "2024-06-09T20:00:00+00:00"}
    session = Session.of({**row, **times, "location": location, "session_name": name, "gmt_offset": offset})
    root = Path("/somewhere")
    assert session.batch_day == "2024-06-09" and session.local_day
    for naming in ("session", "document"):
        layout = Layout(root, naming)  # type: ignore[arg-type]
        for path in (layout.file(session, "laps"), layout.manifest(session), layout.aside(session)):
            assert path.is_relative_to(root) and ".." not in path.parts
            assert len(path.name.encode("utf-8", errors="replace")) < 200
        file = layout.file(session, "laps")
        assert file.parent == layout.home(session)
        assert file.name.startswith("laps") and file.name.isprintable() and not set(file.name) & set(' /\\:*?"<>|')


ODD_KEY = st.none() | st.booleans() | st.integers(max_value=-1) | st.integers(min_value=10**9) | st.text() | st.floats()


@settings(max_examples=200, deadline=None)
@given(column=st.sampled_from(["session_key", "meeting_key", "year", "date_start", "date_end"]), value=ODD_KEY)
def test_a_session_whose_keys_or_times_cannot_be_used_is_left_out(column: str, value: Any) -> None:
    good = {"session_key": 1, "meeting_key": 2, "year": 2024, "date_start": "2024-06-09", "date_end": "2024-06-10"}
    assert Session.of(good).key == 1
    if column.startswith("date"):
        value = f"x{value}"
    with pytest.raises(ValueError, match="session"):
        Session.of({**good, column: value})


def test_half_a_character_becomes_a_question_mark_and_not_an_error() -> None:
    assert chunk_of([{"message": "\ud800!"}], ("message",), "session") == b'{"message":"?!"}'


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["driver_number", "lap_number", "x", "é\n]},"]), VALUES, max_size=4), min_size=1
    ),
    naming=st.sampled_from(["session", "document"]),
    shuffled=st.randoms(use_true_random=False),
)
def test_odd_rows_are_written_sorted_and_read_back_as_they_are(
    rows: list[dict[str, Any]], naming: Any, shuffled: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chunk = chunk_of(rows, ENTITIES["laps"], naming)
    other = list(rows)
    shuffled.shuffle(other)
    assert chunk_of(other, ENTITIES["laps"], naming) == chunk
    path = tmp_path_factory.getbasetemp() / "odd.json"
    path.write_bytes(b"[\n" + chunk + b"\n]\n")
    back = list(rows_of_file(path))
    assert back == json.loads(path.read_bytes())
    assert sorted(map(repr, back)) == sorted(repr(dict(sorted(row.items()))) for row in rows)


@settings(max_examples=150, deadline=None)
@given(
    old=st.dictionaries(st.tuples(st.integers(1, 3), st.integers(1, 9)), st.integers(0, 3)),
    new=st.dictionaries(st.tuples(st.integers(1, 3), st.integers(1, 9)), st.integers(0, 3)),
)
def test_corrections_are_the_difference_of_two_sets(
    old: dict[tuple[int, int], int], new: dict[tuple[int, int], int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    paths = []
    for name, content in (("old", old), ("new", new)):
        rows = [{"driver_number": driver, "lap_number": lap, "x": x} for (driver, lap), x in content.items()]
        path = tmp_path_factory.getbasetemp() / f"{name}.json"
        path.write_bytes(b"[\n" + chunk_of(rows, ENTITIES["laps"], "session") + b"\n]\n")
        paths.append(path)
    found = compare(1, "laps", *paths, ENTITIES["laps"])
    changed = sum(old[key] != new[key] for key in old.keys() & new.keys())
    assert (found.added, found.changed, found.removed) == (
        len(new.keys() - old.keys()),
        changed,
        len(old.keys() - new.keys()),
    )


@pytest.mark.parametrize("text", ["", "{}", "[", '[{"a": 1}', '[{"a": 1},', '[{"a": 1} {', "nothing"])
def test_a_file_that_breaks_off_is_not_read_as_if_it_were_whole(tmp_path: Path, text: str) -> None:
    path = tmp_path / "laps.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"no JSON array|breaks off"):
        list(rows_of_file(path))


def test_a_damaged_manifest_is_an_error_that_names_it(extract: Extract, tmp_path: Path) -> None:
    extract(mode="manual", session_keys=[9002], entities=["laps"])
    path = home_of(tmp_path, 9002) / "manifest.json"
    for text in ("", "[]", "{}", '{"format": 99}'):
        path.write_text(text)
        with pytest.raises(OpenF1Error, match="manifest cannot be read") as caught:
            extract(mode="manual", session_keys=[9002], entities=["laps"])
        assert caught.value.where == str(path)


# The command


def test_the_command_extracts_shows_progress_and_gives_json(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("F1_API_URL", server.address)
    server.troubles.append(Trouble("429", "drivers", wait_s=0.01))
    assert command.main(["--mode", "latest", "--num-sessions", "2", "--folder", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    done = json.loads(said.out)
    assert (done["sessions_extracted"], done["files_count"], done["extraction_mode"], done["retries"]) == (
        2,
        10,
        "latest",
        1,
    )
    assert "9006 Las Vegas Race 2024-04-01: extracted, 5 files" in said.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--mode", "newest"], 2),
        (["--num-sessions", "many"], 2),
        (["--mode", "manual"], 2),
        (["--entities", "lapz"], 2),
        (["--mode", "manual", "--session-key", "1"], 2),
        (["--api-url", "nowhere"], 2),
        (["--mode", "latest"], 1),
    ],
)
def test_the_command_fails_in_four_lines(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    server.live = arguments == ["--mode", "latest"]
    assert command.main(["--api-url", server.address, "--folder", str(tmp_path), *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 4 and all(lines) and "Traceback" not in said.err


def test_the_command_writes_the_document_s_layout(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["--api-url", server.address, "--naming", "document"]) == 0
    assert len(list((tmp_path / "local_test_data").glob("*.json"))) == 4


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
