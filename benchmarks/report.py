"""From samples to medians, ratios and goals, as Markdown for people and JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from scenarios import Found, Sample


@dataclass(frozen=True, slots=True)
class Goal:
    """`ours` divided by `theirs`, medians of one measure, is at most `limit`."""

    text: str
    scenario: str
    ours: tuple[str, str]  # (system, stage)
    theirs: tuple[str, str]
    limit: float
    measure: str = "wall_s"
    rows: int = 0  # holds for this many rows; 0: any


FULL, NOOP, DELTA = ("rat", "full"), ("rat", "noop"), ("rat", "delta")
GOALS = (
    Goal("full load against the best SQL by hand", "full", FULL, ("limit", "full"), 1.10, rows=10_000_000),
    Goal("full load against dbt", "full", FULL, ("dbt", "full"), 0.55, rows=10_000_000),
    Goal("memory of the full load against raw DuckLake", "full", FULL, ("ducklake", "full"), 1.2, "rss_bytes"),
    Goal("memory of the full load against the best SQL", "full", FULL, ("limit", "full"), 1.2, "rss_bytes"),
    Goal("delta against dbt", "full", DELTA, ("dbt", "delta"), 1 / 6, rows=10_000_000),
    Goal("delta against SQLMesh", "full", DELTA, ("sqlmesh", "delta"), 1 / 4, rows=10_000_000),
    Goal("memory of the delta against raw DuckLake", "full", DELTA, ("ducklake", "delta"), 1.2, "rss_bytes"),
    Goal("nothing to do, 3 tables, against dbt run", "trivial", ("rat", "3 noop"), ("dbt", "3 noop"), 1 / 10),
    Goal(
        "nothing to do, 1000 tables, against SQLMesh", "trivial", ("rat", "1000 noop"), ("sqlmesh", "1000 noop"), 1 / 10
    ),
    Goal("building 1000 tables against dbt", "trivial", ("rat", "1000 full"), ("dbt", "1000 full"), 1 / 10),
    Goal("ingestion: raw rows/s divided by ours", "ingest", ("rat", "ingest"), ("limit", "ingest"), 1 / 0.9),
)


def medians(samples: list[Sample]) -> dict[tuple[str, str], dict[str, float]]:
    """(system, stage) -> median, lowest and highest wall, median CPU and peak."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.system, sample.stage), []).append(sample)
    return {
        key: {
            "wall_s": median(s.wall_s for s in group),
            "wall_low_s": min(s.wall_s for s in group),
            "wall_high_s": max(s.wall_s for s in group),
            "cpu_s": median(s.cpu_s for s in group),
            "rss_bytes": median(s.rss_bytes for s in group),
            "runs": len(group),
        }
        for key, group in groups.items()
    }


def goals(found: Found) -> list[dict[str, Any]]:
    middle = medians(found.samples)
    judged = []
    for goal in GOALS:
        asked = goal.scenario == found.scenario and goal.rows in (0, found.job.rows)
        if asked and goal.ours in middle and goal.theirs in middle:
            ratio = middle[goal.ours][goal.measure] / middle[goal.theirs][goal.measure]
            judged.append({"goal": goal.text, "ratio": ratio, "at_most": goal.limit, "met": ratio <= goal.limit})
    return judged


def machine() -> str:
    """What the numbers depend on, without saying whose machine it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def quiet(found: Found) -> bool:
    """Whether the machine was ours: the rounds themselves keep the load near the number of cores, not above."""
    return median(found.loads) <= (os.cpu_count() or 1) + 1


def _quiet_text(found: Found) -> str:
    return (
        "" if quiet(found) else "**The machine had other work: compare CPU seconds, and quote no wall time or goal.**"
    )


def write(found: Found, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    stem = "trivial" if found.scenario == "trivial" else f"{found.scenario}-{found.job.rows}-{found.job.key}"
    record = {
        "scenario": found.scenario,
        "measured_at": _today(),
        "machine": machine(),
        "rows": found.job.rows,
        "key": found.job.key,
        "seed": found.job.seed,
        "threads": found.job.threads,
        "memory": found.job.memory,
        "versions": found.versions,
        "quiet": quiet(found),
        "load_average": [round(load, 2) for load in found.loads],
        "medians": [{"system": s, "stage": g, **m} for (s, g), m in medians(found.samples).items()],
        "goals": goals(found),
        "failures": found.failures,
        "samples": [asdict(sample) for sample in found.samples],
    }
    paths = [folder / f"{stem}.json", folder / f"{stem}.md"]
    paths[0].write_text(json.dumps(record, indent=2) + "\n")
    paths[1].write_text(markdown(found))
    return paths


def markdown(found: Found) -> str:
    middle = medians(found.samples)
    job = found.job
    size = "" if found.scenario == "trivial" else f", {job.rows:,} rows, key {job.key}"
    lines = [
        f"# {found.scenario}{size}",
        "",
        f"{_today()} · {machine()} · DuckDB: {job.threads} threads, {job.memory} at most",
    ]
    lines += [
        "",
        f"Load average before each round: {', '.join(f'{load:.1f}' for load in found.loads)}. {_quiet_text(found)}",
    ]
    lines += ["", *(f"- {name}: {version}" for name, version in found.versions.items())]
    for stage in dict.fromkeys(stage for _, stage in middle):
        lines += ["", f"## {stage}", "", *_table(found, middle, stage)]
    lines += _goal_lines(found)
    if found.failures:
        lines += ["", "## Left out", "", *(f"- {name}: {_one_line(why)}" for name, why in found.failures.items())]
    return "\n".join(lines) + "\n"


def _table(found: Found, middle: dict[tuple[str, str], dict[str, float]], stage: str) -> list[str]:
    marks = [mark for mark in ("limit", "dbt", "sqlmesh") if (mark, stage) in middle]
    ingest = found.scenario == "ingest"
    heads = ["system", "wall s", "lowest-highest", "CPU s", "peak MB", *(["rows/s"] if ingest else [])]
    heads += [f"{what} / {mark}" for mark in marks for what in ("wall", "CPU")]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for (system, its_stage), m in middle.items():
        if its_stage != stage:
            continue
        cells = [system, f"{m['wall_s']:.2f}", f"{m['wall_low_s']:.2f}-{m['wall_high_s']:.2f}", f"{m['cpu_s']:.2f}"]
        cells += [f"{m['rss_bytes'] / 2**20:.0f}", *([f"{found.job.rows / m['wall_s']:,.0f}"] if ingest else [])]
        cells += [f"{m[what] / middle[mark, stage][what]:.2f}" for mark in marks for what in ("wall_s", "cpu_s")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _goal_lines(found: Found) -> list[str]:
    judged = goals(found)
    if not judged:
        return []
    lines = ["", "## Goals", "", "| goal | ratio | at most | |", "|---|---:|---:|---|"]
    met = {True: "met", False: "missed"}
    return lines + [f"| {g['goal']} | {g['ratio']:.2f} | {g['at_most']:.2f} | {met[g['met']]} |" for g in judged]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
