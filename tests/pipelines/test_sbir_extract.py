"""Award files in all their variants become the same text columns, and files that cannot be trusted are set aside."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from pipelines.sbir import sam_files
from pipelines.sbir.sample_files import write_sam_v2
from sbir_lake import HEADER, SOUND, Lake

ROWS = "select {} from lake.raw.sbir_awards order by agency_tracking_number"
ENTITIES = pl.DataFrame(
    {
        "uei": ["ABCDEF123456", "ZZZZZZ123456"], "cage": ["1AB2C", None], "status": ["A", "A"], "name": ["ACME INC", "CAFÉ 12\" LLC"],
        "dba": ["", "x"], "address1": ["1 A", "2 B"], "address2": ["", ""], "city": ["BOSTON", "NICE"], "state": ["MA", "CA"],
        "zip": ["02138", "90210"], "website": ["", ""], "naics": ["541715", "541330"],
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """One lake with a file of every kind, each with one award."""
    lake = Lake(tmp_path_factory.mktemp("extract"))
    long = 'Two\nlines, a "quoted" word,\r\nand windows'
    lake.land("bulk/plain.csv", [{"Agency Tracking Number": "T-1", "Abstract": long}], [*HEADER, "Abstract"])
    other_names = ["DUNS" if n == "Duns" else "AWARD TITLE" if n == "Award Title" else n for n in HEADER]
    path = lake.land("web/other case.csv", [{"Agency Tracking Number": "T-2", "AWARD TITLE": "A lamp", "Women Owned": "Y", "Hubzone Owned": "N"}],
                     [*other_names, "Women Owned", "Hubzone Owned", "Research Keywords"], encoding="utf-8-sig")  # fmt: skip
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    lake.land("latin-1/old.csv", [{"Agency Tracking Number": "T-3", "Company": "Café Ñandú"}], encoding="latin-1")
    api = {"company": "Acme Inc ", "award_title": "A lamp", "agency": "NASA", "phase": "Phase I", "program": "SBIR",
           "agency_tracking_number": "T-4", "award_start_date": "May 10, 2018", "award_close_date": "May 09, 2020",
           "award_amount": "900000", "award_year": "2018", "contract": "C-4"}  # fmt: skip
    target = lake.root / "landing/sbir/awards/api/one.json"
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps([api]))
    packed = lake.land("bulk/packed.csv", [{"Agency Tracking Number": "T-5"}])
    (packed.parent / "packed.csv.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    renamed = ["Award Amt" if n == "Award Amount" else n for n in HEADER]
    lake.land("bulk/renamed.csv", [{"Agency Tracking Number": "T-6"}], renamed)
    lake.land("bulk/twice.csv", [{"Agency Tracking Number": "T-7"}], [*HEADER, "Tracking Number"])
    (lake.root / "landing/sbir/sam").mkdir(parents=True)
    for month in ("20260901", "20261001"):
        write_sam_v2(ENTITIES, lake.root / f"landing/sbir/sam/SAM_PUBLIC_MONTHLY_V2_{month}.ZIP", month)
    _write_v1(lake.root / "landing/sbir/sam/SAM_PUBLIC_MONTHLY_20140504.dat")
    lake.result = lake.run("raw.sbir_awards", "+raw.sam_entities")  # type: ignore[attr-defined]
    return lake


def _write_v1(path: Path) -> None:
    first, second = ([""] * 120 for _ in range(2))
    for row, (duns, cage, name) in zip(
        (first, second), (("111292429", "1AB2C", "ACME"), ("222292429", "9XY9Z", "GONE")), strict=True
    ):
        row[0], row[2], row[4], row[10], row[119] = duns, cage, "A", name, "!end"
    mark = "PUBLIC 00000000 20140504 0000002 0000000"
    path.write_bytes("\n".join([f"BOF {mark}", "|".join(first), "|".join(second), f"EOF {mark}"]).encode("latin-1"))


def test_every_variant_fills_the_same_columns(lake: Lake) -> None:
    found = lake.ask(
        ROWS.format("agency_tracking_number, company_name, award_title, award_amount, duns, source_format")
    )
    acme = ("Acme Inc", "A lamp", "100000.0000", "123456789")
    assert found == [
        ("T-1", *acme, "bulk"),
        ("T-2", *acme, "web"),
        ("T-3", "Café Ñandú", *acme[1:], "bulk"),
        ("T-4", "Acme Inc ", "A lamp", "900000", None, "api"),
        ("T-5", *acme, "bulk"),
    ]
    assert lake.ask(ROWS.format("woman_owned, hubzone_owned, award_date, contract_end_date"))[1:4:2] == [
        ("Y", "N", "2020-02-03", "2020-08-03"),
        (None, None, "May 10, 2018", "May 09, 2020"),
    ]
    assert lake.ask(ROWS.format("abstract"))[0] == ('Two\nlines, a "quoted" word,\r\nand windows',)


def test_a_file_whose_required_column_was_renamed_is_set_aside_with_the_one_that_may_be_meant(lake: Lake) -> None:
    step = lake.result.step("raw.sbir_awards")  # type: ignore[attr-defined]
    said = {Path(one["file"]).name: one["reason"] for one in step.set_aside}
    assert said == {
        "renamed.csv": "its header has no column award_amount (Award Amt may be meant)",
        "twice.csv": "Agency Tracking Number and Tracking Number are both agency_tracking_number",
    }


def test_a_file_that_comes_again_unchanged_changes_nothing(lake: Lake) -> None:
    before = lake.hashes("raw.sbir_awards")
    path = lake.root / "landing/sbir/awards/latin-1/old.csv"
    shutil.copy(path, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)
    assert lake.run("raw.sbir_awards").status == "fresh"
    assert lake.hashes("raw.sbir_awards") == before


def test_of_sam_the_newest_month_of_each_layout_counts_and_v1_tells_the_duns_of_a_cage(lake: Lake) -> None:
    rows = "select legal_business_name, unique_entity_id, cage_code, duns_number, primary_naics, naics_code_string, layout, file_month from lake.raw.sam_entities order by 1"
    assert lake.ask(rows) == [
        ("ACME INC", "ABCDEF123456", "1AB2C", "111292429", "541715", "541715Y~541990N", "V2", "20261001"),
        ('CAFÉ 12" LLC', "ZZZZZZ123456", None, None, "541330", "541330Y~541990N", "V2", "20261001"),
        ("GONE", None, "9XY9Z", "222292429", None, None, "V1", "20140504"),
    ]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: lines[:-1], "its last record is no EOF"),
        (lambda lines: [lines[0], lines[2], lines[3]], "it says 2 records and holds 1"),
        (lambda lines: lines[1:], "its first record is no BOF"),
        (lambda lines: [*lines[:2], lines[2] + "|more", lines[3]], "another number of fields than 142"),
    ],
)
def test_a_monthly_file_that_is_not_whole_is_refused(damage, said: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write_sam_v2(ENTITIES, tmp_path / "whole.zip", "20261001")
    with sam_files._opened(tmp_path / "whole.zip") as packed:
        lines = packed.read().decode("latin-1").splitlines()
    path = tmp_path / "SAM.dat"
    path.write_bytes("\n".join(damage(lines)).encode("latin-1"))
    with pytest.raises(sam_files.SamFileError, match=said):
        list(sam_files.batches(path))


def test_the_sound_row_of_these_tests_is_sound() -> None:
    assert set(HEADER) == set(SOUND)
