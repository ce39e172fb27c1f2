"""A workspace with the SBIR pipeline from raw to transformed, for tests: no graph, no enrichment, no Dagster."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.sbir.sample import Sample, sample, write

from ratatouille.engine import Request, RunResult, open_workbench, run

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("raw", "validated", "transformed")
AWARDS = ("transformed.awards", "transformed.companies", "transformed.contracts", "transformed.award_progressions")
PATENTS = (
    "transformed.patents",
    "transformed.patent_assignments",
    "transformed.patent_parties",
    "transformed.patent_entities",
    "transformed.company_patents",
    "transformed.patent_publications",
)
HEADER = [
    "Company",
    "Award Title",
    "Agency",
    "Branch",
    "Phase",
    "Program",
    "Agency Tracking Number",
    "Contract",
    "Proposal Award Date",
    "Contract End Date",
    "Award Year",
    "Award Amount",
    "UEI",
    "Duns",
    "State",
    "Zip",
    "PI Name",
    "Topic Code",
]
SOUND = dict(
    zip(
        HEADER,
        [
            "Acme Inc",
            "A lamp",
            "NASA",
            "",
            "Phase I",
            "SBIR",
            "T-1",
            "C-1",
            "2020-02-03",
            "2020-08-03",
            "2020",
            "100000.0000",
            "",
            "123456789",
            "MA",
            "02138",
            "Ada Kern",
            "A1",
        ],
        strict=True,
    )
)
SOUND_BY_LOWER = {name.lower(): value for name, value in SOUND.items()}


class Lake:
    """Its folder, with the files of the pipeline and nothing in landing/."""

    known: Path | None = None  # a lake whose files were analysed already: they are the same in each
    result: RunResult

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "workspace.yaml", root)
        shutil.copytree(ROOT / "macros", root / "macros")
        for folder in (*LAYERS, "config"):
            target = root / "pipelines" / "sbir" / folder
            shutil.copytree(
                ROOT / "pipelines" / "sbir" / folder, target, ignore=shutil.ignore_patterns("cet_*", "__pycache__")
            )
        for module in ("settings.py", "sam_files.py"):
            shutil.copy(ROOT / "pipelines" / "sbir" / module, root / "pipelines" / "sbir")

        if Lake.known is not None and (Lake.known / ".rat/cache/analysis.json").exists():
            (root / ".rat/cache").mkdir(parents=True, mode=0o700)
            for name in ("project.json", "analysis.json"):
                shutil.copy(Lake.known / ".rat/cache" / name, root / ".rat/cache")
        else:
            Lake.known = root

    def land(
        self, name: str, rows: Sequence[dict[str, str]], header: Sequence[str] = HEADER, encoding: str = "utf-8"
    ) -> Path:
        """A CSV file below landing/sbir/awards. A row says only how it differs from SOUND."""
        path = self.root / "landing" / "sbir" / "awards" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            {name: row.get(name, SOUND.get(name, SOUND_BY_LOWER.get(name.lower(), ""))) for name in header}
            for row in rows
        ]
        text = ",".join(header) + "\n"
        text += "".join(",".join(_quoted(line.get(column, "")) for column in header) + "\n" for line in lines)
        path.write_bytes(text.encode(encoding))
        return path

    def run(self, *selectors: str, **wish: Any) -> RunResult:
        with open_workbench(self.root, write=True) as bench:
            return run(bench, Request(selectors=selectors, **wish))

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with open_workbench(self.root) as bench, bench.lake.session("asking") as session:
            return list(session.rows(sql))

    def hashes(self, *tables: str) -> dict[str, str]:
        """A hash of each table's rows, whatever their order."""
        found = {}
        for table in tables:
            rows = f"select md5(to_json(t)::varchar) as h from lake.{table} t"
            found[table] = self.ask(f"select md5(string_agg(h, '' order by h)) from ({rows})")[0][0]
        return found


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


@cache
def sample_and_lake(root: Path) -> tuple[Sample, Lake]:
    """A sample and a lake with everything that is made of it; `root` is the session's own folder."""
    made, lake = sample(500, seed=11), Lake(root / "sample")
    write(made, lake.root)
    lake.result = lake.run(*(f"+{table}" for table in (*AWARDS, *PATENTS, "validated.sbir_awards_quality")))
    assert lake.result.status == "done", [step.error for step in lake.result.steps if step.error]
    return made, lake


