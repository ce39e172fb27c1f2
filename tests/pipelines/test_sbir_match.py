"""Companies and entities: identifiers first, then names; what is not sure is for a person."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines.sbir import matching
from pipelines.sbir.matching import Rules, match
from pipelines.sbir.ngrams import Budget, grams_of, likely_pairs

COMPANY = ("company_id", "normalized_name", "uei", "duns", "cage_code", "city", "state", "zip")
ENTITY = (*matching.ENTITY_COLUMNS, "normalized_name", "normalized_dba")


def companies(*rows: dict[str, Any]) -> pl.DataFrame:
    given = [dict.fromkeys(COMPANY) | {"company_id": f"C{i}"} | row for i, row in enumerate(rows)]
    return pl.DataFrame(given, schema=dict.fromkeys(COMPANY, pl.String))


def entities(*rows: dict[str, Any]) -> pl.DataFrame:
    start = {"registration_status": "A", "primary_naics": "541715"}
    given = [
        dict.fromkeys(ENTITY)
        | start
        | {"unique_entity_id": f"{i:012d}", "legal_business_name": str(row.get("normalized_name")).upper() + " INC"}
        | row
        for i, row in enumerate(rows)
    ]
    return pl.DataFrame(given, schema=dict.fromkeys(ENTITY, pl.String)).with_row_index("entity_id")


CROWD = [{"normalized_name": f"common works {word} research", "state": "TX"} for word in "abcdefgh"]


def one(company: dict[str, Any], *registered: dict[str, Any]) -> dict[str, Any]:
    return match(companies(company), entities(*registered)).companies.row(0, named=True)


def test_identifiers_count_in_their_order_and_a_later_method_never_sees_what_an_earlier_one_found() -> None:
    registered = entities(
        {"normalized_name": "alpha optics", "cage_code": "1AAA1", "duns_number": "111111111"},
        {"normalized_name": "beta robotics", "cage_code": "2BBB2", "duns_number": "222222222"},
        {
            "normalized_name": "gamma sensors",
            "cage_code": "3CCC3",
            "duns_number": "333333333",
            "zip_postal_code": "021390001",
        },
        {"normalized_name": "delta plasma", "zip_postal_code": "02139"},
    )
    found = match(
        companies(
            {"uei": f"{0:012d}", "cage_code": "2BBB2", "duns": "333333333", "normalized_name": "delta plasma"},
            {"uei": "999999999999", "cage_code": "2bbb2", "duns": "333333333", "normalized_name": "delta plasma"},
            {"duns": "'333333333", "normalized_name": "delta plasma"},
            {"duns": "000000000", "normalized_name": "delta plasma", "zip": "02139-4307"},
            {"uei": "short", "cage_code": "00000", "duns": "12", "normalized_name": "nobody at all"},
        ),
        registered,
    ).companies
    assert found["method"].to_list() == ["uei", "cage", "duns", "fuzzy", "none"]
    assert found["uei"].to_list() == [f"{0:012d}", f"{1:012d}", f"{2:012d}", f"{3:012d}", None]
    assert found["status"].to_list() == ["matched"] * 4 + ["none"]
    # An identifier is worth more than a name; one whose UEI is another company's is worth less.
    assert found["confidence"].to_list() == [0.99, 0.90, 0.90, 0.80, None]
    assert found["band"].to_list() == ["High"] * 4 + [None]
    assert [json.loads(text)["uei_differs"] for text in found["evidence"][:3]] == [False, True, None]
    compared = [json.loads(text)["compared"] for text in found["evidence"][:4]]
    assert compared == [f"{0:012d}", "2BBB2", "333333333", "delta plasma = DELTA PLASMA INC"]
    assert json.loads(found["sam_gov_data"][0])["legal_business_name"] == "ALPHA OPTICS INC"
    assert found["sam_gov_data"][4] is None


def test_zeros_that_a_spreadsheet_has_eaten_come_back_and_filler_is_no_number() -> None:
    written = ["12345678", "'072021041", "00-123-4567", "000000000", "999999999", "1", None, "1234567890"]
    read = pl.DataFrame({"duns": written}).select(matching.digits("duns", 9)).to_series().to_list()
    assert read == ["012345678", "072021041", "001234567", None, None, None, None, None]


def test_of_entities_with_one_number_the_active_one_counts_and_otherwise_a_person_decides() -> None:
    twice = [
        {"normalized_name": "epsilon labs", "duns_number": "123456789", "registration_status": "E"},
        {"normalized_name": "epsilon laboratory", "duns_number": "123456789"},
    ]
    company = {"duns": "123456789", "normalized_name": "epsilon labs"}
    assert one(company, *twice)["uei"] == f"{1:012d}"
    both = [{**entity, "registration_status": "A", "normalized_name": "epsilon labs"} for entity in twice]
    found = one(company, *both)
    assert (found["status"], found["method"], found["ambiguous"], found["uei"]) == ("review", "duns", True, None)
    assert found["sam_gov_data"] is None


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("zebrafin photonics", "matched"),
        ("zebrafin photonics research", "matched"),  # a word more
        ("photonics zebrafin", "matched"),  # the order does not count
        ("zebrafim photonics", "matched"),  # a slip, in one place
        ("zebra finphotonics", "matched"),  # words parted elsewhere
        ("zebrafinphotonics", "matched"),  # or not at all
        ("zebrafin photon optics", "review"),
        ("common works", "review"),  # everybody's words
        ("entirely different", "none"),
    ],
)
def test_a_name_is_taken_from_90_on_offered_from_75_on_and_else_is_nobodys(name: str, status: str) -> None:
    home = {"city": "Cambridge", "state": "MA", "zip": "02139"}
    there = {"city": "CAMBRIDGE", "state": "MA", "zip_postal_code": "02139"}
    registered = [{"normalized_name": "zebrafin photonics", **there}, *CROWD]
    rules = Rules(coincidences=2)
    found = match(companies({"normalized_name": name, **home}), entities(*registered), rules).companies.row(
        0, named=True
    )
    assert found["status"] == status
    assert (found["uei"] is not None) == (status == "matched")
    assert {"matched": ("High", "Medium"), "review": ("Low",), "none": (None,)}[status].count(found["band"]) == 1


def test_two_that_are_as_near_are_for_a_person_unless_the_place_tells_them_apart() -> None:
    twins = [
        {"normalized_name": "orionix dynamics", "state": "MA", "city": "LOWELL", "zip_postal_code": "01850"},
        {"normalized_name": "orionix dynamics", "state": "CA", "city": "FRESNO", "zip_postal_code": "93650"},
    ]
    found = one({"normalized_name": "orionix dynamics"}, *twins)
    assert (found["status"], found["ambiguous"], found["score"]) == ("review", True, 100.0)
    found = one({"normalized_name": "orionix dynamics", "state": "CA", "city": "Fresno", "zip": "93650"}, *twins)
    assert (found["status"], found["ambiguous"], found["uei"]) == ("matched", False, f"{1:012d}")
    evidence = json.loads(found["evidence"])
    assert (evidence["place"], evidence["points"], evidence["next_points"]) == ("zip", 106.0, 96.0)


def test_a_common_name_in_another_state_is_another_firm_and_a_rare_one_has_moved() -> None:
    crowd = [{"normalized_name": f"{word} works", "state": "TX"} for word in ("blue sky", "red river")] * 8
    registered = [
        {"normalized_name": "blue river", "state": "TX"},
        {"normalized_name": "qivaron", "state": "TX"},
        *crowd,
    ]
    found = one({"normalized_name": "blue river", "state": "ME"}, *registered)
    assert (found["status"], found["score"], found["ambiguous"]) == ("review", 100.0, False)
    assert json.loads(found["evidence"])["coincidences"] == 9.0
    assert one({"normalized_name": "qivaron", "state": "ME"}, *registered)["status"] == "matched"


def test_a_place_tells_names_apart_but_makes_no_name_alike() -> None:
    there = {"city": "CAMBRIDGE", "state": "MA", "zip_postal_code": "02139"}
    here = {"city": "Cambridge", "state": "MA", "zip": "02139"}
    found = one({"normalized_name": "zebrafan fotonics", **here}, {"normalized_name": "zebrafin photonics", **there})
    assert found["status"] == "review"
    assert found["score"] < 90 < json.loads(found["evidence"])["points"]


def test_of_candidates_with_as_many_points_the_active_one_comes_first() -> None:
    twins = [{"normalized_name": "orionix dynamics", "registration_status": status} for status in ("E", "A", "A")]
    found = match(companies({"normalized_name": "orionix dynamics"}), entities(*twins))
    assert found.candidates["uei"].to_list() == [f"{i:012d}" for i in (1, 2, 0)]


def test_a_trade_name_is_looked_at_as_well() -> None:
    found = one(
        {"normalized_name": "glowworm", "zip": "02139"},
        {"normalized_name": "luminous holdings", "normalized_dba": "glowworm", "zip_postal_code": "02139"},
    )
    assert found["status"] == "matched"
    assert json.loads(found["evidence"])["by_trade_name"]


def test_candidates_are_the_five_nearest_of_those_that_are_for_a_person() -> None:
    found = match(
        companies({"normalized_name": "common works research"}, {"normalized_name": "qivaron"}), entities(*CROWD)
    )
    assert found.companies["status"].to_list() == ["review", "none"]
    assert found.candidates["company_id"].unique().to_list() == ["C0"]
    assert found.candidates["rank"].to_list() == [1, 2, 3, 4, 5]
    assert found.candidates["points"].is_sorted(descending=True)


@pytest.mark.parametrize("which", ["companies", "entities", "both"])
def test_nothing_on_a_side_is_an_answer_too(which: str) -> None:
    left = companies() if which != "entities" else companies({"normalized_name": "a b"}, {"normalized_name": None})
    right = entities() if which != "companies" else entities({"normalized_name": "a b"}, {"normalized_name": None})
    found = match(left, right)
    assert found.companies.height == left.height
    assert set(found.companies["status"]) <= {"none"}
    assert found.companies.columns == match(companies({"normalized_name": "x y"}), entities(*CROWD)).companies.columns


def noisy(dice: np.random.Generator, name: str) -> str:
    at = int(dice.integers(1, len(name) - 1))
    return name[:at] + "x" + name[at + 1 :]


def world(n: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    dice = np.random.default_rng(3)
    signs = np.array(list("abcdefghiklmnoprstuvz"))
    names = ["".join(dice.choice(signs, 8)) + " " + dice.choice(["research", "systems", "optics"]) for _ in range(n)]
    registered = entities(
        *({"normalized_name": name, "zip_postal_code": f"{i % 97:05d}"} for i, name in enumerate(names))
    )
    asked = [noisy(dice, name) for name in names[: n // 4]]
    return companies(*({"normalized_name": name, "zip": f"{i % 97:05d}"} for i, name in enumerate(asked))), registered


def test_rare_grams_find_what_comparing_with_everything_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = world(1_200)
    found = match(left, right)

    def everything(one: pl.Series, other: pl.Series, _: object) -> Any:
        for at in range(len(one)):
            yield np.full(len(other), at), np.arange(len(other))

    monkeypatch.setattr(matching, "likely_pairs", everything)
    every = match(left[:60], right)
    both = every.companies.join(found.companies, on="company_id", suffix="_found")
    assert (both["status"] == "matched").sum() > 50
    assert both["uei"].eq_missing(both["uei_found"]).all()
    assert both["status"].equals(both["status_found"])
    true = pl.Series([f"{i:012d}" for i in range(left.height)])
    taken = found.companies.sort(pl.col("company_id").str.slice(1).cast(pl.Int64))
    assert taken["uei"].drop_nulls().len() > 0.85 * left.height
    assert (taken["uei"] == true).sum() == taken["uei"].drop_nulls().len()


def test_the_result_depends_on_neither_order_nor_chunks_nor_company(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = world(400)
    whole = match(left, right)
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 50)
    monkeypatch.setattr("pipelines.sbir.ngrams._NAMES_AT_ONCE", 37)
    other = match(
        left.sample(fraction=1, shuffle=True, seed=1),
        right.sample(fraction=1, shuffle=True, seed=2),
        Rules(budget=Budget(pairs_at_once=40)),
    )
    assert other.companies.equals(whole.companies)
    assert other.candidates.equals(whole.candidates)
    alone = pl.concat([match(left[at : at + 25], right).companies for at in range(0, left.height, 25)]).sort(
        "company_id"
    )
    assert alone.equals(whole.companies)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=6), st.lists(st.text(max_size=12), max_size=6))
def test_any_text_is_a_name(left: list[str], right: list[str]) -> None:
    grams, starts = grams_of(pl.Series(left, dtype=pl.String))
    assert len(starts) == len(left) + 1
    assert starts[-1] == len(grams)
    seen = [
        pair
        for here, there in likely_pairs(pl.Series(left, dtype=pl.String), pl.Series(right, dtype=pl.String))
        for pair in zip(here, there, strict=True)
    ]
    assert len(seen) == len(set(seen))
    # A name of two signs or more that stands on both sides as it is meets itself.
    plain = [(i, j) for i, a in enumerate(left) for j, b in enumerate(right) if a == b and len(a.strip()) > 1]
    assert set(plain) <= set(seen)


def test_a_name_is_looked_for_by_its_rarest_grams_and_by_one_even_when_all_are_common() -> None:
    right = pl.Series([*(f"common name {i:02d}" for i in range(50)), "common zyqx"])
    budget = Budget(postings=3, rarest=10)
    pairs = [
        (int(i), int(j))
        for here, there in likely_pairs(pl.Series(["common zyqv"]), right, budget)
        for i, j in zip(here, there, strict=True)
    ]
    assert pairs == [(0, 50)]
    common = pl.Series(["common name"])
    assert list(likely_pairs(common, right, budget)) == []
    found = list(likely_pairs(common, right, Budget(postings=3, rarest=60)))
    assert sum(len(here) for here, _ in found) == 50


def test_a_row_is_taken_over_while_the_company_and_sam_say_the_same() -> None:
    left = companies(
        {"normalized_name": "qivaron"}, {"normalized_name": "zebrafin photonics"}, {"normalized_name": "gone"}
    )
    left = left.with_columns(input_hash=pl.col("normalized_name"))
    right = entities({"normalized_name": "qivaron"}, {"normalized_name": "zebrafin photonics"})
    first = matching.with_new(None, match(left, right), left, "monday")
    now = left[:2].with_columns(
        input_hash=pl.when(pl.col("company_id") == "C1").then(pl.lit("other")).otherwise("input_hash")
    )
    kept = matching.still_true(first, now, "monday")
    assert kept["company_id"].to_list() == ["C0"]
    assert matching.still_true(first, now, "tuesday").is_empty()
    changed = now.join(kept, on="company_id", how="anti")
    again = matching.with_new(kept, match(changed, right), changed, "monday")
    run = ["matched_at", "input_hash"]
    assert again.drop(run).equals(matching.with_new(None, match(now, right), now, "monday").drop(run))
    nothing = matching.still_true(None, left, "monday")
    assert nothing.is_empty()
    assert nothing.columns == first.columns


def test_the_rules_are_the_settings() -> None:
    said = {"match": {"automatic": 95, "review": 80, "tie_points": 3}, "bands": {"high": 0.9}, "candidates": 3}
    rules = Rules.of({**said, "sources": {"fuzzy": {"confidence": 0.7, "highest": 0.8}}})
    assert (rules.automatic, rules.review, rules.tie_points, rules.high, rules.candidates) == (95, 80, 3, 0.9, 3)
    assert rules.fuzzy == (pytest.approx(0.65), 0.8)
    assert Rules.of({}) == Rules()
