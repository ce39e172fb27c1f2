"""The scenarios, interleaved: every system does one round before any does its next.

full      bronze -> silver -> gold from nothing, once more with nothing to do, then 10k new + 10k updated events
trivial   3 / 200 / 1000 tables of one row: build them, then nothing to do
ingest    one CSV file with explicit columns into bronze

A timing counts only after the tables it left behind gave the expected answer.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import events
from measure import Command, CommandFailed, measure
from systems.system import WORKER, System, plain_env
from workload import Job, expected_sql

ANSWER_CSV = (
    "select count(*) as n, cast(sum(unit_price) as varchar) as price, cast(sum(hash({all}) >> 32) as varchar) as d"
)


@dataclass(frozen=True, slots=True)
class Sample:
    system: str
    stage: str
    run: int
    wall_s: float
    cpu_s: float
    rss_bytes: int


@dataclass(slots=True)
class Found:
    scenario: str
    job: Job
    versions: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # system -> why it was left out
    loads: list[float] = field(default_factory=list)  # other work on the machine, load average before each round


class WrongAnswer(Exception):
    """A system's tables differ from the expected ones: its timings mean nothing."""


def run(scenario: str, systems: list[System], job: Job, asked: argparse.Namespace, runs: Path) -> Found:
    found = Found(scenario, job)
    play = {"full": _pipeline_round, "trivial": _trivial_round, "ingest": _ingest_round}[scenario]
    prepared = generate(scenario, job)
    able = [s for s in systems if scenario != "ingest" or s.ingests]
    for system in able:
        try:
            found.versions[system.name] = system.prepare()
        except Exception as error:
            found.failures[system.name] = _short(error)
    for number in range(asked.runs):
        found.loads.append(os.getloadavg()[0])
        # Every other round goes backwards, so that a slow drift of the machine hits all alike.
        for system in able if number % 2 == 0 else reversed(able):
            if system.name in found.failures:
                continue
            folder = runs / system.name
            try:
                for part in asked.counts if scenario == "trivial" else [0]:
                    shutil.rmtree(folder, ignore_errors=True)
                    (folder / "landing" / "events").mkdir(parents=True)
                    found.samples += play(system, folder, job, prepared, part, number)
            except (CommandFailed, WrongAnswer, NotImplementedError) as error:
                found.failures[system.name] = _short(error)
                print(f"{system.name} is left out: {error}", file=sys.stderr)
    if not asked.keep:
        shutil.rmtree(runs, ignore_errors=True)
    return found


def _pipeline_round(system: System, folder: Path, job: Job, expected: Any, _: int, number: int) -> list[Sample]:
    system.start(folder, job)
    samples = []
    for stage, day in (("full", events.DAY_ONE), ("noop", ""), ("delta", events.DAY_TWO)):
        if day:
            _land(job.data, f"events-{day}-*.parquet", folder)
        if stage not in system.stages:
            continue
        samples.append(_sample(system, folder, stage, stage, number))
        tables = system.tables(folder)
        answer = ask([*tables.attach, tables.answer_sql], folder)
        _compare(answer, expected["delta" if stage == "delta" else "full"], f"{system.name} {stage}")
    return samples


def _trivial_round(system: System, folder: Path, job: Job, _: Any, count: int, number: int) -> list[Sample]:
    if not system.trivial_stages:
        return []
    system.start_trivial(folder, count, job)
    samples = []
    for stage in ("full", "noop", "noop_cold"):
        if stage not in system.trivial_stages:
            continue
        samples.append(_sample(system, folder, stage, f"{count} {stage}", number))
        tables = system.tables(folder)
        last = tables.silver.rpartition(".")[0] + f".t{count - 1}"
        tables_there = "(select count(*) from information_schema.tables where regexp_full_match(table_name, 't[0-9]+'))"
        answer = ask([*tables.attach, f"select {tables_there} as readers, id, n from {last}"], folder)
        _compare(answer, {"readers": count - 1, "id": 1, "n": count - 1}, f"{system.name} {count} {stage}")
    return samples


def _ingest_round(system: System, folder: Path, job: Job, expected: Any, _: int, number: int) -> list[Sample]:
    _land(job.data, "events.csv", folder)
    system.start_ingest(folder, job)
    sample = _sample(system, folder, "ingest", "ingest", number)
    tables = system.tables(folder)
    answer = ask([*tables.attach, f"{ANSWER_CSV.format(all=', '.join(job.columns))} from {tables.bronze}"], folder)
    _compare(answer, expected["ingest"], f"{system.name} ingest")
    return [sample]


def _sample(system: System, folder: Path, stage: str, label: str, number: int) -> Sample:
    took = measure(system.command(folder, stage), folder / "log.txt")
    print(
        f"{system.name:9} {label:14} run {number + 1}  wall {took.wall_s:7.2f} s  cpu {took.cpu_s:7.2f} s  "
        f"peak {took.rss_bytes / 2**20:6.0f} MB",
        flush=True,
    )
    return Sample(system.name, label, number, took.wall_s, took.cpu_s, took.rss_bytes)


def _land(data: Path, pattern: str, folder: Path) -> None:
    """Landing files arrive as hard links: no system pays for the copy, none can change another's input."""
    for path in sorted(data.glob(pattern)):
        os.link(path, folder / "landing" / "events" / path.name)


def _compare(answer: dict[str, Any], expected: dict[str, Any], where: str) -> None:
    different = {key: (answer.get(key), value) for key, value in expected.items() if answer.get(key) != value}
    if different:
        raise WrongAnswer(f"{where}: {', '.join(f'{k} is {a}, expected {e}' for k, (a, e) in different.items())}")


def ask(statements: list[str], folder: Path) -> dict[str, Any]:
    """The first row of the last statement. Not measured."""
    file = folder / "ask.sql"
    file.write_text(";\n".join(statements))
    took = measure(Command([sys.executable, str(WORKER), "ask", file.name], folder, plain_env()), folder / "ask.txt")
    answer: dict[str, Any] = json.loads(took.output)
    return answer


def generate(scenario: str, job: Job) -> dict[str, Any]:
    """Write the landing files once; return the expected answers by stage."""
    if scenario == "trivial":
        return {}
    job.data.mkdir(parents=True, exist_ok=True)
    remembered = job.data / f"expected-{scenario}.json"
    if remembered.exists():
        known: dict[str, Any] = json.loads(remembered.read_text())
        return known
    limit = f"set memory_limit = '{job.memory}'"
    if scenario == "ingest":
        plan = events.events_sql(0, job.rows, job.rows, job.key, job.seed)
        ask([limit, f"copy ({plan}) to 'events.csv' (header true)"], job.data)
        columns = ", ".join(f"'{name}': '{kind}'" for name, kind in job.columns.items())
        csv = f"read_csv('events.csv', header = true, columns = {{{columns}}})"
        answers = {"ingest": ask([limit, f"{ANSWER_CSV.format(all=', '.join(job.columns))} from {csv}"], job.data)}
    else:
        for stem, first, last in events.file_plan(job.rows):
            plan = events.events_sql(first, last, job.rows, job.key, job.seed)
            ask([limit, f"copy ({plan}) to '{stem}.parquet' (format parquet)"], job.data)
        files = {"full": f"'events-{events.DAY_ONE}-*.parquet'", "delta": "'events-*.parquet'"}
        answers = {stage: ask([limit, expected_sql(names)], job.data) for stage, names in files.items()}
    remembered.write_text(json.dumps(answers, indent=2))
    return answers


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[-400:]}"
