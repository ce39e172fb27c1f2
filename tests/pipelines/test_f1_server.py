"""The local API answers as OpenF1 does: operators, ranges, lenient dates, refusals; and it misbehaves when it is told to."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines.f1.answers import Folders, conditions_of, matching
from pipelines.f1.season import Season, generate
from pipelines.f1.server import KINDS, TOKEN, Server, Trouble, serve

ROOT = Path(__file__).resolve().parents[2]
WINDOW = "location?session_key=9002&driver_number=7&date>=2024-03-03T18:00:00&date<2024-03-03T18:15:00"


@pytest.fixture(scope="module")
def running(season: Season) -> Iterator[Server]:
    with serve(season, now=lambda: datetime(2024, 3, 16, 12, tzinfo=UTC)) as server:
        yield server


@pytest.fixture
def server(running: Server, season: Season) -> Iterator[Server]:
    """The running server, as it was at the start."""
    running.source, running.live, running.max_rows, running.requests_per_span = season, False, 20_000, None
    for kept in (running.troubles, running.queries, running._recent):
        kept.clear()  # type: ignore[attr-defined]
    running.requests.clear()
    yield running


def get(server: Server, target: str, **headers: str) -> httpx.Response:
    """The target goes out as it is: httpx would encode the operators."""
    with httpx.Client(trust_env=False) as client:
        request = client.build_request("GET", server.address, headers=headers)
        request.extensions["target"] = f"/v1/{target}".encode()
        return client.send(request)


def rows(server: Server, target: str) -> list[dict[str, Any]]:
    answer = get(server, target)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def test_without_filters_all_rows_come(server: Server, season: Season) -> None:
    assert len(rows(server, "laps")) == len(season.rows("laps"))
    assert rows(server, "team_radio?session_key=9001") == [season.rows("team_radio")[0]]


def test_operators_stand_in_the_query_string(server: Server, season: Season) -> None:
    fast = [row for row in season.rows("laps") if row["session_key"] == 9002 and (row["lap_duration"] or 99) < 78]
    assert 0 < len(fast) == len(rows(server, "laps?session_key=9002&lap_duration<78"))
    for sign, kept in (("<", 2), ("<=", 3), ("=", 1), (">=", 10), (">", 9)):
        found = {row["lap_number"] for row in rows(server, f"laps?session_key=9001&driver_number=7&lap_number{sign}3")}
        assert len(found) == kept, sign


def test_an_encoded_operator_means_the_same(server: Server) -> None:
    assert rows(server, "laps?session_key=9001&lap_number%3E%3D12") == rows(
        server, "laps?session_key=9001&lap_number>=12"
    )


def test_a_repeated_field_means_or_and_different_fields_mean_and(server: Server) -> None:
    found = rows(server, "laps?session_key=9001&driver_number=7&driver_number=11&lap_number=2")
    assert sorted(row["driver_number"] for row in found) == [7, 11]
    assert len(rows(server, "location?session_key=9002&driver_number=7&driver_number=11")) == 2 * len(
        rows(server, "location?session_key=9002&driver_number=7")
    )


def test_two_bounds_make_a_range(server: Server) -> None:
    dates = [row["date"] for row in rows(server, WINDOW)]
    assert dates and min(dates) >= "2024-03-03T18:00:00" and max(dates) < "2024-03-03T18:15:00"
    bounded = rows(server, "laps?session_key=9001&lap_number>3&lap_number<=5")
    assert {row["lap_number"] for row in bounded} == {4, 5}


def test_a_bare_day_means_all_of_it(server: Server) -> None:
    on_day = {row["session_key"] for row in rows(server, "sessions?date_start=2024-03-03")}
    assert on_day == {9002}
    assert 9002 not in {row["session_key"] for row in rows(server, "sessions?date_start>2024-03-03")}
    assert 9002 in {row["session_key"] for row in rows(server, "sessions?date_start<=2024-03-03")}
    assert 9002 not in {row["session_key"] for row in rows(server, "sessions?date_start<2024-03-03")}


def test_latest_is_the_session_that_ran_last_not_one_to_come(server: Server) -> None:
    assert {row["session_key"] for row in rows(server, "drivers?session_key=latest")} == {9003}
    assert [row["meeting_key"] for row in rows(server, "meetings?meeting_key=latest")] == [1202]


def test_an_unknown_field_matches_nothing(server: Server) -> None:
    assert rows(server, "laps?limit=10") == []
    assert rows(server, "location?session_key=9002&limit=10") == []


def test_names_of_fields_may_have_capitals_and_values_are_decoded(server: Server) -> None:
    assert rows(server, "sessions?Location=S%C3%A3o%20Paulo&SESSION_NAME=Race")[0]["session_key"] == 9005


def test_nothing_compares_with_null_and_booleans_are_words(server: Server) -> None:
    assert all(row["lap_duration"] is not None for row in rows(server, "laps?lap_duration>0"))
    out = rows(server, "laps?is_pit_out_lap=true")
    assert out and all(row["is_pit_out_lap"] for row in out)


def test_a_plus_sign_in_a_time_arrives_as_a_blank(server: Server) -> None:
    # So the time is no time any more, and text is compared; clients send naive UTC.
    assert rows(server, "sessions?date_start=2024-03-03T18:00:00+00:00") == []
    assert len(rows(server, "sessions?date_start=2024-03-03T18:00:00%2B00:00")) == 1
    assert len(rows(server, "sessions?date_start=2024-03-03T18:00:00")) == 1


def test_telemetry_without_a_window_is_too_large(server: Server) -> None:
    server.max_rows = 1_000
    answer = get(server, "location?session_key=9002")
    assert answer.status_code == 422
    assert "reduce" in answer.json()["detail"]
    assert len(rows(server, WINDOW)) < 1_000
    server.max_rows = None
    assert len(rows(server, "location?session_key=9002")) == 2_093


def test_an_unknown_endpoint_is_not_found(server: Server) -> None:
    assert get(server, "lapz").status_code == 404


def test_csv_is_there_for_those_who_ask(server: Server) -> None:
    text = get(server, "drivers?session_key=9002&csv=true").text.splitlines()
    assert text[0].startswith("meeting_key,session_key,driver_number,")
    assert len(text) == 9
    assert len(get(server, f"{WINDOW}&csv=true").text.splitlines()) == len(rows(server, WINDOW)) + 1


def test_more_than_thirty_requests_in_ten_seconds_are_too_many(server: Server) -> None:
    server.requests_per_span = 30
    statuses = [get(server, "meetings").status_code for _ in range(32)]
    assert statuses == [200] * 30 + [429] * 2
    assert get(server, "meetings").headers["retry-after"] == "1"


def test_while_a_session_is_live_only_a_token_helps(server: Server) -> None:
    server.live = True
    refused = get(server, "laps?session_key=9001")
    assert refused.status_code == 200
    assert refused.json()["detail"].startswith("Session in progress")
    base = server.address.removesuffix("/v1")
    with httpx.Client(trust_env=False) as client:
        assert client.post(f"{base}/token", data={"username": "me", "password": "wrong"}).status_code == 401
        granted = client.post(f"{base}/token", data={"username": "me", "password": "password"}).json()
    assert granted["access_token"] == TOKEN and granted["expires_in"] and granted["token_type"] == "bearer"
    answer = get(server, "laps?session_key=9001", Authorization=f"Bearer {granted['access_token']}")
    assert isinstance(answer.json(), list)


def test_every_request_is_counted_by_endpoint(server: Server) -> None:
    server.troubles.append(Trouble("500", "laps"))
    for target in ("laps", "laps?lap_number=1", "pit", "nothing"):
        get(server, target)
    assert server.requests == {"laps": 2, "pit": 1, "nothing": 1}
    assert server.queries[1] == "laps?lap_number=1"


@pytest.mark.parametrize("kind", KINDS)
def test_each_trouble_comes_as_often_as_it_was_asked_for(server: Server, kind: str) -> None:
    server.troubles.append(Trouble(kind, "drivers", times=2, after=1, wait_s=0.2))
    good = get(server, "drivers").content
    assert len(rows(server, "meetings")) == 5  # another endpoint is not touched
    for _ in range(2):
        assert is_trouble(server, kind, good)
    assert get(server, "drivers").content == good


def is_trouble(server: Server, kind: str, good: bytes) -> bool:
    try:
        answer = get(server, "drivers")
    except httpx.RemoteProtocolError:
        return kind == "cut"
    status, body = answer.status_code, answer.content
    return {
        "429": status == 429 and answer.headers.get("retry-after") == "0.2",
        "422": status == 422,
        "500": status == 500,
        "slow": status == 200 and body == good and answer.elapsed.total_seconds() >= 0.2,
        "truncated": status == 200 and 0 < len(body) < len(good) and good.startswith(body),
        "cut": False,
        "live": status == 200 and b"Session in progress" in body,
        "empty": status == 200 and body == b"[]",
        "not_found": status == 404,
        "garbage": status == 200 and body.startswith(b"<html>"),
    }[kind]


def test_a_trouble_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no trouble is called 'fire'"):
        Trouble("fire")


@settings(max_examples=200, deadline=None)
@given(query=st.text(max_size=60) | st.from_regex(r"[a-z_]{1,12}(>=|<=|>|<|=)[^&]{0,20}(&date[<>]=?.{0,20})?"))
@pytest.mark.parametrize("endpoint", ["laps", "sessions", "location"])
def test_no_query_breaks_the_server(season: Season, endpoint: str, query: str) -> None:
    found = matching(season, endpoint, conditions_of(query), now=datetime(2024, 6, 1, tzinfo=UTC))
    assert found is not None


def test_the_command_prints_its_address_and_stops_when_told() -> None:
    command = [sys.executable, "-m", "pipelines.f1.server", "--port", "0", "--sessions", "1", "--trouble", "500:pit:1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with httpx.Client(trust_env=False) as client:
                assert len(client.get(f"{address}/sessions").json()) == 3
                assert [client.get(f"{address}/pit").status_code for _ in range(2)] == [500, 200]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(timeout=20) == 0
            finally:
                process.kill()  # nothing, when it has stopped


# Folders of rows as the world wrote them, and stand-ins of the same shape.


def made_up_rows(folder: Path) -> tuple[int, int, int]:
    """(drivers, laps, locations) of session 9531 in `folder`, in the file names and shapes of the real ones."""
    made = generate(seed=9531, drivers=20, laps=60, sessions=2, hertz=0.5)
    chance = random.Random(9531)
    (folder / "api").mkdir(parents=True)
    (folder / "laps").mkdir()
    keys = {"session_key": 9531, "meeting_key": 1237}
    counts = {}
    for endpoint in ("sessions", "meetings", "drivers", "laps", "pit", "stints", "weather"):
        source = 1201 if endpoint == "meetings" else 9002
        column = "meeting_key" if endpoint == "meetings" else "session_key"
        table = [{**row, **keys} for row in made.rows(endpoint) if row[column] == source]
        if endpoint == "meetings":
            table = [{name: value for name, value in row.items() if name != "session_key"} for row in table]
        chance.shuffle(table)
        (folder / "api" / f"{endpoint}_9531.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
        counts[endpoint] = len(table)
        if endpoint == "laps":  # the same rows lie there twice, as they do in the real folder
            (folder / "laps" / "laps_9531.json.gz").write_bytes(gzip.compress(json.dumps(table).encode()))
    points = made.telemetry("location", 9002).with_columns(session_key=pl.lit(9531), meeting_key=pl.lit(1237))
    (folder / "location").mkdir()
    (folder / "location" / "location_9531.json.gz").write_bytes(
        gzip.compress(points.sort("date").write_json().encode())
    )
    (folder / "car_data").mkdir()
    car = made.telemetry("car_data", 9002).with_columns(
        pl.col("date").str.to_datetime(time_zone="UTC"), session_key=pl.lit(9531), meeting_key=pl.lit(1237)
    )
    car.write_parquet(folder / "car_data" / "car_data_9531.parquet")
    return counts["drivers"], counts["laps"], points.height


@pytest.fixture(scope="module", params=["made_up", pytest.param("real", marks=pytest.mark.real_data)])
def folders(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Path], tuple[int, ...]]:
    if request.param == "real":
        f1 = request.getfixturevalue("real_data") / "f1"
        return [f1 / "api", f1 / "location", f1 / "car_data", f1 / "laps"], (20, 1_272, 518_800)
    folder = tmp_path_factory.mktemp("rows")
    return [folder], made_up_rows(folder)


def test_folders_of_rows_are_served_like_a_season(folders: tuple[list[Path], tuple[int, ...]]) -> None:
    paths, (drivers, laps, locations) = folders
    source = Folders(paths)
    with serve(source) as server:
        assert len(rows(server, "drivers?session_key=9531")) == drivers
        assert len(rows(server, "laps?session_key=9531")) == laps
        one = rows(server, "laps?session_key=9531&driver_number=7&driver_number=44&lap_number<=3")
        assert one and {row["lap_number"] for row in one} <= {1, 2, 3}
        (session,) = rows(server, "sessions?session_key=9531")
        assert session["location"] == "Montréal"
        assert get(server, "location?session_key=9531").status_code == (422 if locations > 20_000 else 200)
        number = rows(server, "drivers?session_key=9531")[0]["driver_number"]
        begin = session["date_start"][:13]
        window = f"session_key=9531&driver_number={number}&date>={begin}:10:00&date<{begin}:20:00"
        for endpoint, column in (("location", "x"), ("car_data", "speed")):
            points = rows(server, f"{endpoint}?{window}")
            assert points and all(point["driver_number"] == number for point in points)
            assert all(f"{begin}:10:00" <= point["date"] < f"{begin}:20:00" for point in points)
            assert all(isinstance(point[column], int) for point in points)
        server.max_rows = None
        assert len(rows(server, "location?session_key=9531")) == locations
        both = [(row["driver_number"], row["date"]) for row in rows(server, f"location?{window}&driver_number=44")]
        assert both == sorted(both)
        assert rows(server, "position?session_key=9531") == []
