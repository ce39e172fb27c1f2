"""Simulated telemetry of a warehouse's fleet: the same files for the same seed, and what truly happened kept apart.

    python -m pipelines.forklift.simulate --into landing/forklift/real_data --truth .rat/forklift_truth

No forklift's telemetry is public, so every value here is made up: shapes and faults as such fleets have them, in the
format of the document. The truth is for scoring; nothing in the pipeline reads it.

machine     one file `<machine>.csv`: no header, semicolons, FFFID;Height;Load;OnDuty;Timestamp;Latitude;Longitude;Speed
cycle       idle, drive there empty, lift, carry, put away, drive back: six phases with lengths drawn by chance
fault       of a height sensor: `broken` (a third of its rows far too high), `scaled` (its range is too long), `spiky`;
            of a load sensor: `flapping` (drops out for a second or two), `silent` (says 0 for ever)
gap         the sender is off for minutes; a resent row comes twice; a late one comes after its successors

Timestamps are UTC, one row a second while on duty and every five seconds off duty. The late shift ends after midnight.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

COLUMNS = ("FFFID", "Height", "Load", "OnDuty", "Timestamp", "Latitude", "Longitude", "Speed")
PHASES = ("idle", "approach", "lift", "carry", "put_away", "back")
SECONDS = (40.0, 45.0, 12.0, 75.0, 18.0, 35.0)  # the median length of each phase
SHIFTS_H = ((6.0, 14.0), (14.0, 22.0), (18.5, 26.5))  # early, late, and one that ends at half past two
YARD_DEGREES = 0.004  # about 440 m
RATE_OFF_S = 5  # a row every so many seconds while off duty

HeightFault = Literal["none", "broken", "scaled", "spiky"]
LoadFault = Literal["none", "flapping", "silent"]


@dataclass(frozen=True)
class Fleet:
    """What to simulate. `forklifts` and `trucks` are numbers of machines, `days` of days from `first_day` on."""

    seed: int = 42
    forklifts: int = 8
    trucks: int = 2
    days: int = 2
    first_day: date = date(2026, 3, 2)


@dataclass(frozen=True)
class Machine:
    name: str
    number: int
    truck: bool
    shift: tuple[float, float]  # hours after midnight
    height_fault: HeightFault
    load_fault: LoadFault
    pace: float  # how long its phases are, 1.0 the median
    seed: tuple[int, int]


def machines(fleet: Fleet) -> list[Machine]:
    """The machines of a fleet. Of ten forklifts one each has a broken, a scaled, a spiky height sensor; three
    have a flapping and one a silent load sensor."""
    made = []
    for number in range(fleet.forklifts + fleet.trucks):
        chance = np.random.default_rng((fleet.seed, number))
        truck = number >= fleet.forklifts
        height: HeightFault = "none" if truck else ("none", "none", "broken", "none", "scaled", "none", "spiky")[number % 10] if number % 10 < 7 else "none"  # fmt: skip
        load: LoadFault = "none" if truck else {1: "flapping", 3: "silent", 5: "flapping", 8: "flapping"}.get(number % 10, "none")  # type: ignore[assignment]  # fmt: skip
        made.append(
            Machine(
                name=f"{'TR' if truck else 'FL'}-{number + 1:04d}",
                number=number,
                truck=truck,
                shift=SHIFTS_H[number % len(SHIFTS_H)],
                height_fault=height,
                load_fault=load,
                pace=float(chance.uniform(0.8, 1.25)),
                seed=(fleet.seed, number),
            )
        )
    return made


def telemetry(machine: Machine, first_day: date, days: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(rows as the machine sends them, in the order in which they arrive; what was so at each second).

    The truth has `machine`, `ts`, `phase`, `carrying` (a load is on the raised forks and moves slowly enough), `height`
    (m) and `load` as they were, before any sensor's fault.
    """
    chance = np.random.default_rng((*machine.seed, 1))
    start = int(np.datetime64(first_day, "s").astype(np.int64))
    second, on_duty = _clock(chance, machine, start, days)
    phase, height, loaded, speed = _work(chance, machine, second, on_duty)
    truth = pl.DataFrame(
        {
            "machine": pl.Series([machine.name], dtype=pl.String).new_from_index(0, len(second)),
            "ts": _at(second),
            "phase": pl.Series(np.asarray(PHASES)[phase]),
            "carrying": (loaded > 0) & (height > 0.35) & (speed <= 7.2) & (on_duty > 0),
            "height": height.round(2),
            "load": loaded.astype(np.int8),
        }
    )
    latitude, longitude = _places(chance, machine, second, speed)
    rows = pl.DataFrame(
        {
            "FFFID": np.full(len(second), 1000 + machine.number),
            "Height": _height_as_sent(chance, machine, height).round(2),
            "Load": _load_as_sent(chance, machine, loaded),
            "OnDuty": on_duty,
            "Timestamp": _at(second).dt.to_string("%Y-%m-%d %H:%M:%S"),
            "Latitude": latitude.round(6),
            "Longitude": longitude.round(6),
            "Speed": speed.round(1),
        }
    )
    return rows[_arrival(chance, len(second))], truth