@cache
def lake_by_hand(root: Path) -> Lake:
    """Lines made for one question each; the tests name them by their tracking numbers."""
    lake = Lake(root / "by_hand")
    web = ["Company Website", "Address1", "Address2", "City", "Contact Phone", "Abstract"]
    many = [{"Agency Tracking Number": f"M-{n}", "Contract": f"M-{n}", "Duns": "444444444"} for n in range(60)]
    # Two awards of one firm that go on from each other, and another firm that looks alike.
    first = {
        "Company": "Boreal Inc", "Duns": "555555555", "Agency Tracking Number": "P-1", "Contract": "P-1", "Proposal Award Date": "2019-10-01",
        "Contract End Date": "2020-04-01", "Zip": "021381234", "Address1": "1 Main  St", "City": "Boston", "Contact Phone": "(617) 555-0101",
        "Abstract": "5 &lt; 6_x000D_\r\nand &quot;so&quot; on", "Company Website": "http://old.example",
    }  # fmt: skip
    second = first | {
        "Phase": "Phase II", "Contract": "P-2", "Company": "BOREAL LLC", "Award Amount": "$700,000", "Award Year": "2022",
        "Proposal Award Date": "2021-09-30", "Contract End Date": "2021-09-01", "Company Website": "http://new.example",
        "Contact Phone": "1 617.555.0101 x12", "Zip": "12",
    }  # fmt: skip
    third = second | {
        "Agency Tracking Number": "P-3",
        "Proposal Award Date": "2021-10-05",
        "Award Amount": "1",
        "PI Name": "Someone Else",
        "Topic Code": "Z",
    }
    other = second | {"Company": "Northern Inc", "Duns": "666666666", "Contract": "P-5"}
    no_date = other | {"Agency Tracking Number": "P-9", "Proposal Award Date": "", "Contract": "P-6"}
    spelled = {
        "Company": "  Acme   Inc ",
        "Phase": "2",
        "Program": "sttr",
        "State": "massachusetts",
        "Duns": "'012345678",
    }
    nothing = {"Branch": "N/A", "UEI": "nan", "Duns": "-", "Contract": "\\N", "PI Name": "None", "Zip": "NA"}
    wrong = {
        "Company": "",
        "Award Title": "-",
        "Agency": "",
        "Phase": "IV",
        "Program": "X",
        "Award Year": "x",
        "Award Amount": "-1",
    }
    keyed = {"Company": "Keyed LLC", "Duns": "777666555", "Contract": "only a contract"}
    coming = {"Company": "Coming LLC", "Duns": "777666554", "Proposal Award Date": "", "Contract End Date": ""}
    named: dict[str, list[dict[str, str]]] = {
        "money": [{"Award Amount": "$1,234,567.89"}], "spellings": [spelled], "nothing": [nothing], "zeros": [{"Duns": "2345678"}],
        "filler": [{"Duns": "000000000"}], "slashes": [{"Proposal Award Date": "02/03/2020"}],
        "day first": [{"Proposal Award Date": "31/01/2020"}], "short year": [{"Proposal Award Date": "05-10-18"}],
        "month name": [{"Proposal Award Date": "May 10, 2018"}], "all wrong": [wrong], "": [{"Contract": "-"}, keyed],
        "next year": [coming | {"Award Year": str(datetime.now(UTC).year + 1)}],
        "the year after": [coming | {"Award Year": str(datetime.now(UTC).year + 2)}],
        "reused": [{"Company": "Other LLC", "Duns": "999888777", "Contract": "C-9"}, {"Contract": "C-8"}],
        "poorer": [{"Contract": ""}, {"Contract": "C-7"}], "twice": [{}, {}], "corrected": [{"Award Amount": "1"}],
    }  # fmt: skip
    lines = [{"Agency Tracking Number": name} | row for name, rows in named.items() for row in rows]
    lake.land("bulk/a.csv", [*many, *lines, first, second, third, other, no_date], [*HEADER, *web])
    lake.land("bulk/b.csv", [{"Agency Tracking Number": "corrected", "Award Amount": "2", "PI Name": ""}])
    lake.land(
        "web/c.csv", [{"Agency Tracking Number": "corrected", "Award Amount": "3", "Proposal Award Date": "02-03-2020"}]
    )
    lake.result = lake.run(*(f"+{table}" for table in AWARDS))
    assert lake.result.status == "done", [step.error for step in lake.result.steps if step.error]
    return lake
