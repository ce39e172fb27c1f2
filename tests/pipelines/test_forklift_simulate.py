"""The simulated fleet: the same files for the same seed, faults where they are said to be, the truth apart."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from pipelines.forklift import landing, simulate
from pipelines.forklift.arrival import fetch
from pipelines.forklift.lakefs import Folder, LakeFSError
from pipelines.forklift.simulate import Fleet

FLEET = Fleet(seed=7, forklifts=7, trucks=1, days=1)
NAMES = [*simulate.COLUMNS]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sent")
    simulate.write(FLEET, folder / "files", folder / "truth")
    return folder


def rows(sent: Path, machine: str) -> pl.DataFrame:
    path = sent / "files" / f"{machine}.csv"
    return pl.read_csv(path, separator=";", has_header=False, new_columns=NAMES, try_parse_dates=True)


def test_the_same_seed_gives_the_same_bytes_and_a_machine_does_not_depend_on_the_others(
    sent: Path, tmp_path: Path
) -> None:
    simulate.write(FLEET, tmp_path, only=slice(3, 4))
    assert [p.name for p in tmp_path.iterdir()] == ["FL-0004.csv"]
    assert (tmp_path / "FL-0004.csv").read_bytes() == (sent / "files/FL-0004.csv").read_bytes()
    simulate.write(Fleet(seed=8, forklifts=7, trucks=1, days=1), tmp_path, only=slice(3, 4))
    assert (tmp_path / "FL-0004.csv").read_bytes() != (sent / "files/FL-0004.csv").read_bytes()


def test_each_fault_is_there_and_the_truth_knows_better(sent: Path) -> None:
    heights = {name: rows(sent, name)["Height"] for name in ("FL-0001", "FL-0003", "FL-0005", "FL-0007", "TR-0008")}
    assert (heights["FL-0003"] > 6.7).mean() > 0.1, "a broken height sensor"
    assert heights["FL-0005"].max() > 6.7 and (heights["FL-0005"] > 6.7).mean() < 0.1, "a range that is too long"
    assert 0 < (heights["FL-0007"] > 60).mean() < 0.01, "spikes"
    assert heights["FL-0001"].max() < 6.7 and heights["TR-0008"].max() == 0
    flaps = {name: (rows(sent, name)["Load"].diff() != 0).sum() for name in ("FL-0001", "FL-0002", "FL-0004")}
    assert flaps["FL-0002"] > 5 * flaps["FL-0001"] and flaps["FL-0004"] == 0
    truth = pl.read_parquet(sent / "truth/FL-0004.parquet")
    assert truth.columns == ["machine", "ts", "phase", "carrying", "height", "load"]
    assert 0.1 < truth["carrying"].mean() < 0.5 and truth["height"].max() < 6.7
    assert not set(truth.columns) & {"Load", "Height"} and not list((sent / "files").glob("*.parquet"))


def test_clocks_have_gaps_late_and_double_rows_and_go_over_midnight(sent: Path) -> None:
    at = rows(sent, "FL-0003")["Timestamp"]
    assert at.is_duplicated().any() and (at.diff().dt.total_seconds() < 0).any()
    assert at.unique().sort().diff().dt.total_seconds().max() >= 60
    assert at.max().date() > FLEET.first_day == date(2026, 3, 2)


def test_fifty_million_rows_are_a_thousand_machines() -> None:
    fleet = simulate.fleet_of(50_000_000)
    assert fleet.forklifts + fleet.trucks == 1000 and len(set(simulate.names(fleet))) == 1000


@pytest.mark.parametrize("dies_at", range(1, 10, 2))
def test_an_arrival_that_dies_anywhere_is_mended_by_the_next(
    sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """Killed at a rename, with files of two commits in place: the next arrival ends where an undisturbed one does."""
    share, root = tmp_path / "share", tmp_path / "kitchen"
    (share / "real_data").mkdir(parents=True)
    for path in (sent / "files").glob("FL-*.csv"):
        (share / "real_data" / path.name).write_bytes(path.read_bytes()[:400])
    fetch(root, Folder(share, "real_data"), "real_data")
    for path in (share / "real_data").glob("FL-*.csv"):
        path.write_bytes(path.read_bytes() * 2)
    (share / "real_data/FL-0001.csv").unlink()
    calls, real = [], os.replace

    def dies(*args: Path) -> None:
        calls.append(args)
        if len(calls) == dies_at:
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        try:
            fetch(root, Folder(share, "real_data"), "real_data")
        except KeyboardInterrupt:
            assert len(calls) == dies_at
    came = fetch(root, Folder(share, "real_data"), "real_data")
    there = {name: path.read_bytes() for name, path in landing.telemetry_files(root).items()}
    wanted = {f"real_data/{path.name}": path.read_bytes() for path in (share / "real_data").iterdir()}
    assert there == wanted | {"real_data/FL-0001.csv": landing.TOMBSTONE}
    known = landing.objects(root).to_pylist()
    assert {row["commit_id"] for row in known} == {came.commit.id} and len(known) == len(wanted)


def test_two_arrivals_at_once_and_a_manifest_that_is_broken_are_said(tmp_path: Path) -> None:
    from pipelines.forklift.arrival import alone_in

    with alone_in(tmp_path), pytest.raises(LakeFSError, match="Another arrival"), alone_in(tmp_path):
        pass
    (tmp_path / landing.FOLDER).mkdir(parents=True)
    (tmp_path / landing.FOLDER / landing.MANIFEST).write_text('{"format": 1, "files": {"a": 3}}')
    with pytest.raises(landing.WrongManifest, match="Remove it, and ingest again"):
        landing.read_manifest(tmp_path)
