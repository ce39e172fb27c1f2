"""Enrichment in a lake: one made-up world, its awards matched, coded, linked and classified, and what changes do to that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pipelines.sbir import sample

from ratatouille.engine import Request, RunResult, open_workbench, run
from ratatouille.project import load
from ratatouille.testing import run_cases

ROOT = Path(__file__).resolve().parents[2]
ENRICHED = (
    *("enriched.award_companies", "enriched.sam_names", "enriched.company_matches", "enriched.company_candidates"),
    *(
        "enriched.award_enrichment",
        "enriched.award_values",
        "enriched.sbir_awards_success",
        "enriched.sbir_awards_partial",
    ),
    *("enriched.cet_award_areas", "enriched.cet_award_classifications"),
)
WANTED = (
    *("+enriched.sbir_awards_partial", "enriched.award_values", "enriched.company_candidates"),
    *("+transformed.cet_company_profiles", "transformed.cet_analytics", "validated.cet_drift_detection"),
)
RUN_COLUMNS = ("entity_id", "matched_at", "enriched_at", "classified_at", "entities_mark")


class Lake:
    """A workspace with the SBIR pipeline up to enrichment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copy(ROOT / "workspace.yaml", root)
        shutil.copytree(ROOT / "macros", root / "macros")
        ignored = shutil.ignore_patterns(
            "__pycache__", "loaded", "graph", "__init__.py", "assets.py", "checks.py", "jobs.py"
        )
        shutil.copytree(ROOT / "pipelines" / "sbir", root / "pipelines" / "sbir", ignore=ignored)

    def run(self, *selectors: str, **wish: Any) -> RunResult:
        with open_workbench(self.root, write=True) as bench:
            return run(bench, Request(selectors=selectors, **wish))

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with open_workbench(self.root) as bench, bench.lake.session("asking") as session:
            session.execute("use lake")
            return list(session.rows(sql))

    def marks(self, tables: Sequence[str]) -> dict[str, str]:
        """A hash of each table's rows without the columns that tell of a run, whatever their order."""
        found = {}
        for table in tables:
            columns = [name for (name, *_) in self.ask(f"describe {table}") if name not in RUN_COLUMNS]
            rows = f"select md5(to_json({{{', '.join(f'{c}: {c}' for c in columns)}}})::varchar) as h from {table}"
            found[table] = self.ask(f"select md5(string_agg(h, '' order by h)) from ({rows})")[0][0]
        return found


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("sbir"))
    made = sample.sample(700, seed=11)
    sample.write(made, lake.root)
    result = lake.run(*WANTED)
    failed = {step.asset: step.error for step in result.steps if step.status not in ("built", "skipped")}
    assert not failed
    return lake


def truth(lake: Lake, name: str) -> pl.DataFrame:
    return pl.read_parquet(lake.root / "truth" / f"{name}.parquet")


def test_companies_are_matched_to_the_entities_that_they_are(lake: Lake) -> None:
    firms = truth(lake, "firms").select("firm", "name", "former_name")
    entities = truth(lake, "entities").filter(pl.col("firm") >= 0).select(true_firm="firm", uei="uei")
    lines = truth(lake, "lines").select("_firm", contract="Contract").unique("contract", keep="none")
    found = pl.DataFrame(
        lake.ask(
            "select contract, sam_uei, enrichment_method from enriched.award_enrichment join validated.sbir_awards_pass using (award_id) where contract is not null"
        ),
        schema=["contract", "uei", "method"],
        orient="row",
    ).join(lines, on="contract")
    matched = found.filter(pl.col("uei").is_not_null()).join(entities, on="uei", how="left")
    right = (matched["true_firm"] == matched["_firm"]).fill_null(False)
    assert matched.height > 400
    assert matched["method"].value_counts().height >= 2
    # Firms that were bought carry the number of the firm that bought them; all others are who they say.
    assert right.mean() > 0.97
    assert firms.height > 100


