"""Where the cars were and what they did: synthetic `location` and `car_data`, as whole columns.

A race at the API's 3.7 points per second has half a million rows of each, so nothing here loops over rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from .racing import Outing

TELEMETRY = ("location", "car_data")
BEFORE, AFTER = timedelta(seconds=56), timedelta(minutes=4)  # telemetry starts a little early and ends late
PERIOD_US = 1_000_000


@dataclass(frozen=True)
class Track:
    """What telemetry of a session is made from. `gap`: when the cars stood still and sent nothing."""

    session_key: int
    meeting_key: int
    start: datetime
    end: datetime
    lap_ms: int
    numbers: tuple[int, ...]
    gap: tuple[datetime, datetime] | None = None

    @classmethod
    def of(cls, outing: Outing, laps: list[dict[str, Any]], end: datetime) -> Track:
        """The track of a session whose laps are known; a red flag leaves a gap of 40 minutes."""
        numbers = tuple(sorted({row["driver_number"] for row in laps}))
        gap = outing.stopped
        return cls(outing.session_key, outing.meeting_key, outing.start, end, outing.lap_ms, numbers, gap)


@lru_cache(maxsize=4)  # a server asks for the same session window by window
def telemetry_of(endpoint: str, track: Track, hertz: float) -> pl.DataFrame:
    """`location`: date, driver_number, meeting_key, session_key, x, y, z (1/10 m).
    `car_data`: date, driver_number, meeting_key, session_key, speed (km/h), rpm, n_gear, throttle, brake (%), drs.

    Sorted by driver and time; `date` is text as the API writes it. Raises ValueError for another endpoint.
    """
    if endpoint not in TELEMETRY:
        raise ValueError(f"{endpoint} is no telemetry")
    points = _points(track, hertz)
    point, car = pl.col("point"), pl.col("slot")
    angle = point * (1000 / hertz / track.lap_ms * 2 * math.pi) - car * 0.05
    noise = (point * 7919 + car * 104_729) % 17 - 8
    dust = (point < 2) & (car == 0)  # points that say nothing, as some receivers send them
    if endpoint == "location":
        values = {
            "x": 700 + angle.cos() * 3100 + (angle * 3).sin() * 400 + noise,
            "y": 7200 + angle.sin() * 9400 + (angle * 2).cos() * 600 + noise,
            "z": 150 + (angle * 2).sin() * 25,
        }
        columns = [
            pl.when(dust).then(0).otherwise(value).round().cast(pl.Int64).alias(name) for name, value in values.items()
        ]
    else:
        push = ((angle * 5).sin() + 1) / 2
        glitch, silent = (point % 1499 == 3) & (car == 0), (point % 997 == 5) & (car == 0)
        values = {
            "speed": 70 + push * 250,
            "rpm": 7000 + push * 5000 + noise * 10,
            "n_gear": pl.when(glitch).then(56).otherwise((1 + push * 7).floor()),
            "throttle": pl.when(silent).then(104).otherwise((push * 100).floor()),
            "brake": pl.when(silent).then(104).when(push < 0.2).then(100).otherwise(0),
            "drs": pl.when(push > 0.95).then(12).when(push > 0.85).then(8).otherwise(point % 2),
        }
        columns = [value.round().cast(pl.Int64).alias(name) for name, value in values.items()]
    keys = [pl.lit(track.meeting_key).alias("meeting_key"), pl.lit(track.session_key).alias("session_key")]
    return points.select("date", "driver_number", *keys, *columns)


def _points(track: Track, hertz: float) -> pl.DataFrame:
    begin, end = track.start - BEFORE, track.end + AFTER
    n_points = int((end - begin).total_seconds() * hertz)
    step_us = int(PERIOD_US / hertz) // 1000 * 1000
    cars = pl.DataFrame({"slot": range(len(track.numbers)), "driver_number": track.numbers})
    # Each car's clock is a few milliseconds off, so times are unique per car and not shared by all.
    at = pl.lit(begin) + pl.duration(microseconds=pl.col("point") * step_us + pl.col("slot") * 37_000)
    points = cars.join(pl.select(point=pl.int_range(n_points)), how="cross").with_columns(at=at)
    if track.gap:
        points = points.filter(~pl.col("at").is_between(*track.gap, closed="left"))
    # The API leaves the fraction out when it is zero.
    text = pl.col("at").dt.to_string("%Y-%m-%dT%H:%M:%S%.6f+00:00").str.replace(".000000+", "+", literal=True)
    return points.with_columns(date=text)
