"""Publications that belong together: if one of them cannot be published, none is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ratatouille.lake import (
    Entry,
    Journal,
    Lake,
    Publication,
    Storage,
    Superseded,
    attempt_folder,
    ledger,
    open_journal,
    open_lake,
    publish,
    seal,
    stage,
)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    folder = tmp_path / ".rat"
    with open_lake(
        Storage(folder / "catalog.sqlite", folder / "data", folder / "spill", threads=2), create=True
    ) as lake:
        yield lake


@pytest.fixture
def journal(tmp_path: Path, lake: Lake) -> Iterator[Journal]:
    with open_journal(tmp_path / ".rat/journal.sqlite") as opened:
        yield opened


def candidate(lake: Lake, journal: Journal, asset: str) -> Publication:
    token = journal.take_lease(asset, "one")
    assert token is not None
    with lake.pinned() as session:
        staged = stage(session, "select 1 as n", asset, attempt_folder(lake.storage, asset, "one", str(token)))
    staged = seal(staged, lake.storage.data)
    return Publication(Entry(asset, "one"), "replace", token, staged.columns, staged)


def test_one_that_somebody_else_has_published_keeps_all_of_them_out(lake: Lake, journal: Journal) -> None:
    good, late = candidate(lake, journal, "silver.good"), candidate(lake, journal, "silver.late")
    late = replace(late, entry=replace(late.entry, base_version=7))
    outcomes = publish(lake, journal, "one", [good, late], together=True)
    assert [outcome.entry for outcome in outcomes] == [None, None]
    assert all(isinstance(outcome.error, Superseded) for outcome in outcomes)
    with lake.session() as session:
        assert ledger.heads(session) == {}

    outcomes = publish(
        lake, journal, "one", [good, replace(late, entry=replace(late.entry, base_version=0))], together=True
    )
    assert len({outcome.entry.version for outcome in outcomes if outcome.entry}) == 1
    with lake.session() as session:
        assert set(ledger.heads(session)) == {"silver.good", "silver.late"}