def test_every_award_is_a_success_or_has_a_reason_and_a_default_never_makes_a_success(lake: Lake) -> None:
    assert lake.ask("select count(*) from validated.sbir_awards_pass") == lake.ask(
        "select (select count(*) from enriched.sbir_awards_success) + (select count(*) from enriched.sbir_awards_partial)"
    )
    reasons = lake.ask("select partial_reason, count(*) from enriched.sbir_awards_partial group by all")
    assert reasons
    assert None not in dict(reasons)
    assert lake.ask(
        "select count(*) from enriched.sbir_awards_success where naics_source like '%default' or enrichment_confidence < 0.60"
        " or (sam_gov_data is null and enrichment_method <> 'usaspending')"
    ) == [(0,)]
    sources = dict(lake.ask("select naics_source, count(*) from enriched.award_enrichment group by all"))
    assert {"usaspending", "sam"} <= set(sources)
    # Each value of each award says where it comes from.
    assert lake.ask("select count(*) from enriched.award_enrichment") == lake.ask(
        "select count(*) from enriched.award_values where field = 'naics_code' and source is not null and enriched_at is not null"
    )
    [(said,)] = lake.ask("select evidence from enriched.award_values where field = 'uei' and method = 'uei' limit 1")
    assert json.loads(said)["name_score"] > 50


def test_the_rows_of_the_pipelines_own_tests_come_out_as_they_say(lake: Lake) -> None:
    done = run_cases(load(lake.root), ["enriched.award_enrichment", "enriched.award_patents"])
    assert [(case.name, case.differences) for case in done.cases if case.status != "passed"] == []
    assert len(done.cases) == 5


def test_areas_of_awards_are_those_that_their_words_were_made_for(lake: Lake) -> None:
    made = truth(lake, "awards").select("contract", "area").unique("contract", keep="none")
    found = pl.DataFrame(
        lake.ask(
            "select a.contract, c.cet_id from enriched.cet_award_classifications c join validated.sbir_awards_pass a using (award_id) where c.is_primary"
        ),
        schema=["contract", "cet_id"],
        orient="row",
    ).join(made, on="contract")
    assert found.height > 300
    assert (found["area"] == found["cet_id"]).mean() > 0.5
    profiles = lake.ask(
        "select company_id, sum(share), max(specialization_index), sum(is_dominant::int) from transformed.cet_company_profiles group by all"
    )
    assert all(
        abs(float(share) - 1) < 1e-9 and 0 < index <= 1 and dominant == 1 for _, share, index, dominant in profiles
    )
    assert lake.ask("select sum(award_count) from transformed.cet_analytics") == lake.ask(
        "select count(*) from validated.sbir_awards_pass"
    )
    assert {status for (status,) in lake.ask("select status from validated.cet_drift_detection")} <= {
        "ok",
        "warn",
        "alert",
        "too few",
    }


def test_new_changed_and_withdrawn_companies_are_matched_again_and_the_others_are_not(lake: Lake) -> None:
    """Incremental equals full refresh, and the rows that nothing happened to were not made again."""
    award_file = lake.root / "landing/sbir/awards/bulk/award_data.csv"
    before = dict(lake.ask("select company_id, matched_at from enriched.company_matches"))
    looked_at = dict(lake.ask("select key, classified_at from enriched.cet_award_areas"))
    text = award_file.read_text(encoding="utf-8-sig")
    header = text.split("\n", 1)[0]
    columns = header.strip().split(",")
    row = dict.fromkeys(columns, "") | {
        "Company": "Quorvane Photonics LLC", "Award Title": "Radar on a spacecraft", "Agency": "National Aeronautics and Space Administration",
        "Phase": "Phase I", "Program": "SBIR", "Agency Tracking Number": "Q-1", "Contract": "QQ-1", "Award Year": "2020",
        "Award Amount": "100000.0000", "Proposal Award Date": "2020-05-01", "State": "CO", "Zip": "80301",
    }  # fmt: skip
    (award_file.parent / "later.csv").write_text(
        header.strip() + "\n" + ",".join(row[c] for c in columns) + "\n", encoding="utf-8"
    )
    assert lake.run(*WANTED).status == "done"
    after = dict(lake.ask("select company_id, matched_at from enriched.company_matches"))
    new = [name for name in after if name not in before]
    assert new == ["NAME:quorvane photonics|CO"]
    again = [name for name in before if after.get(name) != before[name]]
    assert len(again) < 0.02 * len(before)
    now = dict(lake.ask("select key, classified_at from enriched.cet_award_areas"))
    assert sum(now[key] != at for key, at in looked_at.items() if key in now) == 0
    assert len(now) == len(looked_at) + 1
    incremental = lake.marks(ENRICHED)
    assert lake.run(*ENRICHED, force=True).status == "done"
    assert lake.marks(ENRICHED) == incremental
