"""A small synthetic season in the shape of OpenF1, the same one for the same seed.

    season = generate(seed=2024)
    season.rows("laps")                      # plain dicts with the API's own field names
    season.telemetry("location", 9001)       # a polars frame: these two endpoints can have millions of rows
    season.corrected()                       # the season after the stewards and the timekeepers went over it

meeting     a weekend; every second one has a sprint
entrant     a person in a car in a session: number, person, team. Numbers are shared, persons change numbers and teams

What real data does, this one does: red flags, laps without a time, a night race whose UTC date is not the local one,
best laps that are tied, stints that cannot be, drivers of the support series, a cancelled session and a future one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from .racing import Entrant, Outing, Row, rows_of_session, tie_best_laps
from .telemetry import TELEMETRY, Track, telemetry_of

FIRST_SESSION, FIRST_MEETING = 9001, 1201
# Large seasons: every weekend is one of these, in turn.
WEEKENDS = (
    ("Qualifying", "Race"),
    ("Sprint Qualifying", "Sprint", "Race"),
    ("Practice 1", "Qualifying", "Race"),
)
TYPES = {
    "Practice": "Practice",
    "Qualifying": "Qualifying",
    "Sprint Qualifying": "Qualifying",
    "Sprint Shootout": "Qualifying",
    "Sprint": "Race",
    "Race": "Race",
}
ENDPOINTS = (
    *("sessions", "meetings", "drivers", "laps", "location", "car_data", "position", "intervals", "pit", "stints"),
    *("weather", "race_control", "team_radio", "overtakes", "session_result", "starting_grid"),
)


@dataclass(frozen=True)
class Circuit:
    """Where a meeting is. `start_h`: local hour of a race; `lap_ms`: a fast lap in milliseconds."""

    key: int
    name: str
    location: str
    country: tuple[int, str, str]
    offset_h: int
    start_h: int
    lap_ms: int


CIRCUITS = (
    Circuit(23, "Montreal", "Montréal", (46, "CAN", "Canada"), -4, 14, 74_800),
    Circuit(14, "Interlagos", "São Paulo", (10, "BRA", "Brazil"), -3, 14, 70_500),
    # 22:00 in Las Vegas is 06:00 of the next day in UTC.
    Circuit(152, "Las Vegas", "Las Vegas", (19, "USA", "United States"), -8, 22, 94_900),
    Circuit(39, "Monza", "Monza", (13, "ITA", "Italy"), 2, 15, 81_400),
    Circuit(46, "Suzuka", "Suzuka", (4, "JPN", "Japan"), 9, 14, 93_700),
    Circuit(65, "Mexico City", "México City", (8, "MEX", "Mexico"), -6, 14, 78_300),
    Circuit(7, "Spa-Francorchamps", "Spa-Francorchamps", (16, "BEL", "Belgium"), 2, 15, 106_100),
    Circuit(61, "Singapore", "Marina Bay", (157, "SGP", "Singapore"), 8, 20, 95_400),
)

TEAMS = (
    ("Red Bull Racing", "3671C6"),
    ("Mercedes", "27F4D2"),
    ("Ferrari", "E8002D"),
    ("McLaren", "ff8000"),  # the API's letters are not always capitals
    ("Aston Martin", "229971"),
    ("Alpine", "0093CC"),
    ("Williams", "64C4FF"),
    ("RB", "6692FF"),
    ("Kick Sauber", "52E252"),
    ("Haas F1 Team", "B6BABD"),
)

# Nobody that exists. (number, first name, last name, acronym, country)
CAST = (
    (7, "Anders", "Holm", "HOL", "DEN"),
    (11, "Zoé", "Lacombe", "LAC", "FRA"),
    (18, "Piet", "van der Berg", "VDB", "NED"),
    (22, "Kenji", "Morita", "MOR", "JPN"),
    (40, "Mikael", "Östberg", "OST", "SWE"),
    (31, "Tom", "Wren", "WRE", "GBR"),
    (55, "Íñigo", "Salazar", "SAL", "ESP"),
    (63, "Lucia", "Bianco", "BIA", "ITA"),
    (3, "Jack", "Mulgrew", "MUL", "AUS"),
    (5, "Emre", "Yıldız", "YIL", "TUR"),
    (9, "Karl", "Brandt", "BRA", "GER"),
    (14, "Paulo", "Conceição", "CON", "BRA"),
    (16, "Noah", "Whitfield", "WHI", "USA"),
    (20, "Wei", "Zhang", "ZHA", "CHN"),
    (23, "Aino", "Lehtinen", "LEH", "FIN"),
    (24, "Diego", "Ramírez", "RAM", "MEX"),
    (27, "Oskar", "Kowalski", "KOW", "POL"),
    (44, "Samir", "Haddad", "HAD", "MON"),
    (77, "Pekka", "Virta", "VIR", "FIN"),
    (81, "Grace", "O'Dell", "ODE", "NZL"),
)
SECOND_FORTY = ("Rafael", "Ibáñez", "IBA", "ARG")  # takes over number 40 from the second meeting on
SUPPORT = ((50, "Leo", "Marsh", "MAR"), (97, "Ida", "Krog", "KRO"))  # another series' cars in our driver list


@dataclass(frozen=True)
class Season:
    """`tables`: endpoint -> rows, all but telemetry. `tracks`: session_key -> what telemetry is made from.

    `corrections`: what `corrected()` would change, endpoint -> (added, changed, removed) rows of `corrected_session`.
    """

    seed: int
    hertz: float
    tables: Mapping[str, list[Row]]
    tracks: Mapping[int, Track] = field(repr=False, default_factory=dict)
    corrected_session: int = 0
    corrections: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def rows(self, endpoint: str) -> list[Row]:
        """All rows of an endpoint as the API sends them. Telemetry of a large season is better asked by session."""
        if endpoint not in TELEMETRY:
            return self.tables.get(endpoint, [])
        return [row for key in self.tracks for row in self.telemetry(endpoint, key).to_dicts()]

    def telemetry(self, endpoint: str, session_key: int) -> pl.DataFrame:
        """`location` or `car_data` of one session, by driver and time: about `hertz` rows per driver and second."""
        return telemetry_of(endpoint, self.tracks[session_key], self.hertz)

    def corrected(self) -> Season:
        """The same season later: one race has a lap time changed, a lap added, one taken out, and a new result."""
        tables = {**self.tables, **{name: copy.deepcopy(self.tables[name]) for name in ("laps", "session_result")}}
        of_race = [row for row in tables["laps"] if row["session_key"] == self.corrected_session]
        driver = of_race[0]["driver_number"]
        own = [row for row in of_race if row["driver_number"] == driver]
        changed = next(row for row in own[2:] if row["lap_duration"] is not None)
        changed["lap_duration"] = round(changed["lap_duration"] + 0.15, 3)
        other = [row for row in of_race if row["driver_number"] != driver]
        tables["laps"].remove(other[-1])
        tables["laps"].append({**own[-1], "lap_number": own[-1]["lap_number"] + 1, "date_start": None})
        result = next(row for row in tables["session_result"] if row["session_key"] == self.corrected_session)
        result["dsq"], result["position"] = True, None
        return replace(self, tables=tables)


def generate(
    seed: int = 2024,
    *,
    sessions: int = 6,
    drivers: int = 8,
    laps: int = 12,
    hertz: float = 0.2,
    year: int = 2024,
) -> Season:
    """A season of `sessions` finished sessions, one cancelled and one future one.

    drivers 6..20 per session, laps 4..100 per race, hertz: telemetry points per driver and second (the API has 3.7).
    Raises ValueError outside these.
    """
    if not (sessions >= 1 and 6 <= drivers <= len(CAST) and 4 <= laps <= 100 and 0 < hertz <= 20):
        raise ValueError(f"need sessions >= 1, drivers 6..{len(CAST)}, laps 4..100, hertz above 0 up to 20")
    tables: dict[str, list[Row]] = {name: [] for name in ENDPOINTS if name not in TELEMETRY}
    tracks: dict[int, Track] = {}
    best: dict[int, list[int]] = {}  # meeting -> numbers in the order of its qualifying
    race = 0
    for outing in _outings(seed, sessions, drivers, laps, year):
        made = rows_of_session(outing, grid=best.get(outing.meeting_key))
        if outing.name == "Race" and outing.meeting_index == 1:
            tie_best_laps(made["laps"])
        if outing.type == "Qualifying":
            best[outing.meeting_key] = [row["driver_number"] for row in made["session_result"] if row["position"]]
        for endpoint, rows in made.items():
            tables[endpoint].extend(rows)
        session = made["sessions"][0]
        race = race or (outing.session_key if outing.name == "Race" else 0)
        tracks[outing.session_key] = Track.of(outing, made["laps"], datetime.fromisoformat(session["date_end"]))
        if not any(row["meeting_key"] == outing.meeting_key for row in tables["meetings"]):
            tables["meetings"].append(_meeting(outing))
    _add_sessions_that_did_not_happen(tables, year)
    first = race or FIRST_SESSION
    return Season(seed, hertz, tables, tracks, first, {"laps": (1, 1, 1), "session_result": (0, 1, 0)})


def _outings(seed: int, sessions: int, drivers: int, laps: int, year: int) -> Iterator[Outing]:
    left, meeting = sessions, 0
    while left:
        weekend = WEEKENDS[meeting % len(WEEKENDS)][-left:]  # a weekend that is cut short keeps its race
        season_year, place = year + meeting // 24, CIRCUITS[meeting % len(CIRCUITS)]
        sunday = datetime(season_year, 3, 3, tzinfo=UTC) + timedelta(days=14 * (meeting % 24))
        for index, name in enumerate(weekend):
            day = sunday - timedelta(days=len(weekend) - 1 - index)
            if name == "Sprint Qualifying" and season_year < 2024:
                name = "Sprint Shootout"
            yield Outing(
                seed=seed,
                session_key=FIRST_SESSION + sessions - left,
                meeting_key=FIRST_MEETING + meeting,
                meeting_index=meeting,
                name=name,
                type=TYPES[name.rstrip(" 123")],
                year=season_year,
                start=day + timedelta(hours=place.start_h - place.offset_h),
                place=_place(place),
                lap_ms=place.lap_ms,
                laps=max(4, laps // 3) if name == "Sprint" else laps,
                # Every fourth weekend is interrupted, the first one too.
                red_flag=name == "Race" and meeting % 4 == 0,
                entrants=entrants(meeting, drivers, season_year),
                support=_support() if index == 0 and meeting % 2 == 0 else (),
            )
            left -= 1
        meeting += 1


def entrants(meeting: int, drivers: int, year: int = 2024) -> tuple[Entrant, ...]:
    """Who drives what at the meeting with this index, fastest first.

    Number 40 has two persons (the first one goes on as 30), and two team mates to be change seats at the third meeting.
    """
    cars = []
    for slot, (number, first, last, acronym, country) in enumerate(CAST[:drivers]):
        seat = slot
        if meeting >= 1 and slot == 4:
            first, last, acronym, country = SECOND_FORTY
        elif meeting >= 1 and slot == 5:
            number, first, last, acronym, country = 30, *CAST[4][1:]
        if meeting >= 2 and slot in (2, 5):
            seat = 7 - slot  # the cars of slots 2 and 5 change hands
        team, colour = TEAMS[(seat // 2) % len(TEAMS)]
        if team in ("RB", "Kick Sauber") and year < 2024:
            team = {"RB": "AlphaTauri", "Kick Sauber": "Alfa Romeo"}[team]
        cars.append(Entrant(number, first, last, acronym, country, team, colour))
    return tuple(cars)


def _support() -> tuple[Entrant, ...]:
    return tuple(Entrant(number, first, last, acronym, None, None, None) for number, first, last, acronym in SUPPORT)


def _place(circuit: Circuit) -> dict[str, Any]:
    key, code, name = circuit.country
    sign = "-" if circuit.offset_h < 0 else ""
    return {
        "location": circuit.location,
        "country_key": key,
        "country_code": code,
        "country_name": name,
        "circuit_key": circuit.key,
        "circuit_short_name": circuit.name,
        "gmt_offset": f"{sign}{abs(circuit.offset_h):02}:00:00",
    }


def _meeting(outing: Outing) -> Row:
    country = outing.place["country_name"]
    return {
        "meeting_key": outing.meeting_key,
        "meeting_name": f"{country} Grand Prix",
        "meeting_official_name": f"FORMULA 1 GRAND PRIX OF {country.upper()} {outing.year} ",  # the blank is theirs
        **outing.place,
        **dict.fromkeys(("country_flag", "circuit_type", "circuit_image", "circuit_info_url")),
        "date_start": outing.start.isoformat(),
        "date_end": None,
        "year": outing.year,
        "is_cancelled": False,
    }


def _add_sessions_that_did_not_happen(tables: dict[str, list[Row]], year: int) -> None:
    """A race that was called off, and one of a year to come: neither may ever be extracted."""
    last = tables["sessions"][-1]
    off = datetime(year, 5, 19, 13, tzinfo=UTC)
    ahead = datetime(2099, 3, 1, 13, tzinfo=UTC)
    for offset, begins, name, cancelled in ((1, off, "Imola", True), (2, ahead, "Le Castellet", False)):
        place = {**last, "location": name, "circuit_short_name": name, "gmt_offset": "02:00:00"}
        session = {
            **place,
            "session_key": last["session_key"] + offset,
            "meeting_key": last["meeting_key"] + offset,
            "session_name": "Race",
            "session_type": "Race",
            "date_start": begins.isoformat(),
            "date_end": (begins + timedelta(hours=2)).isoformat(),
            "year": begins.year,
            "is_cancelled": cancelled,
        }
        tables["sessions"].append(session)
        meeting = {name: session.get(name) for name in tables["meetings"][-1]}
        tables["meetings"].append({**meeting, "meeting_name": f"{place['location']} Grand Prix"})
