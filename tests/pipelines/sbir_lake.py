"""A workspace with the SBIR pipeline from raw to transformed, for tests: no graph, no enrichment, no Dagster."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratatouille.engine import Request, RunResult, open_workbench, run

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("raw", "validated", "transformed")
AWARDS = ("transformed.awards", "transformed.companies", "transformed.contracts", "transformed.award_progressions")
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
