"""How often is a regression or an anomaly cried that is none, and how soon is a real one seen? On generated histories.

    python scripts/false_alarms.py [--histories 2000] [--runs 120] [--seed 1]

A history is the seconds, rows and memory of one asset, run after run, on a machine with a kind of noise. `calm` has
nothing to find: every alarm in it is false, and they are counted for each thousand runs. `slower` becomes slower (or
larger, or worse) in the middle and stays so: what counts is the share of histories in which that was seen within five
runs, and how many runs it took. Plain arithmetic with the product's own code and defaults; no lake, no clock.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from typing import Any

from ratatouille.observe.during import lines_of
from ratatouille.observe.findings import of_point
from ratatouille.project.records import Observe

Noise = Callable[[random.Random, int], float]  # a factor for each run
SEEN_WITHIN = 5


def calm(sigma: float) -> Noise:
    return lambda chance, run: chance.lognormvariate(0, sigma)


def neighbour(chance: random.Random, run: int) -> float:
    """Every tenth run meets somebody else's work and takes up to twice as long."""
    return chance.lognormvariate(0, 0.05) * (chance.uniform(1.4, 2.2) if chance.random() < 0.1 else 1.0)


def busy_hours(chance: random.Random, run: int) -> float:
    """Runs come in bunches: of 24, three in a row meet a busy machine, and take half as long again."""
    return chance.lognormvariate(0, 0.05) * (1.5 if run % 24 in (8, 9, 10) else 1.0)


def spikes(chance: random.Random, run: int) -> float:
    return chance.lognormvariate(0, 0.1) * (chance.uniform(3, 10) if chance.random() < 0.02 else 1.0)


NOISES: dict[str, Noise] = {
    "calm, 3 %": calm(0.03),
    "usual, 8 %": calm(0.08),
    "noisy, 20 %": calm(0.20),
    "a neighbour, 1 run in 10": neighbour,
    "busy hours, 3 runs in 24": busy_hours,
    "spikes, 1 run in 50": spikes,
}


def same(chance: random.Random, run: int) -> float:
    return 1_000_000 * chance.lognormvariate(0, 0.02)


def growing(chance: random.Random, run: int) -> float:
    return 1_000_000 * 1.01**run * chance.lognormvariate(0, 0.01)


def weekly(chance: random.Random, run: int) -> float:
    return (250_000 if run % 7 in (5, 6) else 1_000_000) * chance.lognormvariate(0, 0.08)


def varying(chance: random.Random, run: int) -> float:
    return chance.lognormvariate(13, 0.6)


VOLUMES: dict[str, Noise] = {
    "as many rows": same,
    "growing 1 % a run": growing,
    "a quarter at weekends": weekly,
    "any number of rows": varying,
}


