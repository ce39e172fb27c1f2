"""A workspace on rows as the world writes them, built through the command alone.

Laps of races: gzipped JSON arrays with nested lists and nulls. Awards: a CSV of 42 columns with text over several
lines. What the lake says is compared with what Python's own readers find in the files. Each test runs twice: on the
folder of real rows where RATATOUILLE_REAL_DATA names one, and on seeded stand-ins of the same shape, always.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

WORKSPACE = {
    "workspace.yaml": "name: rows\nresources: {memory: 1GB, threads: 2}\n",
    "pipelines/f1/bronze/laps.sql": "select * from {{ source('landing/laps/*.json.gz') }}",
    "pipelines/f1/bronze/laps.yaml": "materialize: append\ncolumns: {lap_number: {checks: [not_null, positive]}}",
    "pipelines/f1/silver/laps.sql": """
select
    session_key,
    driver_number,
    lap_number,
    lap_duration,
    len(segments_sector_1) as n_segments,
    _loaded_at
from {{ ref('bronze.laps') }}
{% if is_incremental() %} where _loaded_at > {{ watermark('_loaded_at') }} {% endif %}
""",
    "pipelines/f1/silver/laps.yaml": """
materialize: merge
unique_key: [session_key, driver_number, lap_number]
on_fail: quarantine
columns: {lap_duration: {checks: [not_null, positive]}}
""",
    "pipelines/f1/gold/best_laps.sql": """
select session_key, driver_number, min(lap_duration) as best_s, count(*) as laps
from {{ ref('silver.laps') }}
group by all
""",
    "pipelines/sbir/bronze/awards.sql": "select * from {{ source('landing/awards/*.csv.gz') }}",
    "pipelines/sbir/bronze/awards.yaml": "materialize: append",
    "pipelines/sbir/silver/awards.sql": """
select
    "Company" as company,
    "Agency Tracking Number" as tracking_number,
    "Phase" as phase,
    cast(replace(replace("Award Amount", '$', ''), ',', '') as decimal(18, 2)) as amount,
    "Abstract" as abstract
from {{ ref('bronze.awards') }}
""",
    "pipelines/sbir/silver/awards.yaml": "columns: {tracking_number: {checks: [not_null]}, amount: {checks: [{range: {min: 0}}]}}",
}


@dataclass(frozen=True)
class Rows:
    """Landing files, and what they hold by Python's own readers."""

    laps: list[Path]
    awards: Path

    def lap_rows(self, files: int | None = None) -> list[dict[str, Any]]:
        return [row for path in self.laps[:files] for row in json.loads(gzip.decompress(path.read_bytes()))]

    def award_rows(self) -> list[dict[str, str]]:
        with gzip.open(self.awards, "rt", encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))


@pytest.fixture(scope="module", params=[pytest.param("real", marks=pytest.mark.real_data), "stand-in"])
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    if request.param == "real":
        folder = request.getfixturevalue("real_data")
        return Rows(sorted((folder / "f1/laps").glob("*.json.gz")), folder / "sbir/award_data_42col.csv.gz")
    return stand_in(tmp_path_factory.mktemp("stand-in"))


def stand_in(folder: Path) -> Rows:
    """Files of the same shape: late nulls, lists with nulls, dates in two spellings, quotes and line ends in text."""
    chance = random.Random(20240609)
    laps = []
    for session in range(7001, 7013):
        path = folder / f"laps_{session}.json.gz"
        path.write_bytes(gzip.compress(json.dumps(list(_laps(chance, session))).encode(), mtime=0))
        laps.append(path)
    buffer = io.StringIO(newline="")
    awards = list(_awards(chance, 700))
    writer = csv.DictWriter(buffer, list(awards[0]), quoting=csv.QUOTE_MINIMAL)
    writer.writeheader()
    writer.writerows(awards)
    path = folder / "awards.csv.gz"
    path.write_bytes(gzip.compress(buffer.getvalue().encode(), mtime=0))
    return Rows(laps, path)


def _laps(chance: random.Random, session: int) -> Iterator[dict[str, Any]]:
    for driver in range(1, 11):
        for lap in range(1, 31):
            fraction = "" if chance.random() < 0.1 else ".604000"
            yield {
                "session_key": session,
                "driver_number": driver,
                "lap_number": lap,
                "date_start": f"2024-06-09T18:{lap:02}:11{fraction}+00:00" if lap > 1 else None,
                "lap_duration": None if chance.random() < 0.01 else round(chance.uniform(70, 110), 3),
                "segments_sector_1": [chance.choice([2048, 2049, None]) for _ in range(chance.randint(0, 7))],
                "is_pit_out_lap": chance.random() < 0.05,
            }


