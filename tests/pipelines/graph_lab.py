"""A workspace for the SBIR graph: the real assets of `loaded`, over small tables that a test writes as it likes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from pipelines.sbir.graph import open_graph
from pipelines.sbir.graph.interface import Graph, keys_of
from pipelines.sbir.graph.model import COMPANY, NODES, RELATIONS, Kind
from pipelines.sbir.graph.settings import graph_settings

from ratatouille.handle import Workspace

ROOT = Path(__file__).resolve().parents[2]
TABLE = """
import polars

def build(context):
    return polars.read_parquet({path!r})
"""
WORKSPACE = """
layers: [raw, validated, enriched, transformed, loaded]
resources: {memory: 1GB}
vars_files:
  sbir: {files: [pipelines/sbir/config/base.yaml], environment: SBIR_ETL}
"""
T, N, W, F, D = pl.String, pl.Float64, pl.Int64, pl.Boolean, pl.Date
SCHEMAS: dict[str, dict[str, Any]] = {
    "raw.cet_taxonomy": {
        "cet_id": T,
        "name": T,
        "definition": T,
        "keywords": pl.List(T),
        "parent": T,
        "taxonomy_version": T,
    },
    "transformed.companies": {
        "company_id": T,
        "name": T,
        "normalized_name": T,
        "uei": T,
        "duns": T,
        "address1": T,
        "city": T,
        "state": T,
        "zip": T,
        "website": T,
        "hubzone_owned": F,
        "woman_owned": F,
        "socially_and_economically_disadvantaged": F,
        "aliases": pl.List(T),
        "agencies": pl.List(T),
        "award_count": W,
        "total_funding": pl.Decimal(18, 2),
        "dominant_phase": T,
        "is_multi_phase": F,
        "first_award_date": D,
        "last_award_date": D,
    },
    "enriched.company_matches": {"company_id": T, "cage_code": T, "status": T},
    "transformed.awards": {
        "award_id": T,
        "company_id": T,
        "award_title": T,
        "agency": T,
        "branch": T,
        "phase": T,
        "program": T,
        "award_amount": pl.Decimal(18, 2),
        "award_date": D,
        "award_year": W,
        "fiscal_year": W,
        "topic_code": T,
        "abstract": T,
        "contract": T,
    },
    "transformed.patents": {
        "grant_doc_num": T,
        "title": T,
        "grant_date": D,
        "appno_doc_num": T,
        "appno_date": D,
        "language": T,
    },
    "transformed.patent_assignments": {
        "rf_id": T,
        "grant_doc_num": T,
        "record_date": D,
        "exec_date": D,
        "conveyance_type": T,
        "reel_no": T,
        "frame_no": T,
    },
    "transformed.patent_entities": {
        "entity_id": T,
        "name": T,
        "normalized_name": T,
        "kind": T,
        "city": T,
        "state": T,
        "country": T,
    },
    "transformed.patent_parties": {"rf_id": T, "entity_id": T, "role": T, "date": D},
    "transformed.company_patents": {"company_id": T, "grant_doc_num": T, "as_of_date": D},
    "transformed.award_progressions": {
        "from_award_id": T,
        "to_award_id": T,
        "confidence": pl.Decimal(4, 2),
        "same_tracking": F,
        "same_topic": F,
        "same_pi": F,
        "years_between": W,
    },
    "transformed.cet_company_profiles": {
        "company_id": T,
        "cet_id": T,
        "award_count": W,
        "total_funding": pl.Decimal(18, 2),
        "avg_score": N,
        "dominant_phase": T,
        "first_award_date": D,
        "last_award_date": D,
        "specialization_score": N,
    },
    "enriched.award_patents": {"award_id": T, "grant_doc_num": T, "confidence": N, "method": T, "evidence": T},
    "enriched.cet_award_classifications": {
        "award_id": T,
        "cet_id": T,
        "score": N,
        "classification": T,
        "is_primary": F,
        "evidence": T,
        "classified_at": pl.Datetime,
        "taxonomy_version": T,
    },
    "enriched.cet_patent_classifications": {
        "grant_doc_num": T,
        "cet_id": T,
        "score": N,
        "classification": T,
        "is_primary": F,
        "evidence": T,
        "classified_at": pl.Datetime,
        "taxonomy_version": T,
    },
}
ARROW = {"text": pa.string(), "number": pa.float64(), "whole": pa.int64(), "flag": pa.bool_(), "day": pa.date32(),
         "moment": pa.timestamp("us"), "texts": pa.list_(pa.string())}  # fmt: skip
Tables = dict[str, list[dict[str, Any]]]


class Lab:
    def __init__(self, root: Path, **graph: Any) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        (root / "workspace.yaml").write_text(WORKSPACE)
        for part in ("graph", "loaded", "config"):
            shutil.copytree(ROOT / "pipelines" / "sbir" / part, root / "pipelines" / "sbir" / part)
        for name in SCHEMAS:
            layer, _, table = name.partition(".")
            folder = root / "pipelines" / "sbir" / layer
            folder.mkdir(exist_ok=True)
            (folder / f"{table}.py").write_text(TABLE.format(path=str(root / "data" / f"{name}.parquet")))
            (folder / f"{table}.yaml").write_text(f"version: {{files: data/{name}.parquet}}\n")
        self.workspace = Workspace(root)

    def graph(self) -> Graph:
        """As the settings of this moment say."""
        return open_graph(graph_settings(self.workspace.vars["sbir"]), self.root)

    @property
    def file(self) -> Path:
        return self.root / ".rat" / "sbir.lbug"

    def put(self, tables: Mapping[str, list[dict[str, Any]]]) -> None:
        """Write these tables; those that are as they were are not written."""
        (self.root / "data").mkdir(exist_ok=True)
        for name, rows in tables.items():
            path = self.root / "data" / f"{name}.parquet"
            pl.DataFrame(rows, schema=SCHEMAS[name]).write_parquet(path)

    def run(self, *selectors: str, **wish: Any) -> dict[str, Any]:
        return self.workspace.run(*(selectors or ("pipeline:sbir",)), **wish)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.workspace.query(sql).rows()

    def statuses(self) -> dict[str, dict[str, int]]:
        """Table -> change or status -> rows."""
        tables = [path.stem for path in sorted((self.root / "pipelines/sbir/loaded").glob("[a-z]*.py"))]
        said = " union all ".join(f"select '{t}' as t, coalesce(change, status) as c from loaded.{t}" for t in tables)
        found: dict[str, dict[str, int]] = {}
        for table, change, n in self.query(f"select t, c, count(*) from ({said}) group by all order by all"):
            found.setdefault(table, {})[change] = n
        return found


def small_world(n_awards: int = 60, n_companies: int = 12) -> Tables:
    """Tables that hang together: every kind of node and relation has rows."""
    companies = [
        {
            "company_id": f"UEI:C{n:03}",
            "name": f'Company {n} "of" Léon\'s',
            "normalized_name": f"company {n}",
            "uei": f"C{n:03}",
            "duns": None,
            "state": ("CA", "TX", None)[n % 3],
            "aliases": [f"Old {n}"] if n % 2 else [],
            "award_count": n,
            "total_funding": 1000.25 * n,
            "is_multi_phase": n % 2 == 0,
            "first_award_date": date(2001, 1, 1),
        }
        for n in range(n_companies)
    ]
    awards = [
        {
            "award_id": f"a{n:04}",
            "company_id": f"UEI:C{n % n_companies:03}",
            "award_title": f"Title {n}",
            "agency": ("DOD", "NASA", "HHS")[n % 3],
            "phase": ("Phase I", "Phase II")[n % 2],
            "program": "SBIR",
            "award_amount": 100_000.5 + n,
            "award_date": date(2000 + n % 20, 1, 31) if n % 5 else None,
            "award_year": 2000 + n % 20,
            "fiscal_year": 2000 + n % 20,
            "abstract": f"About {n}.\nTwo lines, 'quoted'.",
        }
        for n in range(n_awards)
    ]
    patents = [
        {"grant_doc_num": f"{7_000_000 + n}", "title": f"Patent {n}", "grant_date": date(2010, 5, 4)} for n in range(10)
    ]
    areas = [
        {
            "cet_id": f"area_{n}",
            "name": f"Area {n}",
            "definition": "What it is",
            "keywords": [f"k{n}", "x y"],
            "parent": "area_0" if n == 4 else None,
            "taxonomy_version": "NSTC-2025Q1",
        }
        for n in range(5)
    ]
    said = {"score": 71.5, "classification": "High", "is_primary": True, "evidence": '[{"text": "a"}]',
            "classified_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).replace(tzinfo=None), "taxonomy_version": "NSTC-2025Q1"}  # fmt: skip
    return {
        "raw.cet_taxonomy": areas,
        "transformed.companies": companies,
        "enriched.company_matches": [{"company_id": "UEI:C001", "cage_code": "1AB23", "status": "matched"},
                                     {"company_id": "UEI:C002", "cage_code": "9ZZ99", "status": "review"}],
        "transformed.awards": awards,
        "transformed.patents": patents,
        "transformed.patent_assignments": [
            {"rf_id": f"r{n}", "grant_doc_num": f"{7_000_000 + n}" if n < 9 else "", "record_date": date(2011, 1, 1 + n)}
            for n in range(10)
        ],
        "transformed.patent_entities": [{"entity_id": f"e{n}", "name": f"Entity {n}", "kind": "company"} for n in range(4)],
        "transformed.patent_parties": [
            {"rf_id": f"r{n}", "entity_id": f"e{(n + side) % 4}", "role": role, "date": date(2011, 2, 1)}
            for n in range(10)
            for side, role in enumerate(("assignor", "assignee"))
        ],
        "transformed.company_patents": [
            {"company_id": f"UEI:C{n + (n == 2):03}", "grant_doc_num": f"{7_000_000 + n}", "as_of_date": date(2012, 1, 1)} for n in range(6)
        ],
        "transformed.award_progressions": [
            {"from_award_id": f"a{n:04}", "to_award_id": f"a{n + 1:04}", "confidence": 0.8, "same_tracking": False, "years_between": 1}
            for n in range(0, n_awards - 1, 2)
        ],
        "transformed.cet_company_profiles": [
            {"company_id": f"UEI:C{n:03}", "cet_id": f"area_{n % 5}", "award_count": n, "avg_score": 50.5, "total_funding": 10.5}
            for n in range(n_companies)
        ],
        "enriched.award_patents": [
            {"award_id": f"a{n:04}", "grant_doc_num": f"{7_000_000 + n}", "confidence": 1.0, "method": "grant_number"} for n in range(8)
        ],
        "enriched.cet_award_classifications": [{"award_id": f"a{n:04}", "cet_id": f"area_{n % 5}", **said} for n in range(n_awards)],
        "enriched.cet_patent_classifications": [
            {"grant_doc_num": f"{7_000_000 + n}", "cet_id": f"area_{n % 5}", **said} for n in range(10)
        ],
    }  # fmt: skip


def rows(kind: Kind, *said: dict[str, Any]) -> pa.Table:
    columns = {
        name: pa.array([one.get(name) for one in said], pa.string())
        for name in (*keys_of(kind), "content_hash", "before")
    }
    typed = {p.name: pa.array([one.get(p.name) for one in said], ARROW[p.kind]) for p in kind.properties}
    return pa.table({**columns, **typed})


def companies(numbers: range, **more: Any) -> pa.Table:
    return rows(COMPANY, *({"key": f"c{n}", "name": f"Company {n}", "content_hash": "1", **more} for n in numbers))


def everything(graph: Graph) -> dict[str, list[dict[str, Any]]]:
    """All that is in the graph, in one order."""
    found = {}
    for kind in (*NODES, *RELATIONS):
        state = graph.state(kind).to_pylist()
        found[kind.name] = sorted(state, key=lambda row: [row[name] for name in keys_of(kind)])
    return found
