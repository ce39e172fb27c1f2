"""DuckDB by hand: what the machine can do when nobody is there to help.

parquet    parquet files, ROW_NUMBER over everything, exact uniqueness; a delta rewrites silver
ducklake   a DuckLake with a SQLite catalog, the same SQL, a delta is a MERGE, one commit per stage
limit      the same lake with the best SQL we know (see README): the mark for Ratatouille

Each stage is a SQL file in the project folder, run by worker.py in a new process.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from measure import Command
from systems.system import WORKER, plain_env, write
from workload import GOLD, LATEST, TIDY, VALID, Job, Tables

LAKE_TABLES = Tables((), "lake.bronze.events", "lake.silver.events", "lake.gold.sales")
ORIGIN = "* exclude (filename), filename as _file, now()::timestamp as _loaded_at, '{run}' as _run_id"
DAY = "read_parquet('landing/events/events-{day}-*.parquet', filename = true)"
SAME_ROW = "a.event_id = b.event_id and a.updated_at is not distinct from b.updated_at"
# Thirty-two bits of the hash make smaller groups; a false alarm only sends a few more rows to the exact step.
MARK = "cast(hash(event_id) >> 32 as uinteger)"


@dataclass(frozen=True, slots=True)
class Raw:
    name: str  # parquet | ducklake | limit
    stages: frozenset[str] = frozenset({"full", "delta"})

    @property
    def trivial_stages(self) -> frozenset[str]:
        return frozenset({"full"}) if self.name == "limit" else frozenset()

    @property
    def ingests(self) -> bool:
        return self.name != "parquet"

    def prepare(self) -> str:
        versions = "import duckdb; print('duckdb ' + duckdb.__version__)"
        return subprocess.run(
            [sys.executable, "-c", versions], check=True, capture_output=True, text=True
        ).stdout.strip()

    def start(self, folder: Path, job: Job) -> None:
        build = {"parquet": _parquet, "ducklake": _ducklake, "limit": _limit}[self.name]
        for stage in ("full", "delta"):
            write(folder, {f"{stage}.sql": script([*self._open(job, stage), *build(stage, job)])})
        for layer in ("bronze", "silver", "gold"):
            (folder / "files" / layer).mkdir(parents=True)

    def start_trivial(self, folder: Path, count: int, job: Job) -> None:
        tables = ["create table lake.bronze.base as select 1 as id"]
        tables += [
            f"create table lake.silver.t{n} as select id, {n} as n from lake.bronze.base" for n in range(1, count)
        ]
        write(folder, {"full.sql": script([*self._open(job, "full"), "begin", *tables, "commit"])})

    def start_ingest(self, folder: Path, job: Job) -> None:
        columns = ", ".join(f"'{name}': '{kind}'" for name, kind in job.columns.items())
        csv = f"read_csv('landing/events/*.csv', header = true, filename = true, columns = {{{columns}}})"
        load = f"create table lake.bronze.events as select {ORIGIN.format(run='one')} from {csv}"
        write(folder, {"ingest.sql": script([*self._open(job, "full"), load])})

    def command(self, folder: Path, stage: str) -> Command:
        return Command([sys.executable, str(WORKER), "script", f"{stage}.sql"], folder, plain_env())

    def tables(self, folder: Path) -> Tables:
        if self.name == "parquet":
            # Silver is the newest rewrite, never both.
            newest = "delta" if list(folder.glob("files/silver/delta-*")) else "full"
            files = ("bronze/*", f"silver/{newest}-*", "gold/*")
            return Tables((), *(f"read_parquet('files/{file}.parquet')" for file in files))
        return Tables((attach(read_only=True),), LAKE_TABLES.bronze, LAKE_TABLES.silver, LAKE_TABLES.gold)

    def _open(self, job: Job, stage: str) -> list[str]:
        opened = [f"set threads = {job.threads}", f"set memory_limit = '{job.memory}'"]
        if self.name == "parquet":
            return opened
        # Rows of a tiny table in the catalog cost more than its file does: 4.4 s against 3.3 s for 1000 tables.
        opened.append(attach(read_only=False, options=", data_inlining_row_limit 0" if self.name == "limit" else ""))
        if stage == "full":
            if self.name == "limit":
                # Delta encodings: half the bytes, a fifth less time to write, and half the time to read.
                opened.append("call lake.set_option('parquet_version', '2')")
            opened += [f"create schema lake.{layer}" for layer in ("bronze", "silver", "gold")]
        return opened


SYSTEMS = (Raw("parquet"), Raw("ducklake"), Raw("limit"))


def attach(*, read_only: bool, catalog: str = "catalog.sqlite", options: str = "") -> str:
    """ATTACH as `lake`, from within the project folder. An existing lake knows its data path."""
    mode = "read_only, create_if_not_exists false" if read_only else "data_path 'data/', meta_journal_mode 'WAL'"
    return f"attach 'ducklake:sqlite:{catalog}' as lake ({mode}{options})"


def script(statements: list[str]) -> str:
    return ";\n".join(statements)


def stop_if(bad: str, table: str, message: str) -> str:
    """A gate: the statement fails when the aggregate condition `bad` holds for `table`."""
    return f"select case when {bad} then error('{message}') end from {table}"


def _landed(stage: str) -> str:
    day = DAY.format(day="2026-01-01" if stage == "full" else "2026-01-02")
    return f"select {ORIGIN.format(run=stage)} from {day}"


def _gates(table: str, distinct: str = "count(distinct event_id)") -> str:
    bad = f"count(*) filter (event_id is null or not total > 0) > 0 or count(*) <> {distinct}"
    return stop_if(bad, table, "a gate failed")


def _parquet(stage: str, job: Job) -> list[str]:
    """Bronze grows by files; silver and gold are written anew, since a parquet file cannot change."""
    options = "(format parquet, per_thread_output true, overwrite_or_ignore true, filename_pattern '{stage}-{{i}}')"
    options = options.format(stage=stage)
    bronze = f"read_parquet('files/bronze/{stage}-*.parquet')"
    silver = f"read_parquet('files/silver/{stage}-*.parquet')"
    tidy = f"{TIDY.format(bronze=bronze)} qualify {LATEST}"
    if stage == "delta":
        old = "read_parquet('files/silver/full-*.parquet')"
        kept = f"select * from {old} anti join delta using (event_id)"
        tidy = f"with delta as materialized ({tidy}) {kept} union all from delta"
    return [
        f"copy ({_landed(stage)}) to 'files/bronze' {options}",
        f"copy ({tidy}) to 'files/silver' {options}",
        _gates(silver),
        f"copy ({GOLD.format(silver=silver)}) to 'files/gold/gold.parquet' (format parquet)",
    ]


def _ducklake(stage: str, job: Job) -> list[str]:
    lake = LAKE_TABLES
    if stage == "full":
        return [
            "begin",
            f"create table {lake.bronze} as {_landed(stage)}",
            f"create table {lake.silver} as {TIDY.format(bronze=lake.bronze)} qualify {LATEST}",
            _gates(lake.silver),
            f"create table {lake.gold} as {GOLD.format(silver=lake.silver)}",
            "commit",
        ]
    return ["begin", *_merge_delta(), _gates(lake.silver), *_new_gold(), "commit"]


def _limit(stage: str, job: Job) -> list[str]:
    if stage == "delta":
        # Target keys are unique already and MERGE is the only writer: gates on the delta are gates on the table.
        append, tidy, merge = _merge_delta()
        return ["begin", append, tidy, _gates("delta"), merge, *_new_gold(), "commit"]
    lake = LAKE_TABLES
    tidy = TIDY.format(bronze=lake.bronze)
    narrow = f"select event_id, updated_at from {lake.bronze} where {VALID}"
    return [
        "begin",
        f"create table {lake.bronze} as {_landed(stage)}",
        # 1. Which keys may repeat? 2. Rank only their rows. 3. Keep all rows but the losers.
        f"create temp table repeated as select {MARK} as mark from ({narrow}) group by 1 having count(*) > 1",
        f"""create temp table ranked as
            select event_id, updated_at, row_number() over (partition by event_id order by updated_at desc) as place
            from ({narrow}) where {MARK} in (select mark from repeated)""",
        # A winner and a loser with one (key, time) could not be told apart in step 3.
        stop_if("count(*) > 0", f"ranked as a join ranked as b on {SAME_ROW} and a.place = 1 and b.place > 1", "a tie"),
        f"create table {lake.silver} as from ({tidy}) as a anti join ranked as b on {SAME_ROW} and b.place > 1",
        *_unique_gate(job),
        f"create table {lake.gold} as {GOLD.format(silver=lake.silver)}",
        "commit",
    ]


def _unique_gate(job: Job) -> list[str]:
    """Whole numbers in a modest range are proved unique by a bitmap, other keys by their 64-bit hash.

    Equal counts prove uniqueness: two equal keys have equal hashes. Unequal ones would call for the exact query.
    """
    silver = LAKE_TABLES.silver
    if job.key != "bigint":
        return [_gates(silver, "count(distinct hash(event_id))")]
    bounds = "getvariable('ends').low, getvariable('ends').high"
    return [
        f"set variable ends = (select {{low: min(event_id), high: max(event_id)}} from {silver})",
        _gates(silver, f"bit_count(bitstring_agg(event_id, {bounds}))"),
    ]


def _merge_delta() -> list[str]:
    lake = LAKE_TABLES
    new = f"{TIDY.format(bronze=lake.bronze)} and _loaded_at > (select max(_loaded_at) from {lake.silver})"
    return [
        f"insert into {lake.bronze} {_landed('delta')}",
        f"create temp table delta as {new} qualify {LATEST}",
        f"""merge into {lake.silver} as old using delta as new on old.event_id = new.event_id
            when matched then update
            when not matched then insert""",
    ]


def _new_gold() -> list[str]:
    lake = LAKE_TABLES
    return [f"create or replace table {lake.gold} as {GOLD.format(silver=lake.silver)}"]