def write(fleet: Fleet, into: Path, truth: Path | None = None, *, only: slice = slice(None)) -> list[Path]:
    """Write the files of a fleet (of `only` some of its machines), each whole or not at all; returns their paths."""
    into.mkdir(parents=True, exist_ok=True)
    written = []
    for machine in machines(fleet)[only]:
        rows, happened = telemetry(machine, fleet.first_day, fleet.days)
        path = into / f"{machine.name}.csv"
        aside = path.with_suffix(".part")
        rows.write_csv(aside, include_header=False, separator=";", float_precision=None)
        os.replace(aside, path)
        written.append(path)
        if truth is not None:
            truth.mkdir(parents=True, exist_ok=True)
            happened.write_parquet(truth / f"{machine.name}.parquet")
    return written


def _clock(chance: np.random.Generator, machine: Machine, start: int, days: int) -> tuple[np.ndarray, np.ndarray]:
    """(seconds since 1970 at which it sends, on duty then: 0 or 1). A few gaps of minutes, none longer than an hour."""
    begin, end = (int(h * 3600) for h in machine.shift)
    total = max(86_400 * (days - 1) + max(end, 86_400), 86_400 * days)
    seconds = np.arange(total)
    on = np.zeros(total, np.int8)
    for day in range(days):
        late, early = chance.integers(0, 600, 2)
        on[86_400 * day + begin + late : 86_400 * day + end - early] = 1
        lunch = 86_400 * day + begin + 4 * 3600
        on[lunch : lunch + int(chance.integers(1200, 2400))] = 0
    keep = (on == 1) | (seconds % RATE_OFF_S == 0)
    for at in chance.integers(0, total, 3 * days):
        keep[at : at + int(chance.integers(60, 1800))] = False
    return start + seconds[keep], on[keep]