def history(
    chance: random.Random, runs: int, noise: Noise, volume: Noise, change: dict[str, float]
) -> list[dict[str, Any]]:
    """Points, oldest first. From the middle on each figure is multiplied by what `change` says of it."""
    points = []
    for run in range(runs):
        rows = volume(chance, run)
        factor = dict.fromkeys(("seconds", "memory", "rows", "kept"), 1.0) | (change if run >= runs // 2 else {})
        rows *= factor["rows"]
        seconds = (2 + 8 * rows / 1_000_000) * noise(chance, run) * factor["seconds"]
        kept = 0.01 * rows * chance.lognormvariate(0, 0.3) if factor["kept"] == 1.0 else factor["kept"] * rows
        memory = (3e8 + 200 * rows) * chance.lognormvariate(0, 0.04) * factor["memory"]
        points.append(
            {
                "asset": "silver.a", "run_id": str(run), "attempt": 1, "at": float(run), "status": "built",
                "mode": "full", "profile": "p", "version": run, "seconds": seconds, "rows_in": round(rows),
                "rows_written": round(rows - kept), "rows_total": round(rows), "rows_kept_out": round(kept),
                "peak_memory_bytes": round(memory), "measured": {"stages": {"build": seconds}}, "checks": {},
            }
        )  # fmt: skip
    return points


def alarms(points: list[dict[str, Any]], settings: Observe) -> dict[str, list[int]]:
    """The runs in which each figure was an alarm that somebody would be told of."""
    found: dict[str, list[int]] = {}
    known: dict[tuple[str, str], str] = {}
    for run in range(len(points)):
        earlier = points[max(0, run - 40) : run][::-1]
        for one in of_point(points[run], earlier, settings, known):
            known[one.run_id, one.figure] = one.level
            if one.level != "suspect" and " of " not in one.figure:
                found.setdefault(one.figure, []).append(run)
    return found


def false_rate(figure: str, noise: Noise, volume: Noise, count: int, runs: int, seed: int) -> tuple[float, float]:
    """(alarms, alarms that begin) for each thousand runs: one that lasts for three runs is told once."""
    chance, total, begun = random.Random(seed), 0, 0  # noqa: S311  generated histories
    for _ in range(count):
        found = alarms(history(chance, runs, noise, volume, {}), Observe()).get(figure, [])
        total += len(found)
        begun += sum(1 for run in found if run - 1 not in found)
    return 1000 * total / (count * runs), 1000 * begun / (count * runs)


def detection(
    figure: str, change: dict[str, float], noise: Noise, volume: Noise, count: int, runs: int, seed: int
) -> tuple[float, float]:
    """(share seen within SEEN_WITHIN runs, median number of runs that it took where it was seen)."""
    chance, delays = random.Random(seed), []  # noqa: S311
    for _ in range(count):
        found = alarms(history(chance, runs, noise, volume, change), Observe()).get(figure, [])
        after = [run - runs // 2 + 1 for run in found if run >= runs // 2]
        if after and after[0] <= SEEN_WITHIN:
            delays.append(after[0])
    return len(delays) / count, sorted(delays)[len(delays) // 2] if delays else 0.0


def overdue(noise: Noise, volume: Noise, count: int, runs: int, seed: int) -> tuple[float, float]:
    """Of steps of ten minutes: (told as overdue in 1,000 runs though nothing is wrong, after how many times the usual
    time a step that hangs is told, as the median)."""
    chance, told, late = random.Random(seed), 0, []  # noqa: S311
    least, window = Observe().at_least, Observe().window
    for _ in range(count):
        seconds = [60 * point["seconds"] for point in history(chance, runs, noise, volume, {})]
        for run in range(least, runs):
            before = seconds[max(0, run - window) : run]
            line = lines_of(max(before))[0][1]
            told += seconds[run] > line
            late.append(line / sorted(before)[len(before) // 2])
    return 1000 * told / (count * (runs - least)), sorted(late)[len(late) // 2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument("--runs", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    at = (asked.histories, asked.runs, asked.seed)
    print(f"{asked.histories} histories of {asked.runs} runs for each cell, seed {asked.seed}\n")
    print("| noise of the machine | false alarms in 1000 runs | +15 % | +30 % | +60 % | x2 | runs until seen (+60 %) |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, noise in NOISES.items():
        _, begun = false_rate("seconds", noise, same, *at)
        seen = [detection("seconds", {"seconds": by}, noise, same, *at) for by in (1.15, 1.3, 1.6, 2.0)]
        print(f"| {name} | {begun:.2f} | " + " | ".join(f"{share:.0%}" for share, _ in seen) + f" | {seen[2][1]:.0f} |")
    print(
        "\n| rows | false alarms of seconds | of rows | of memory | of quality | slower by 60 % seen | rows x3 seen |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, volume in VOLUMES.items():
        calm_one = NOISES["usual, 8 %"]
        rates = [false_rate(figure, calm_one, volume, *at)[1] for figure in ("seconds", "rows", "memory", "quality")]
        slow = detection("seconds", {"seconds": 1.6}, calm_one, volume, *at)[0]
        many = detection("rows", {"rows": 3.0}, calm_one, volume, *at)[0]
        print(f"| {name} | " + " | ".join(f"{rate:.2f}" for rate in rates) + f" | {slow:.0%} | {many:.0%} |")
    print(
        "\n| steps of ten minutes | false alarms of overdue | a step that hangs is told after so many times the usual |"
    )
    print("|---|---:|---:|")
    everything = {name: (noise, same) for name, noise in NOISES.items()}
    everything |= {name: (NOISES["usual, 8 %"], volume) for name, volume in VOLUMES.items() if volume is not same}
    for name, (noise, volume) in everything.items():
        rate, times = overdue(noise, volume, *at)
        print(f"| {name} | {rate:.2f} | {times:.1f} |")
    usual = NOISES["usual, 8 %"]
    for said, figure, change in (
        ("rows to a third", "rows", {"rows": 1 / 3}),
        ("rows to none", "rows", {"rows": 0.0}),
        ("memory +30 %", "memory", {"memory": 1.3}),
        ("memory +60 %", "memory", {"memory": 1.6}),
        ("7 % of the rows kept out instead of 1 %", "quality", {"kept": 0.07}),
        ("20 % kept out", "quality", {"kept": 0.20}),
    ):
        share, runs = detection(figure, change, usual, same, *at)
        print(f"\n{said}: seen in {share:.0%} of the histories, after {runs:.0f} run(s) as the median", end="")
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
