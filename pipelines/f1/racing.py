"""What happens in one synthetic session, as rows of every OpenF1 endpoint but telemetry.

outing   a session that is to be driven: when, where, by whom
drive    the laps of one car in it, with true times in milliseconds; rows leave some of them out, as timekeepers do
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Row = dict[str, Any]

STOPPED_FOR = timedelta(minutes=40)
COMPOUNDS = ("SOFT", "MEDIUM", "HARD", "INTERMEDIATE")
POINTS = {
    "Race": (25, 18, 15, 12, 10, 8, 6, 4, 2, 1),
    "Sprint": (8, 7, 6, 5, 4, 3, 2, 1),
}


@dataclass(frozen=True)
class Entrant:
    """A person in a car. Cars of the support series have no country, team or colour."""

    number: int
    first_name: str
    last_name: str
    acronym: str
    country: str | None
    team: str | None
    colour: str | None


@dataclass(frozen=True)
class Outing:
    """A session before it is driven. `place`: the columns that sessions and meetings share."""

    seed: int
    session_key: int
    meeting_key: int
    meeting_index: int
    name: str
    type: str
    year: int
    start: datetime
    place: Mapping[str, Any]
    lap_ms: int
    laps: int
    red_flag: bool
    entrants: Sequence[Entrant]
    support: Sequence[Entrant]

    @property
    def keys(self) -> Row:
        return {"meeting_key": self.meeting_key, "session_key": self.session_key}

    @property
    def red_lap(self) -> int:
        return self.laps // 2 + 1

    @property
    def stopped(self) -> tuple[datetime, datetime] | None:
        """From when to when the red flag keeps all cars in the pits."""
        if not self.red_flag:
            return None
        begin = self.start + timedelta(milliseconds=self.lap_ms * (self.red_lap - 0.5))
        return begin, begin + STOPPED_FOR


@dataclass
class Drive:
    """One car's laps: (lap number, start in ms after the session's start, duration in ms, pit-out)."""

    entrant: Entrant
    slot: int
    laps: list[tuple[int, int, int, bool]] = field(default_factory=list)
    stops: list[tuple[int, int]] = field(default_factory=list)  # (lap, seconds in the lane)

    @property
    def total_ms(self) -> int:
        return sum(duration for _, _, duration, _ in self.laps)

    @property
    def best_ms(self) -> int:
        return min((duration for _, _, duration, out in self.laps if not out), default=10**9)


def rows_of_session(outing: Outing, *, grid: Sequence[int] | None) -> dict[str, list[Row]]:
    """Endpoint -> rows. `grid`: car numbers in starting order; without it the cars start as they stand."""
    drives = [_driven(outing, entrant, slot) for slot, entrant in enumerate(outing.entrants)]
    if outing.type == "Race":
        _flag_the_finish(drives)
    longest = max((drive.total_ms for drive in drives), default=0)
    quarters = -(-longest // 900_000)  # a session ends on a full quarter of an hour
    end = outing.start + timedelta(minutes=15 * max(2, quarters))
    order = [number for number in grid or () if any(d.entrant.number == number for d in drives)]
    order += [d.entrant.number for d in drives if d.entrant.number not in order]
    positions = list(_positions(outing, drives, order))
    return {
        "sessions": [_session(outing, end)],
        "drivers": [_driver(outing, entrant) for entrant in (*outing.entrants, *outing.support)],
        "laps": [row for drive in drives for row in _lap_rows(outing, drive)],
        "pit": [row for drive in drives for row in _pit_rows(outing, drive)],
        "stints": [*_junk_stints(outing), *(row for drive in drives for row in _stint_rows(outing, drive))],
        "weather": _weather(outing, end),
        "race_control": _race_control(outing, drives, end),
        "team_radio": [_radio(outing, drives[0])],
        "position": positions,
        "overtakes": _overtakes(outing, positions),
        "intervals": list(_intervals(outing, drives)) if outing.type == "Race" else [],
        "session_result": _result(outing, drives),
        "starting_grid": _grid(outing, drives, order) if outing.type == "Race" else [],
    }


def tie_best_laps(laps: list[Row]) -> None:
    """The two fastest cars get the same best lap, the fifth and the sixth too; the fastest one sets its twice."""
    best: dict[int, Row] = {}
    for row in laps:
        number, seconds = row["driver_number"], row["lap_duration"]
        valid = seconds is not None and not row["is_pit_out_lap"]
        if valid and (number not in best or seconds < best[number]["lap_duration"]):
            best[number] = row
    ranked = sorted(best.values(), key=lambda row: row["lap_duration"])
    for first, second in ((0, 1), (4, 5)):
        if second < len(ranked):
            _copy_time(ranked[first], ranked[second])
    fastest = ranked[0]
    again = next(
        row
        for row in laps
        if row["driver_number"] == fastest["driver_number"] and row is not fastest and not row["is_pit_out_lap"]
    )
    _copy_time(fastest, again)


def _copy_time(source: Row, target: Row) -> None:
    for name in ("lap_duration", "duration_sector_1", "duration_sector_2", "duration_sector_3"):
        target[name] = source[name]


def _chance(outing: Outing, what: object) -> random.Random:
    # One stream per car, so that one car more leaves the others as they were.
    return random.Random(f"{outing.seed}/{outing.session_key}/{what}")  # noqa: S311  (a toy, not a secret)


def _driven(outing: Outing, entrant: Entrant, slot: int) -> Drive:
    drive, chance = Drive(entrant, slot), _chance(outing, entrant.number)
    racing, last_slot = outing.type == "Race", len(outing.entrants) - 1
    if racing and slot == last_slot and outing.meeting_index % 3 == 0:
        return drive  # did not start
    retires_after = outing.laps // 2 + 1 if racing and slot == last_slot - 1 else outing.laps
    pit_lap = 2 + chance.randrange(max(1, outing.laps - 3))
    at, out = 0, not racing
    for number in range(1, min(outing.laps, retires_after) + 1):
        duration = outing.lap_ms + slot * 120 + int(abs(chance.gauss(0, 450))) + 300
        if racing:
            # One car is so slow that it is lapped.
            duration += (9_000 if number == 1 else 0) + (outing.lap_ms // 9 if slot == last_slot - 2 else 0)
            duration += 16_000 if out else 0
            if number == pit_lap:
                duration += 4_000
                drive.stops.append((number, chance.randrange(20, 34)))
            if outing.red_flag and number == outing.red_lap:
                duration += int(STOPPED_FOR.total_seconds() * 1000)
                drive.stops.append((number, int(STOPPED_FOR.total_seconds()) - chance.randrange(60)))
            next_out = number in (lap for lap, _ in drive.stops)
        else:
            # Out of the pits, a fast lap, a slow one home.
            duration += {1: 20_000, 2: -300, 0: 35_000}[number % 3]
            next_out = number % 3 == 0
        drive.laps.append((number, at, duration, out))
        at, out = at + duration, next_out
    return drive


def _flag_the_finish(drives: Sequence[Drive]) -> None:
    """Nobody begins a lap after the winner has come home."""
    distance = max(len(drive.laps) for drive in drives)
    won_ms = min(drive.total_ms for drive in drives if len(drive.laps) == distance)
    for drive in drives:
        drive.laps = [lap for lap in drive.laps if lap[1] < won_ms]


def _at(outing: Outing, ms: float) -> str:
    return (outing.start + timedelta(milliseconds=ms)).isoformat()


def _session(outing: Outing, end: datetime) -> Row:
    return {
        **outing.keys,
        "session_name": outing.name,
        "session_type": outing.type,
        "date_start": outing.start.isoformat(),
        "date_end": end.isoformat(),
        **outing.place,
        "year": outing.year,
        "is_cancelled": False,
    }


def _driver(outing: Outing, entrant: Entrant) -> Row:
    ours = entrant.team is not None
    return {
        **outing.keys,
        "driver_number": entrant.number,
        "broadcast_name": f"{entrant.first_name[0]} {entrant.last_name.upper()}",
        "full_name": f"{entrant.first_name} {entrant.last_name.upper()}",
        "first_name": entrant.first_name if ours else None,
        "last_name": entrant.last_name if ours else None,
        "name_acronym": entrant.acronym,
        "team_name": entrant.team,
        "team_colour": entrant.colour,
        "headshot_url": f"https://example.org/{entrant.acronym.lower()}.png" if ours else None,
        "country_code": entrant.country,
    }


def _lap_rows(outing: Outing, drive: Drive) -> Iterator[Row]:
    chance = _chance(outing, f"timing {drive.entrant.number}")
    for number, at, duration, out in drive.laps:
        first = duration * 29 // 100 + chance.randrange(-200, 200)
        second = duration * 38 // 100 + chance.randrange(-200, 200)
        third = duration - first - second
        # The sectors of a few laps do not add up to the lap.
        third += 37 if chance.random() < 0.003 or (drive.slot, number) == (1, 3) else 0
        opening = outing.type == "Race" and number == 1
        lost = chance.random() < 0.004 or (drive.slot, number) == (3, 2)
        no_start = opening and (drive.slot == 2 or chance.random() < 0.1)
        yield {
            **outing.keys,
            "driver_number": drive.entrant.number,
            "lap_number": number,
            "date_start": None if no_start else _at(outing, at),
            "lap_duration": None if lost else round(duration / 1000, 3),
            "duration_sector_1": None if opening and chance.random() < 0.4 else round(first / 1000, 3),
            "duration_sector_2": None if chance.random() < 0.003 else round(second / 1000, 3),
            "duration_sector_3": None if lost or chance.random() < 0.004 else round(third / 1000, 3),
            "i1_speed": None if chance.random() < 0.15 else chance.randrange(200, 290),
            "i2_speed": None if chance.random() < 0.003 else chance.randrange(220, 300),
            "st_speed": None if chance.random() < 0.09 else chance.randrange(270, 345),
            "is_pit_out_lap": out,
            "segments_sector_1": [] if opening else _segments(chance, 6),
            "segments_sector_2": _segments(chance, 7),
            "segments_sector_3": _segments(chance, 6),
        }


def _segments(chance: random.Random, count: int) -> list[int | None]:
    return [chance.choice((2048, 2048, 2048, 2049, 2049, 2051, 2064, None)) for _ in range(count)]


def _pit_rows(outing: Outing, drive: Drive) -> Iterator[Row]:
    ends = {number: at + duration for number, at, duration, _ in drive.laps}
    for lap, seconds in drive.stops:
        if lap in ends:
            yield {
                **outing.keys,
                "driver_number": drive.entrant.number,
                "lap_number": lap,
                "date": _at(outing, ends[lap]),
                "pit_duration": float(seconds),
                "lane_duration": float(seconds),
                # Known from October 2024 on.
                "stop_duration": round(2 + seconds / 40, 1) if outing.meeting_index >= 16 else None,
            }


def _stint_rows(outing: Outing, drive: Drive) -> Iterator[Row]:
    if not drive.laps:
        return
    last = drive.laps[-1][0]
    stops = sorted({lap for lap, _ in drive.stops if lap < last})
    chance = _chance(outing, f"tyres {drive.entrant.number}")
    begins = [1, *(lap + 1 for lap in stops)]
    for index, (begin, end) in enumerate(zip(begins, [*stops, last], strict=True), start=1):
        yield {
            **outing.keys,
            "driver_number": drive.entrant.number,
            "stint_number": index,
            "lap_start": begin,
            "lap_end": end,
            "compound": chance.choice(COMPOUNDS),
            "tyre_age_at_start": chance.randrange(4),
        }


def _junk_stints(outing: Outing) -> list[Row]:
    """One of nobody, and one that ends before it begins."""
    nobody = {"driver_number": None, "stint_number": 1, "lap_start": 1, "lap_end": 0}
    backwards = {"driver_number": outing.entrants[0].number, "stint_number": 9, "lap_start": 5, "lap_end": 4}
    return [{**outing.keys, **junk, "compound": None, "tyre_age_at_start": None} for junk in (nobody, backwards)]


def _weather(outing: Outing, end: datetime) -> list[Row]:
    chance = _chance(outing, "weather")
    minutes = int((end - outing.start).total_seconds() // 60)
    wet = outing.meeting_index % 4 == 1
    return [
        {
            **outing.keys,
            "date": _at(outing, minute * 60_000 + 613),
            "air_temperature": round(22 + chance.uniform(-1, 1), 1),
            "track_temperature": round(34 + chance.uniform(-2, 2), 1),
            "humidity": float(chance.randrange(40, 80)),
            "pressure": round(1001 + chance.uniform(-1, 1), 1),
            "rainfall": int(wet and minute > minutes // 2),
            "wind_direction": chance.randrange(360),
            "wind_speed": round(chance.uniform(0, 6), 1),
        }
        for minute in range(minutes)
    ]


def _race_control(outing: Outing, drives: Sequence[Drive], end: datetime) -> list[Row]:
    def said(ms: float, category: str, message: str, **more: object) -> Row:
        columns = ("flag", "scope", "sector", "driver_number", "lap_number", "qualifying_phase")
        empty = dict.fromkeys(columns)
        return {**outing.keys, "date": _at(outing, ms), "category": category, **empty, "message": message, **more}

    rows = [said(0, "Flag", "GREEN LIGHT - PIT EXIT OPEN", flag="GREEN", scope="Track", lap_number=1)]
    yellow = {"flag": "YELLOW", "scope": "Sector", "sector": 4, "lap_number": 2}
    rows.append(said(outing.lap_ms * 1.5, "Flag", "YELLOW IN TRACK SECTOR 4", **yellow))
    if outing.type == "Race":
        rows.append(said(outing.lap_ms * 1.6, "SafetyCar", "SAFETY CAR DEPLOYED", lap_number=2))
        slow = drives[-3].entrant.number
        blue = {"flag": "BLUE", "scope": "Driver", "driver_number": slow, "lap_number": outing.laps - 1}
        message = f"WAVED BLUE FLAG FOR CAR {slow} TIMED AT 15:02:11"
        rows.append(said(outing.lap_ms * (outing.laps - 1), "Flag", message, **blue))
    if outing.stopped:
        begin, restart = ((at - outing.start).total_seconds() * 1000 for at in outing.stopped)
        rows.append(said(begin, "Flag", "RED FLAG", flag="RED", scope="Track", lap_number=outing.red_lap))
        rows.append(said(restart, "Flag", "TRACK CLEAR", flag="CLEAR", scope="Track", lap_number=outing.red_lap))
    over = max((drive.total_ms for drive in drives), default=0)
    rows.append(said(over, "Flag", "CHEQUERED FLAG", flag="CHEQUERED", scope="Track", lap_number=outing.laps))
    return sorted(rows, key=lambda row: str(row["date"]))


def _radio(outing: Outing, drive: Drive) -> Row:
    address = f"https://example.org/radio/{outing.session_key}_{drive.entrant.number}.mp3"
    return {**outing.keys, "date": _at(outing, 0), "driver_number": drive.entrant.number, "recording_url": address}


def _after_lap(drives: Sequence[Drive], lap: int) -> list[tuple[int, Drive]]:
    """(time in ms, drive) of those who completed `lap`, first one first."""
    done = [(d.laps[lap - 1][1] + d.laps[lap - 1][2], d) for d in drives if len(d.laps) >= lap]
    return sorted(done, key=lambda pair: (pair[0], pair[1].slot))


def _positions(outing: Outing, drives: Sequence[Drive], order: Sequence[int]) -> Iterator[Row]:
    """One row per car at the start, then one for each change."""
    known: dict[int, int] = {}

    def now(number: int, position: int, ms: float) -> Row:
        known[number] = position
        return {**outing.keys, "date": _at(outing, ms), "driver_number": number, "position": position}

    for position, number in enumerate(order, start=1):
        yield now(number, position, -60_000)
    for lap in range(1, outing.laps + 1):
        for position, (ms, drive) in enumerate(_after_lap(drives, lap), start=1):
            if known[drive.entrant.number] != position:
                yield now(drive.entrant.number, position, ms)


def _overtakes(outing: Outing, positions: Sequence[Row]) -> list[Row]:
    """Whoever gained a place passed the car that had it."""
    holders: dict[int, int] = {}
    places: dict[int, int] = {}
    rows = []
    for row in positions:
        number, position = row["driver_number"], row["position"]
        passed = holders.get(position)
        if number in places and places[number] > position and passed is not None and passed != number:
            cars = {"overtaking_driver_number": number, "overtaken_driver_number": passed}
            rows.append({**outing.keys, "date": row["date"], **cars, "position": position})
        holders[position], places[number] = number, position
    return rows


def _intervals(outing: Outing, drives: Sequence[Drive]) -> Iterator[Row]:
    """Gaps in seconds at the end of each lap: null for the leader, text for whoever is lapped."""
    for lap in range(1, outing.laps + 1):
        finishers = _after_lap(drives, lap)
        for index, (ms, drive) in enumerate(finishers):
            gap = _gap(ms - finishers[0][0], outing.lap_ms) if index else None
            ahead = _gap(ms - finishers[index - 1][0], outing.lap_ms) if index else None
            number = drive.entrant.number
            yield {
                **outing.keys,
                "date": _at(outing, ms),
                "driver_number": number,
                "gap_to_leader": gap,
                "interval": ahead,
            }


def _gap(ms: int, lap_ms: int) -> float | str:
    return round(ms / 1000, 3) if ms < lap_ms else f"+{ms // lap_ms} LAP{'S' if ms >= 2 * lap_ms else ''}"


def _result(outing: Outing, drives: Sequence[Drive]) -> list[Row]:
    racing = outing.type == "Race"
    distance = max(len(drive.laps) for drive in drives)
    finished = [d for d in drives if not racing or len(d.laps) >= distance - 2]
    # Who has more laps is ahead, then who has them sooner; elsewhere the best lap counts.
    finished.sort(key=lambda d: (-len(d.laps), d.total_ms) if racing else (d.best_ms, d.slot))
    rows = []
    for position, drive in enumerate([*finished, *(d for d in drives if d not in finished)], start=1):
        classified, points = position <= len(finished), POINTS.get(outing.name, ())
        row: Row = {
            **outing.keys,
            "position": position if classified else None,
            "driver_number": drive.entrant.number,
            "number_of_laps": len(drive.laps),
            "dnf": not classified and bool(drive.laps),
            "dns": not drive.laps,
            "dsq": False,
            **_times(outing, drive, finished[0], classified),
        }
        if points:
            row["points"] = float(points[position - 1]) if classified and position <= len(points) else 0.0
        rows.append(row)
    return rows


def _times(outing: Outing, drive: Drive, winner: Drive, classified: bool) -> Row:
    """duration and gap_to_leader in seconds; qualifying has lists of three, one per part."""
    if not classified:
        return {"duration": None, "gap_to_leader": None}
    if outing.type == "Race":
        gap: float | str = 0.0 if drive is winner else _gap(drive.total_ms - winner.total_ms, outing.lap_ms)
        behind = len(winner.laps) - len(drive.laps)
        gap = f"+{behind} LAP{'S' if behind > 1 else ''}" if behind else gap
        return {"duration": round(drive.total_ms / 1000, 3), "gap_to_leader": gap}
    best, gap = round(drive.best_ms / 1000, 3), round((drive.best_ms - winner.best_ms) / 1000, 3)
    if outing.type == "Practice":
        return {"duration": best, "gap_to_leader": gap}
    parts = 3 if drive.slot < 4 else 2 if drive.slot < 6 else 1  # who is slow is out early
    filled = [round(best + 0.2 * (3 - part), 3) if part <= parts else None for part in (1, 2, 3)]
    return {"duration": filled, "gap_to_leader": [gap if part <= parts else None for part in (1, 2, 3)]}


def _grid(outing: Outing, drives: Sequence[Drive], order: Sequence[int]) -> list[Row]:
    times = {d.entrant.number: round(d.best_ms / 1000, 3) if d.laps else None for d in drives}
    return [
        {**outing.keys, "position": position, "driver_number": number, "lap_duration": times[number]}
        for position, number in enumerate(order, start=1)
    ]
