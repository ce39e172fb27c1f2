"""The made-up world of SBIR: the same seed is the same world, and every rule has a line that breaks it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import polars as pl
import pytest
from pipelines.sbir.sample import Sample, sample, write
from pipelines.sbir.sample_files import COLUMNS_39
from pipelines.sbir.sample_lines import COLUMNS_42, ERRORS, WARNINGS


@pytest.fixture(scope="module")
def world() -> Sample:
    return sample(400, seed=3)


def test_the_same_seed_is_the_same_world_and_another_one_is_not(world: Sample) -> None:
    again, other = sample(400, seed=3), sample(400, seed=4)
    assert world.lines.equals(again.lines) and world.entities.equals(again.entities)
    assert not world.lines.equals(other.lines)


def test_every_rule_is_broken_and_no_line_breaks_two(world: Sample) -> None:
    wrong = world.lines.group_by("_wrong", "_verdict").len()
    assert set(wrong.filter(_verdict="fail")["_wrong"]) == set(ERRORS)
    assert set(wrong.filter(_verdict="pass")["_wrong"]) == {"", *WARNINGS}


def test_two_awards_of_a_project_share_a_tracking_number_and_firms_are_renamed_bought_and_unknown(
    world: Sample,
) -> None:
    shared = world.awards.group_by("agency", "tracking").agg(pl.col("phase").n_unique()).filter(pl.col("phase") > 1)
    assert shared.height > 20
    assert world.firms["former_name"].count() and (world.firms["bought_by"] >= 0).any()
    assert world.firms["uei"].null_count() and not world.firms["known_to_sam"].all()
    assert set(world.entities.filter(pl.col("firm") >= 0)["firm"]) == set(world.firms.filter("known_to_sam")["firm"])


def test_the_files_have_the_headers_and_the_marks_of_their_sources(world: Sample, tmp_path: Path) -> None:
    written = write(world, tmp_path)
    awards = tmp_path / "landing/sbir/awards"
    bulk = (awards / "bulk/award_data.csv").read_text().splitlines()[0].split(",")
    keywords = (awards / "bulk/award_data_keywords.csv").read_text().splitlines()[0].split(",")
    web = (awards / "web/sbir_gov_export.csv").read_text(encoding="utf-8-sig").splitlines()[0].split(",")
    assert (bulk, len(bulk), len(keywords), web) == (list(COLUMNS_42), 42, 43, list(COLUMNS_39))
    assert (awards / "web/sbir_gov_export.csv").read_bytes()[:3] == b"\xef\xbb\xbf"
    assert sum(n for name, n in written.items() if name.startswith("awards/")) == world.lines.height
    with zipfile.ZipFile(next((tmp_path / "landing/sbir/sam").iterdir())) as packed:
        records = packed.read(packed.namelist()[0]).decode("latin-1").splitlines()
    assert records[0].startswith("BOF PUBLIC V2") and records[-1].startswith("EOF PUBLIC V2")
    assert f"{len(records) - 2:07}" in records[0] and {line.count("|") for line in records[1:-1]} == {141}
    truth = pl.read_parquet(tmp_path / "truth/lines.parquet")
    assert truth.height == world.lines.height


def test_what_an_abstract_cites_is_a_patent_of_the_sample(world: Sample) -> None:
    cited = world.citations.join(world.awards, on="award").filter(pl.col("abstract").str.contains("U.S. Patent No."))
    assert cited.height == world.citations.height > 10
    assert set(cited["grant_doc_num"]) <= set(world.patents["grant_doc_num"])