def _awards(chance: random.Random, count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        text = chance.choice(
            ["Plain.", 'A "quoted", word', "Two\nlines", "Three\r\nwindows\r\nlines", "naïve Ω – dash", ""]
        )
        named = {
            "Company": f"Company {chance.randint(1, 200)}, Inc.",
            "Agency Tracking Number": f"N{number % 650:05}",
            "Phase": chance.choice(["Phase I", "Phase II"]),
            "Award Amount": f"${chance.randint(50_000, 1_500_000):,}.00",
            "Abstract": text * chance.randint(1, 20),
        }
        yield named | {f"Field {n}": chance.choice(["", "N", "Y", "01-31-2018"]) for n in range(42 - len(named))}


def rat(folder: Path, *arguments: str) -> Any:
    """Run the command with --json and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ratatouille.cli", *arguments, "--json"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def ask(folder: Path, sql: str) -> list[Any]:
    answer = rat(folder, "query", sql)
    return list(answer[0].values())


def steps(result: Any) -> dict[str, Any]:
    return {step["asset"]: step for step in result["steps"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in WORKSPACE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "landing/laps").mkdir(parents=True)
    (tmp_path / "landing/awards").mkdir()
    return tmp_path


def test_laps_arrive_in_two_lots(rows: Rows, folder: Path) -> None:
    for path in rows.laps[:8]:
        shutil.copy(path, folder / "landing/laps")
    first = steps(rat(folder, "run", "pipeline:f1"))
    assert first["bronze.laps"]["rows_written"] == len(rows.lap_rows(8))
    for path in rows.laps[8:]:
        shutil.copy(path, folder / "landing/laps")
    second = steps(rat(folder, "run", "pipeline:f1"))
    assert (second["bronze.laps"]["mode"], len(second["bronze.laps"]["files"])) == ("incremental", 4)

    all_rows = rows.lap_rows()
    timed = [row for row in all_rows if row["lap_duration"] is not None]
    segments = [row["segments_sector_1"] for row in all_rows if row["segments_sector_1"] is not None]
    found = ask(
        folder,
        "select count(*)::bigint, count(distinct _file), sum(len(segments_sector_1))::bigint,"
        " (select sum(s) from (select unnest(segments_sector_1) as s from bronze.laps))::bigint from bronze.laps",
    )
    assert found == [len(all_rows), 12, sum(map(len, segments)), sum(s or 0 for one in segments for s in one)]
    assert ask(folder, "select count(*), round(sum(lap_duration), 3) from silver.laps") == [
        len(timed),
        pytest.approx(round(sum(row["lap_duration"] for row in timed), 3), abs=0.01),
    ]
    assert ask(folder, "select sum(laps)::bigint, round(min(best_s), 3) from gold.best_laps") == [
        len(timed),
        round(min(row["lap_duration"] for row in timed), 3),
    ]
    kept_out = sum(step["silver.laps"]["rows_quarantined"] for step in (first, second))
    assert kept_out == len(all_rows) - len(timed)


def test_awards_with_text_over_several_lines(rows: Rows, folder: Path) -> None:
    shutil.copy(rows.awards, folder / "landing/awards")
    result = steps(rat(folder, "run", "pipeline:sbir"))
    wanted = rows.award_rows()
    assert (result["bronze.awards"]["rows_in"], result["bronze.awards"]["rows_rejected"]) == (len(wanted), 0)
    cent = Decimal("0.01")
    amounts = sum(Decimal(row["Award Amount"].replace("$", "").replace(",", "")).quantize(cent) for row in wanted)
    found = ask(
        folder,
        "select count(*), count(distinct tracking_number), count(distinct company), sum(amount)::varchar,"
        " sum(length(coalesce(abstract, '')))::bigint, count_if(contains(abstract, chr(10)))::bigint from silver.awards",
    )
    assert found == [
        len(wanted),
        len({row["Agency Tracking Number"] for row in wanted}),
        len({row["Company"] for row in wanted}),
        str(amounts),
        sum(len(row["Abstract"]) for row in wanted),
        sum("\n" in row["Abstract"] for row in wanted),
    ]
    columns = ask(folder, "select count(*) from (describe bronze.awards)")
    assert columns == [42 + 3]
    assert rat(folder, "run", "pipeline:sbir")["status"] == "fresh"
