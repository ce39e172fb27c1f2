"""Every line becomes an award, a failure with all its reasons, or a duplicate that says what was kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from pipelines.sbir.sample import Sample
from sbir_lake import Lake, lake_by_hand, sample_and_lake

PASS = "validated.sbir_awards_pass"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return sample_and_lake(tmp_path_factory.getbasetemp())[0]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return sample_and_lake(tmp_path_factory.getbasetemp())[1]


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return lake_by_hand(tmp_path_factory.getbasetemp())


def award(lake: Lake, tracking: str, columns: str) -> tuple[object, ...]:
    return lake.ask(f"select {columns} from lake.{PASS} where agency_tracking_number = '{tracking}'")[0]


# A whole sample, against what was made to be wrong with it


def test_every_line_has_the_verdict_that_the_sample_says(lake: Lake, made: Sample) -> None:
    wanted = dict(made.lines.group_by("_verdict").len().iter_rows())
    found = {
        "pass": lake.ask(f"select count(*) from lake.{PASS}")[0][0],
        "fail": lake.ask("select sum(n_lines)::bigint from lake.validated.sbir_awards_fail")[0][0],
        "duplicate": lake.ask("select count(*) from lake.validated.sbir_awards_duplicate")[0][0],
    }
    assert found == wanted and sum(found.values()) == made.lines.height


def test_each_error_rule_finds_the_line_that_breaks_it_and_no_other(lake: Lake, made: Sample) -> None:
    broken = made.lines.filter(pl.col("_verdict") == "fail")
    wanted = sorted((row["_wrong"], row["Award Title"] or None) for row in broken.iter_rows(named=True))
    found = lake.ask("select reasons, nullif(award_title, '') from lake.validated.sbir_awards_fail")
    assert all(len(reasons) == 1 for reasons, _ in found)
    assert sorted(reasons[0] for reasons, _ in found) == [rule for rule, _ in wanted]
    assert {t for _, t in found if t} == {t for _, t in wanted if t}


def test_each_warning_is_noted_on_the_line_that_was_made_to_earn_it(lake: Lake, made: Sample) -> None:
    earned = made.lines.filter((pl.col("_verdict") == "pass") & (pl.col("_wrong") != ""))
    rows = lake.ask(f"select agency_tracking_number, contract, warnings from lake.{PASS}")
    noted = {(tracking, contract): warnings for tracking, contract, warnings in rows}
    for line in earned.iter_rows(named=True):
        assert line["_wrong"] in noted[line["Agency Tracking Number"], line["Contract"]], line


def test_the_kept_award_of_each_duplicate_is_there_and_is_the_same_true_award(lake: Lake) -> None:
    assert lake.ask(
        f"select count(*) from lake.validated.sbir_awards_duplicate d anti join lake.{PASS} p on p.award_id = d.kept_award_id"
    ) == [(0,)]
    rules = dict(lake.ask("select rule, count(*) from lake.validated.sbir_awards_duplicate group by 1"))
    assert set(rules) == {"same_line", "same_award", "same_tracking_and_phase"}
    assert lake.ask(
        f"select bool_and(p.agency = d.agency and trim(p.award_title) = trim(d.award_title))"
        f" from lake.validated.sbir_awards_duplicate d join lake.{PASS} p on p.award_id = d.kept_award_id"
    ) == [(True,)]


def test_warnings_let_the_awards_pass_and_are_told(lake: Lake) -> None:
    said = {check.name: check.passed for check in lake.result.step(PASS).checks}
    assert said["validated_sbir_awards_consistency_check"] is False
    assert all(passed for name, passed in said.items() if "validity" not in name and "consistency" not in name), said


def test_the_table_of_quality_counts_each_band_of_years_and_each_rule(lake: Lake) -> None:
    bands = dict(
        lake.ask(
            "select band, of_n from lake.validated.sbir_awards_quality where measure = 'award_date' and kind = 'filled'"
        )
    )
    assert bands.pop("all") == sum(bands.values()) == lake.ask(f"select count(*) from lake.{PASS}")[0][0]
    counted = "select n from lake.validated.sbir_awards_quality where measure = 'year_differs'"
    assert lake.ask(counted) == lake.ask(
        f"select count(*) from lake.{PASS} where list_contains(warnings, 'year_differs')"
    )


# One line, one question


def test_values_are_typed_and_their_spellings_are_one(by_hand: Lake) -> None:
    assert str(award(by_hand, "money", "award_amount")[0]) == "1234567.89"
    assert award(by_hand, "spellings", "company_name, phase, program, state, duns") == (
        "Acme Inc", "Phase II", "STTR", "MA", "012345678",
    )  # fmt: skip
    assert award(by_hand, "nothing", "branch, uei, duns, contract, pi_name, zip, warnings") == (None,) * 6 + ([],)
    assert award(by_hand, "zeros", "duns, warnings") == ("002345678", ["duns_shape"])
    assert award(by_hand, "filler", "duns, warnings") == (None, ["duns_filler"])


def test_a_date_is_read_as_its_source_declares_or_not_at_all(by_hand: Lake) -> None:
    assert award(by_hand, "slashes", "award_date::varchar, award_date_source") == ("2020-02-03", "stated")
    for unreadable in ("day first", "short year", "month name"):
        assert award(by_hand, unreadable, "award_date, award_date_source, warnings") == (
            None, "missing", ["award_date_unreadable"],
        ), unreadable  # fmt: skip


def test_a_line_that_breaks_many_rules_says_all_of_them(by_hand: Lake) -> None:
    failed = dict(by_hand.ask("select agency_tracking_number, reasons from lake.validated.sbir_awards_fail"))
    assert failed["all wrong"] == [
        "company_missing", "title_missing", "agency_missing", "phase_unknown", "program_unknown", "award_year_missing",
        "award_amount_not_positive",
    ]  # fmt: skip
    assert failed[None] == ["award_key_missing"]
    assert failed["the year after"] == ["award_year_out_of_range"]
    assert len(failed) == 3


def test_a_contract_alone_is_a_key_and_the_next_year_is_a_year(by_hand: Lake) -> None:
    assert by_hand.ask(f"select contract from lake.{PASS} where agency_tracking_number is null") == [
        ("only a contract",)
    ]
    assert award(by_hand, "next year", "award_year = year(current_date) + 1") == (True,)


def test_a_tracking_number_that_another_company_uses_too_is_another_award(by_hand: Lake) -> None:
    companies = by_hand.ask(f"select company_name from lake.{PASS} where agency_tracking_number = 'reused' order by 1")
    assert companies == [("Acme Inc",), ("Other LLC",)]


def test_of_two_that_say_one_award_the_better_source_then_the_later_file_and_the_fuller_row_is_kept(
    by_hand: Lake,
) -> None:
    assert (str(award(by_hand, "corrected", "award_amount")[0]), award(by_hand, "poorer", "contract")[0]) == (
        "2.00",
        "C-7",
    )
    lost = by_hand.ask(
        "select agency_tracking_number, rule, award_amount from lake.validated.sbir_awards_duplicate order by all"
    )
    assert lost == [
        ("corrected", "same_award", "1"),
        ("corrected", "same_award", "3"),
        ("poorer", "same_tracking_and_phase", "100000.0000"),
        ("twice", "same_line", "100000.0000"),
    ]


def test_a_company_is_one_by_its_numbers_then_by_name_and_state(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rows = [
        {"Company": "Acme Inc", "UEI": "ABCDEFGHJK12", "Duns": "111111111"},
        {"Company": "Acme Labs LLC", "UEI": "", "Duns": "111111111"},  # renamed: the DUNS leads to the UEI
        {"Company": "ACME, Incorporated", "UEI": "", "Duns": ""},  # the name and the state lead there
        {"Company": "Acme Inc", "UEI": "", "Duns": "", "State": "CA"},  # another state
        {"Company": "Böhm Technologies", "UEI": "", "Duns": "222222222"},
        {"Company": "Bohm Technology Co", "UEI": "", "Duns": ""},
        {"Company": "Twin Systems", "UEI": "", "Duns": "333333333"},
        {"Company": "Twin Systems", "UEI": "", "Duns": "444444444"},
        {"Company": "Twin System", "UEI": "", "Duns": ""},  # of which of the two cannot be told
        {"Company": "Zeta Labs", "UEI": "", "Duns": "", "State": "NY"},  # the company file knows its number
    ]
    register = tmp_path / "landing/sbir/companies/companies.csv"
    register.parent.mkdir(parents=True)
    register.write_text("Company Name,UEI,DUNs,State\nZETA LABORATORIES INC,ZETAZETA1234,,New York\n")
    lake.land("bulk/a.csv", [{"Agency Tracking Number": f"T-{n}", **row} for n, row in enumerate(rows)])
    lake.run("+validated.company_keys")
    assert [row[0] for row in lake.ask("select company_id from lake.validated.company_keys order by company_name, state, duns")] == [
        "UEI:ABCDEFGHJK12", "NAME:acme|CA", "UEI:ABCDEFGHJK12", "UEI:ABCDEFGHJK12",
        "DUNS:222222222", "DUNS:222222222", "NAME:twin sys|MA", "DUNS:333333333", "DUNS:444444444", "UEI:ZETAZETA1234",
    ]  # fmt: skip


# Gates


def test_too_many_failures_keep_the_awards_out_and_readers_see_what_they_saw(by_hand: Lake, tmp_path: Path) -> None:
    lake = Lake.__new__(Lake)
    lake.root = tmp_path / "copy"
    shutil.copytree(by_hand.root, lake.root)
    before = lake.hashes(PASS)
    lake.land("bulk/bad.csv", [{"Agency Tracking Number": f"B-{n}", "Phase": "IV"} for n in range(20)])
    step = lake.run(f"+{PASS}").step(PASS)
    assert (step.status, [check.name for check in step.checks if not check.passed and check.severity == "error"]) == (
        "failed", ["validated_sbir_awards_pass_rate_check"],
    )  # fmt: skip
    assert lake.hashes(PASS) == before
    (lake.root / "landing/sbir/awards/bulk/bad.csv").write_text(
        (lake.root / "landing/sbir/awards/bulk/bad.csv").read_text().replace('"IV"', '"III"')
    )
    lake.land("bulk/same.csv", [{"Agency Tracking Number": "one", "Award Amount": str(n + 1)} for n in range(40)])
    failed = [
        check.name for check in lake.run(f"+{PASS}").step(PASS).checks if not check.passed and check.severity == "error"
    ]
    assert failed == ["validated_sbir_awards_duplicate_rate_check"]


# Real rows


@pytest.mark.real_data
def test_real_awards_have_the_counts_that_were_taken_of_them(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "web").mkdir()
    bulk, web = Lake(tmp_path / "full"), Lake(tmp_path / "web")
    for lake, folder, name in ((bulk, "bulk", "award_data_42col.csv.gz"), (web, "web", "sbir_gov_export_39col.csv.gz")):
        target = lake.root / "landing/sbir/awards" / folder
        target.mkdir(parents=True)
        shutil.copy(real_data / "sbir" / name, target)
        assert lake.run(f"+{PASS}", "transformed.companies").status == "done"
    assert bulk.ask("select count(*) from lake.validated.sbir_awards_fail") == [(0,)]
    assert bulk.ask("select count(*) from lake.validated.sbir_awards_duplicate") == [(0,)]
    assert dict(bulk.ask(f"select w, count(*) from (select unnest(warnings) as w from lake.{PASS}) group by 1")) == {
        "year_differs": 1295, "contact_phone_shape": 22, "duns_shape": 9, "amount_above_limit": 4, "pi_phone_shape": 3, "zip_shape": 3,
    }  # fmt: skip
    assert bulk.ask(
        f"select count(*), count(distinct agency_tracking_number), count(distinct (agency_tracking_number, phase)),"
        f" count(distinct contract), count(distinct company_name), count(distinct {_name()}),"
        f" count_if(phase = 'Phase I'), count_if(program = 'SBIR'), min(award_amount)::int, max(award_amount)::int,"
        f" count(award_date), count(*) - count(company_website), count(*) - count(ri_name) from lake.{PASS}"
    ) == [(6880, 6415, 6880, 6872, 2047, 2041, 4307, 5968, 9162, 11983017, 6880, 2138, 5968)]
    same = "award_id, company_id, company_name, award_amount, award_date, award_year, duns, abstract, state, zip, phase"
    rows = f"select md5(string_agg(h, '' order by h)) from (select md5(to_json(t)::varchar) as h from (select {same} from lake.{PASS}) t)"
    assert bulk.ask(rows) == web.ask(rows)
    assert bulk.hashes("transformed.companies") == web.hashes("transformed.companies")


def _name() -> str:
    return "(select any_value(normalized_name) from lake.validated.company_keys k where k.company_name = sbir_awards_pass.company_name)"
