"""Candidates: what is remembered between the process that builds a version and those that judge it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ratatouille.lake import Entry, Journal, Staged, candidates, open_journal
from ratatouille.lake.candidates import Candidate
from ratatouille.lake.stage import StagedFile


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(tmp_path / "journal.sqlite") as opened:
        yield opened


def candidate(run_id: str = "run-1", token: int = 1, gates: tuple[str, ...] = ("a", "b")) -> Candidate:
    entry = Entry("silver.sales", run_id, fingerprint="f", inputs={"bronze.sales": 3}, columns=(("n", "BIGINT"),))
    file = StagedFile("/data/x.parquet", 10, 200, "abc")
    return Candidate(entry, Staged(Path("/data"), (("n", "BIGINT"),), (file,)), token, gates)


def verdict(let_pass: bool) -> dict[str, Any]:
    return {"passed": let_pass, "let_pass": let_pass, "said": "so"}


def test_it_comes_back_as_it_was(journal: Journal) -> None:
    put = candidates.put(journal, candidate())
    assert put.entry == candidate().entry
    assert put.staged == candidate().staged
    assert (put.state, put.missing) == ("waiting", ("a", "b"))


def test_the_last_gate_to_pass_decides(journal: Journal) -> None:
    found = candidates.put(journal, candidate())
    found = candidates.record(journal, found, "b", verdict(True))
    assert (found.state, found.missing) == ("waiting", ("a",))
    found = candidates.record(journal, found, "a", verdict(True))
    assert (found.state, found.missing, found.failed) == ("passed", (), ())


def test_one_that_failed_keeps_it_out_whatever_the_others_say(journal: Journal) -> None:
    found = candidates.put(journal, candidate())
    found = candidates.record(journal, found, "a", verdict(False))
    found = candidates.record(journal, found, "b", verdict(True))
    assert (found.state, found.failed) == ("rejected", ("a",))


def test_the_newest_word_of_a_gate_counts(journal: Journal) -> None:
    found = candidates.put(journal, candidate(gates=("a",)))
    assert candidates.record(journal, found, "a", verdict(False)).state == "rejected"
    assert candidates.record(journal, found, "a", verdict(True)).state == "passed"


def test_what_was_published_stays_published(journal: Journal) -> None:
    found = candidates.put(journal, candidate(gates=("a",)))
    candidates.mark(journal, found, "published", 7)
    found = candidates.record(journal, found, "a", verdict(False))
    assert (found.state, found.version) == ("published", 7)


def test_the_newest_attempt_of_the_first_run_that_has_one(journal: Journal) -> None:
    candidates.put(journal, candidate("run-1", 1))
    candidates.put(journal, candidate("run-1", 2))
    candidates.put(journal, candidate("run-2", 3))
    found = candidates.find(journal, "silver.sales", ["run-9", "run-1", "run-2"])
    assert found is not None
    assert (found.run_id, found.token) == ("run-1", 2)
    assert candidates.find(journal, "silver.sales", ["run-9"]) is None


def test_only_the_newest_can_still_be_judged_by_a_later_run(journal: Journal) -> None:
    old = candidates.put(journal, candidate("run-1", 1))
    assert candidates.newest_open(journal, "silver.sales") == old
    new = candidates.put(journal, candidate("run-2", 2))
    candidates.mark(journal, new, "published", 5)
    assert candidates.newest_open(journal, "silver.sales") is None
    assert candidates.newest_open(journal, "silver.other") is None


def test_two_journals_see_one_candidate(tmp_path: Path, journal: Journal) -> None:
    candidates.put(journal, candidate())
    with open_journal(tmp_path / "journal.sqlite") as other:
        found = candidates.find(other, "silver.sales", ["run-1"])
        assert found is not None
        candidates.record(other, found, "a", verdict(True))
    again = candidates.find(journal, "silver.sales", ["run-1"])
    assert again is not None
    assert again.missing == ("b",)


def test_an_entry_without_a_time_has_none(journal: Journal) -> None:
    put = candidates.put(journal, replace(candidate()))
    assert put.entry.published_at is None
