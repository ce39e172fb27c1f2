"""The synthetic season: the same rows every time, with the shapes and the faults that the real API has."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from pipelines.f1.season import ENDPOINTS, Season, entrants, generate

Row = dict[str, Any]

KEYS = {"meeting_key", "session_key"}
PLACE = {
    *("gmt_offset", "location", "country_key", "country_code", "country_name", "circuit_key", "circuit_short_name"),
}
FIELDS = {
    "sessions": {*KEYS, *PLACE, "session_name", "session_type", "date_start", "date_end", "year", "is_cancelled"},
    "meetings": {
        *("meeting_key", "meeting_name", "meeting_official_name", "date_start", "date_end", "year", "is_cancelled"),
        *("country_flag", "circuit_type", "circuit_image", "circuit_info_url"),
        *PLACE,
    },
    "drivers": {
        *("driver_number", "broadcast_name", "full_name", "first_name", "last_name", "name_acronym", "team_name"),
        *("team_colour", "headshot_url", "country_code"),
        *KEYS,
    },
    "laps": {
        *("driver_number", "lap_number", "date_start", "lap_duration", "duration_sector_1", "duration_sector_2"),
        *("duration_sector_3", "i1_speed", "i2_speed", "st_speed", "is_pit_out_lap", "segments_sector_1"),
        *("segments_sector_2", "segments_sector_3"),
        *KEYS,
    },
    "position": {*KEYS, "date", "driver_number", "position"},
    "intervals": {*KEYS, "date", "driver_number", "gap_to_leader", "interval"},
    "pit": {*KEYS, "date", "driver_number", "lap_number", "pit_duration", "lane_duration", "stop_duration"},
    "stints": {
        *("driver_number", "stint_number", "lap_start", "lap_end", "compound", "tyre_age_at_start"),
        *KEYS,
    },
    "weather": {
        *("date", "air_temperature", "track_temperature", "humidity", "pressure", "rainfall", "wind_direction"),
        *("wind_speed", *KEYS),
    },
    "race_control": {
        *("date", "category", "flag", "scope", "sector", "driver_number", "lap_number", "message", "qualifying_phase"),
        *KEYS,
    },
    "team_radio": {*KEYS, "date", "driver_number", "recording_url"},
    "overtakes": {*KEYS, "date", "overtaking_driver_number", "overtaken_driver_number", "position"},
    "starting_grid": {*KEYS, "position", "driver_number", "lap_duration"},
    "location": {*KEYS, "date", "driver_number", "x", "y", "z"},
    "car_data": {*KEYS, "date", "driver_number", "speed", "rpm", "n_gear", "throttle", "brake", "drs"},
}
RESULT = {*KEYS, "position", "driver_number", "number_of_laps", "dnf", "dns", "dsq", "duration", "gap_to_leader"}


def of(season: Season, endpoint: str, session_key: int) -> list[Row]:
    return [row for row in season.rows(endpoint) if row["session_key"] == session_key]


def keys_of(season: Season, name: str) -> list[int]:
    return [row["session_key"] for row in season.rows("sessions") if row["session_name"] == name]


def best_laps(season: Season, session_key: int) -> dict[int, list[float]]:
    """driver -> its valid lap times, shortest first."""
    found = defaultdict(list)
    for row in of(season, "laps", session_key):
        if row["lap_duration"] is not None and not row["is_pit_out_lap"]:
            found[row["driver_number"]].append(row["lap_duration"])
    return {driver: sorted(times) for driver, times in found.items()}


def test_the_same_seed_gives_the_same_season_and_another_seed_another(season: Season) -> None:
    assert {name: season.rows(name) for name in ENDPOINTS} == {name: generate().rows(name) for name in ENDPOINTS}
    assert generate(seed=7).rows("laps") != season.rows("laps")


def test_a_car_more_leaves_the_laps_of_the_others_as_they_were(season: Season) -> None:
    def of_seven(one: Season) -> list[Row]:
        return [row for row in of(one, "laps", 9001) if row["driver_number"] == 7]

    assert of_seven(generate(drivers=12)) == of_seven(season)


@pytest.mark.parametrize("endpoint", sorted(FIELDS))
def test_rows_have_the_field_names_of_the_api(season: Season, endpoint: str) -> None:
    rows = season.rows(endpoint)
    assert rows
    assert {frozenset(row) for row in rows} == {frozenset(FIELDS[endpoint])}
    json.dumps(rows, allow_nan=False)


def test_results_have_lists_in_qualifying_and_points_in_races(season: Season) -> None:
    qualifying, race = (of(season, "session_result", key) for key in (9001, 9002))
    assert {frozenset(row) for row in qualifying} == {frozenset(RESULT)}
    assert {frozenset(row) for row in race} == {frozenset(RESULT | {"points"})}
    assert all(len(row["duration"]) == len(row["gap_to_leader"]) == 3 for row in qualifying)
    assert [row["position"] for row in race if row["position"]] == list(range(1, 7))
    assert race[0]["points"] == 25 and race[0]["gap_to_leader"] == 0
    lapped = [row for row in race if row["position"] and row["number_of_laps"] < race[0]["number_of_laps"]]
    assert [row["gap_to_leader"] for row in lapped] == ["+1 LAP"]
    assert sum(row["dnf"] for row in race) == 1
    assert sum(row["dns"] for row in race) == 1


def test_six_sessions_are_over_one_was_called_off_and_one_is_to_come(season: Season) -> None:
    rows = season.rows("sessions")
    assert len(rows) == 8
    assert [row["session_key"] for row in rows if row["is_cancelled"]] == [9007]
    future = [row for row in rows if row["date_start"] > "2030"]
    assert [row["session_key"] for row in future] == [9008]
    assert not [
        row for name in ("laps", "drivers", "weather") for row in season.rows(name) if row["session_key"] > 9006
    ]


def test_there_are_several_meetings_and_a_sprint_weekend(season: Season) -> None:
    names = [row["session_name"] for row in season.rows("sessions")[:6]]
    assert names == ["Qualifying", "Race", "Sprint Qualifying", "Sprint", "Race", "Race"]
    assert len(season.rows("meetings")) == 5
    types = {row["session_name"]: row["session_type"] for row in season.rows("sessions")}
    assert (types["Sprint"], types["Sprint Qualifying"]) == ("Race", "Qualifying")
    assert [row["session_name"] for row in generate(year=2023).rows("sessions")][2] == "Sprint Shootout"


def test_locations_are_not_ascii(season: Season) -> None:
    assert {"Montréal", "São Paulo"} <= {row["location"] for row in season.rows("sessions")}


def test_a_night_race_has_another_date_at_the_track_than_in_utc(season: Season) -> None:
    (night,) = [row for row in season.rows("sessions") if row["location"] == "Las Vegas"]
    assert night["gmt_offset"] == "-08:00:00"
    start = datetime.fromisoformat(night["date_start"])
    assert (start - timedelta(hours=8)).date() != start.date()


def test_a_number_is_shared_and_a_person_has_two_and_a_team_is_left(season: Season) -> None:
    names, numbers, teams = defaultdict(set), defaultdict(set), defaultdict(list)
    for row in season.rows("drivers"):
        names[row["driver_number"]].add(row["full_name"])
        numbers[row["full_name"]].add(row["driver_number"])
        if row["team_name"] not in teams[row["full_name"]]:
            teams[row["full_name"]].append(row["team_name"])
    assert names[40] == {"Mikael ÖSTBERG", "Rafael IBÁÑEZ"}
    assert numbers["Mikael ÖSTBERG"] == {40, 30}
    assert teams["Piet VAN DER BERG"] == ["Mercedes", "Ferrari"]


def test_nobody_drives_two_cars(season: Season) -> None:
    for meeting in range(4):
        cars = entrants(meeting, 20)
        assert len({car.number for car in cars}) == len({(car.first_name, car.last_name) for car in cars}) == 20
        assert max(Counter(car.team for car in cars).values()) == 2
        assert all(1 <= car.number <= 99 for car in cars)


def test_best_laps_are_tied_for_the_lead_and_further_down(season: Season) -> None:
    (race,) = [row["session_key"] for row in season.rows("sessions")[:6] if row["location"] == "São Paulo"][2:]
    best = sorted(times[0] for times in best_laps(season, race).values())
    assert best[0] == best[1] < best[2]
    assert best[4] == best[5]
    twice = [times for times in best_laps(season, race).values() if times[0] == times[1]]
    assert len(twice) == 1


def test_a_red_flag_stops_the_race_and_makes_a_lap_of_forty_minutes(season: Season) -> None:
    assert [row["flag"] for row in of(season, "race_control", 9002)].count("RED") == 1
    assert max(row["lap_duration"] or 0 for row in of(season, "laps", 9002)) > 2_400
    assert max(row["lane_duration"] for row in of(season, "pit", 9002)) > 2_300
    assert not [row for row in of(season, "race_control", 9005) if row["flag"] == "RED"]
    sent = season.telemetry("location", 9002)["date"].str.to_datetime(time_zone="UTC").sort().diff().max()
    assert isinstance(sent, timedelta) and timedelta(minutes=39) < sent < timedelta(minutes=41)


def test_timekeepers_leave_times_and_speeds_out(season: Season) -> None:
    laps = season.rows("laps")
    for column in ("lap_duration", "date_start", "duration_sector_1", "i1_speed", "st_speed"):
        assert 0 < sum(row[column] is None for row in laps) < len(laps) / 4, column
    assert any(row["segments_sector_1"] == [] for row in laps)
    assert any(None in row["segments_sector_2"] for row in laps)


def test_the_sectors_of_a_few_laps_do_not_add_up(season: Season) -> None:
    def delta_ms(row: Row) -> int | None:
        parts = [row["lap_duration"], *(row[f"duration_sector_{n}"] for n in (1, 2, 3))]
        return None if None in parts else round(1000 * (parts[0] - sum(parts[1:])))

    deltas = [delta for row in season.rows("laps") if (delta := delta_ms(row)) is not None]
    off = [delta for delta in deltas if delta]
    assert 0 < len(off) < len(deltas) / 10


def test_some_stints_cannot_be_and_some_drivers_are_of_another_series(season: Season) -> None:
    stints = season.rows("stints")
    assert [row for row in stints if row["driver_number"] is None and row["lap_end"] == 0]
    assert [row for row in stints if row["driver_number"] and row["lap_end"] < row["lap_start"]]
    others = [row for row in season.rows("drivers") if row["team_name"] is None]
    assert others and all(row["country_code"] is None and row["headshot_url"] is None for row in others)
    driven = {(row["session_key"], row["driver_number"]) for row in season.rows("laps")}
    assert not driven & {(row["session_key"], row["driver_number"]) for row in others}


def test_a_lapped_car_has_a_gap_in_laps_and_the_leader_none(season: Season) -> None:
    gaps = [row["gap_to_leader"] for row in season.rows("intervals")]
    assert "+1 LAP" in gaps
    assert None in gaps
    assert any(isinstance(gap, float) for gap in gaps)


def test_times_leave_the_fraction_out_when_it_is_zero(season: Season) -> None:
    starts = [row["date_start"] for row in season.rows("laps") if row["date_start"]]
    assert {len(text) for text in starts} == {len("2024-03-02T18:00:00+00:00"), len("2024-03-02T18:00:00.123000+00:00")}
    dates = season.telemetry("location", 9002)["date"]
    assert set(dates.str.len_chars()) == {25, 32}


@pytest.mark.parametrize(
    ("endpoint", "key"),
    [
        ("sessions", ["session_key"]),
        ("drivers", ["session_key", "driver_number"]),
        ("laps", ["session_key", "driver_number", "lap_number"]),
        ("location", ["session_key", "driver_number", "date"]),
        ("car_data", ["session_key", "driver_number", "date"]),
        ("session_result", ["session_key", "driver_number"]),
        ("starting_grid", ["session_key", "position"]),
    ],
)
def test_natural_keys_are_unique(season: Season, endpoint: str, key: list[str]) -> None:
    rows = season.rows(endpoint)
    assert len({tuple(row[name] for name in key) for row in rows}) == len(rows)


def test_telemetry_has_the_values_that_mean_nothing(season: Season) -> None:
    car = pl.concat([season.telemetry("car_data", key) for key in season.tracks])
    assert car.filter(pl.col("throttle") == 104).height and car.filter(pl.col("brake") == 104).height
    assert car.filter(pl.col("n_gear") == 56).height
    usual = car.filter(pl.col("throttle") <= 100, pl.col("n_gear") <= 8)
    assert usual.height > 0.95 * car.height
    nowhere = season.telemetry("location", 9002).filter(x=0, y=0, z=0)
    assert 0 < nowhere.height < 5


def test_the_later_season_has_one_lap_changed_one_more_and_one_less(season: Season) -> None:
    later = season.corrected()
    before, after = (
        {(row["driver_number"], row["lap_number"]): row for row in of(one, "laps", season.corrected_session)}
        for one in (season, later)
    )
    changed = [key for key in before.keys() & after.keys() if before[key] != after[key]]
    assert (len(after.keys() - before.keys()), len(changed), len(before.keys() - after.keys())) == (1, 1, 1)
    assert season.corrections["laps"] == (1, 1, 1)
    elsewhere = [row for row in season.rows("laps") if row["session_key"] != season.corrected_session]
    assert elsewhere == [row for row in later.rows("laps") if row["session_key"] != season.corrected_session]
    assert len([row for row in later.rows("session_result") if row["dsq"]]) == 1
    assert not [row for row in season.rows("session_result") if row["dsq"]]


def test_it_grows_to_the_size_of_real_seasons() -> None:
    large = generate(sessions=50, drivers=20, laps=60, hertz=3.7)
    assert len([row for row in large.rows("sessions") if not row["is_cancelled"]]) == 51
    assert len({row["session_key"] for row in large.rows("laps")}) == 50
    assert len(large.rows("laps")) > 50_000
    points = large.telemetry("location", 9002)
    assert points.height > 300_000
    assert points.select(pl.struct("driver_number", "date").n_unique()).item() == points.height


@pytest.mark.parametrize("wrong", [{"sessions": 0}, {"drivers": 5}, {"drivers": 21}, {"laps": 3}, {"hertz": 0}])
def test_a_size_that_makes_no_season_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="need sessions"):
        generate(**wrong)