def _work(
    chance: np.random.Generator, machine: Machine, second: np.ndarray, on_duty: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(phase, true height in m, true load 0 or 1, true speed in km/h) at each second."""
    first, last = int(second[0]), int(second[-1]) + 1
    n_cycles = int((last - first) / (sum(SECONDS) * machine.pace * 0.6)) + 4
    lengths = np.exp(chance.normal(0, 0.45, (n_cycles, 6))) * np.asarray(SECONDS) * machine.pace
    lengths = np.maximum(lengths, 2.0)
    ends = first + np.cumsum(lengths.reshape(-1))
    piece = np.minimum(np.searchsorted(ends, second, side="right"), 6 * n_cycles - 1)
    phase = piece % 6
    phase = np.where(on_duty > 0, phase, 0)
    begins = np.concatenate([[first], ends[:-1]])
    share = np.clip((second - begins[piece]) / np.maximum(lengths.reshape(-1)[piece], 1.0), 0.0, 1.0)

    cycle = piece // 6
    low = chance.uniform(0.02, 0.12, n_cycles)[cycle]
    # A fifth of all loads travel with the forks just off the floor: true carries that a height rule misses.
    travels_low = chance.random(n_cycles) < 0.2
    travel = np.where(travels_low, chance.uniform(0.15, 0.33, n_cycles), chance.uniform(0.42, 0.9, n_cycles))[cycle]
    pick, place = (chance.uniform(0.1, 5.8, n_cycles)[cycle] for _ in range(2))
    in_lift = np.where(share < 0.5, low + (pick - low) * 2 * share, pick + (travel - pick) * (2 * share - 1))
    in_put = np.where(share < 0.6, travel + (place - travel) * share / 0.6, place + (low - place) * (share - 0.6) / 0.4)
    height = np.choose(phase, [low, low, in_lift, travel, in_put, low])
    held: list[Any] = [0, 0, share > 0.5, 1, share < 0.65, 0]
    loaded = np.choose(phase, held).astype(np.int8)

    eased = np.clip(8 * np.minimum(share, 1 - share), 0, 1)  # pulls away and brakes within an eighth of a phase
    hurry = chance.uniform(0.85, 1.15, n_cycles)[cycle]
    speed = np.choose(phase, [0.0, 11.0, 0.4, 5.6, 0.6, 12.0]) * eased * hurry * (1 + 0.12 * _drift(chance, second, 9))
    # An idle engine is no moving machine: speeds below 0.2 km/h are sent as 0.
    speed = np.where((on_duty > 0) & (speed > 0.2), speed, 0.0)
    if machine.truck:
        return phase, np.zeros(len(second)), np.zeros(len(second), np.int8), speed * 2.2
    return phase, np.where(on_duty > 0, height, 0.0), np.where(on_duty > 0, loaded, 0).astype(np.int8), speed


def _drift(chance: np.random.Generator, second: np.ndarray, every_s: int) -> np.ndarray:
    """Smooth noise with standard deviation of about one: a new value every so many seconds, lines between."""
    knots = np.arange(second[0], second[-1] + 2 * every_s, every_s)
    return np.interp(second, knots, chance.normal(0, 1, len(knots)))


def _places(
    chance: np.random.Generator, machine: Machine, second: np.ndarray, speed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude: a walk at that speed that is reflected at the yard's fences, with 1 m of jitter."""
    heading = np.cumsum(_drift(chance, second, 20) * 0.08)
    metres = speed / 3.6
    degrees = [metres * np.cos(heading) / 111_320, metres * np.sin(heading) / 71_000]
    corner = (51.05 + 0.01 * (machine.number % 7), 13.74 + 0.01 * (machine.number % 5))
    found = []
    for step, origin in zip(degrees, corner, strict=True):
        walked = np.cumsum(step) + chance.uniform(0, YARD_DEGREES)
        folded = np.abs((walked % (2 * YARD_DEGREES)) - YARD_DEGREES)
        found.append(origin + folded + chance.normal(0, 1e-5, len(second)))
    return found[0], found[1]


def _height_as_sent(chance: np.random.Generator, machine: Machine, height: np.ndarray) -> np.ndarray:
    sent = np.where(height > 0, np.maximum(height + chance.normal(0, 0.01, len(height)), 0.0), 0.0)
    if machine.height_fault == "broken":
        high = _drift(chance, np.arange(len(height)), 120) > 0.3
        return np.where(high, 20.0 + chance.uniform(0, 5, len(height)), sent)
    if machine.height_fault == "scaled":
        return sent * 2.4
    if machine.height_fault == "spiky":
        return np.where(chance.random(len(height)) < 0.002, 65.53, sent)
    return sent


def _load_as_sent(chance: np.random.Generator, machine: Machine, loaded: np.ndarray) -> np.ndarray:
    if machine.load_fault == "silent":
        return np.zeros_like(loaded)
    rate = {"flapping": 0.03, "none": 0.0005}[machine.load_fault]
    begins = chance.random(len(loaded)) < rate
    longer = np.roll(begins, 1) & (chance.random(len(loaded)) < 0.5)
    return np.where(begins | longer, 1 - loaded, loaded).astype(np.int8)


def _arrival(chance: np.random.Generator, n: int) -> np.ndarray:
    """The order in which rows arrive: one in 500 comes twice, one in 300 a few places late."""
    order = np.concatenate([np.arange(n), np.flatnonzero(chance.random(n) < 1 / 500)])
    late = np.where(chance.random(len(order)) < 1 / 300, chance.integers(2, 40, len(order)), 0)
    return order[np.argsort(order + late + np.linspace(0, 0.4, len(order)), kind="stable")]


def _at(second: np.ndarray) -> pl.Series:
    return pl.Series((second * 1_000_000).astype("datetime64[us]"))


def fleet_of(rows: int, *, seed: int = 42, machines_: int = 0) -> Fleet:
    """A fleet with about so many rows: 1,000 machines, or fewer for fewer rows than fill a day each."""
    count = machines_ or max(2, min(1000, rows // 40_000))
    trucks = max(1, count // 10)
    days = max(1, round(rows / count / 40_000))
    return replace(Fleet(), seed=seed, forklifts=count - trucks, trucks=trucks, days=days)


def names(fleet: Fleet) -> Iterator[str]:
    yield from (machine.name for machine in machines(fleet))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write simulated telemetry, one file a machine.")
    parser.add_argument("--into", type=Path, default=Path("landing/forklift/real_data"))
    parser.add_argument("--truth", type=Path, help="a folder for what truly happened (Parquet); left out: not written")
    parser.add_argument("--seed", type=int, default=Fleet.seed)
    parser.add_argument("--forklifts", type=int, default=Fleet.forklifts)
    parser.add_argument("--trucks", type=int, default=Fleet.trucks)
    parser.add_argument("--days", type=int, default=Fleet.days)
    asked = parser.parse_args()
    fleet = Fleet(asked.seed, asked.forklifts, asked.trucks, asked.days)
    written = write(fleet, asked.into, asked.truth)
    size = sum(path.stat().st_size for path in written)
    print(f"{len(written)} files, {size / 1e6:.1f} MB, in {asked.into}")


if __name__ == "__main__":
    main()
