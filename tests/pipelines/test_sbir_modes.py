"""Incremental equals full refresh: any split of the awards into deliveries, with corrections and withdrawals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from pipelines.sbir.sample import sample
from pipelines.sbir.sample_files import award_files
from sbir_lake import AWARDS, Lake

TABLES = (
    "raw.sbir_awards", "validated.sbir_award_lines", "validated.company_keys", "validated.sbir_awards_pass",
    "validated.sbir_awards_fail", "validated.sbir_awards_duplicate", *AWARDS,
)  # fmt: skip


def deliver(lake: Lake, lines: pl.DataFrame) -> None:
    """The files of the awards as they are now: those that differ are written again, as a source does."""
    for name, rows in award_files(lines).items():
        path = lake.root / "landing" / "sbir" / "awards" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = rows.write_json() if path.suffix == ".json" else rows.write_csv()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def build(lake: Lake, **wish: object) -> dict[str, int]:
    """Rows written by table."""
    done = lake.run(*(f"+{table}" for table in AWARDS), **wish)
    assert done.status in ("done", "fresh"), [step.error for step in done.steps if step.error]
    return {step.asset: step.rows_written for step in done.steps if step.status == "built"}


@pytest.mark.parametrize("seed", [1])
def test_three_deliveries_with_corrections_and_withdrawals_end_as_one_full_refresh(
    seed: int, tmp_path: Path, trials: Callable[[int], int]
) -> None:
    for number in range(trials(1)):
        lines = sample(160, seed=seed + number).lines
        few = lines.filter(pl.col("_verdict") == "fail").head(2)  # more would be stopped by a gate
        world = pl.concat([lines.filter(pl.col("_verdict") != "fail"), few]).with_columns(
            pl.int_range(pl.len()).alias("_n")
        )
        shuffled = world.sample(fraction=1, shuffle=True, seed=seed + number)
        part = pl.col("_n").is_in(shuffled["_n"].head(world.height // 3).to_list())
        later = pl.col("_n").is_in(shuffled["_n"].tail(world.height // 3).to_list())
        corrected = (
            pl.when(pl.col("_n") % 11 == 0)
            .then(pl.lit("123456.00"))
            .otherwise(pl.col("Award Amount"))
            .alias("Award Amount")
        )
        renamed = (
            pl.when(pl.col("_n") % 17 == 0)
            .then(pl.col("Company") + " Holdings")
            .otherwise(pl.col("Company"))
            .alias("Company")
        )
        deliveries = [
            world.filter(part),
            world.filter(part | ~later).with_columns(corrected),
            world.with_columns(corrected, renamed).filter(pl.col("_n") % 13 != 0),  # and some are withdrawn
        ]
        grown, whole = Lake(_folder(tmp_path / f"grown{number}")), Lake(_folder(tmp_path / f"whole{number}"))
        for lines in deliveries:
            deliver(grown, lines)
            build(grown)
        deliver(whole, deliveries[-1])
        build(whole)
        assert grown.hashes(*TABLES) == whole.hashes(*TABLES)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_only_what_is_new_changed_or_withdrawn_flows(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rows = [
        {
            "Agency Tracking Number": f"T-{n}",
            "Contract": f"C-{n}",
            "Duns": f"{111111111 + n % 5}",
            "Company": f"Firm {n % 5}",
        }
        for n in range(40)
    ]
    lake.land("bulk/a.csv", rows)
    build(lake)
    before = lake.ask("select snapshot_id from lake.snapshots() order by 1 desc limit 1")[0][0]

    lake.land("bulk/a.csv", [*rows[:20], {**rows[20], "Award Amount": "5"}, *rows[22:]])  # one corrected, one withdrawn
    lake.land("bulk/b.csv", [{**rows[0], "Agency Tracking Number": "T-new", "Contract": "C-new"}])
    written = build(lake)
    assert written["validated.sbir_awards_pass"] == 2 and written["validated.sbir_award_lines"] == 2
    # The cumulative funding of later awards of the two companies changes too, and of no other one.
    assert written["transformed.companies"] == 2 and written["transformed.contracts"] == 2
    assert 2 <= written["transformed.awards"] <= 16
    now = lake.ask("select max(snapshot_id) from lake.snapshots()")[0][0]
    changed = f"from ducklake_table_changes('lake', 'validated', 'sbir_awards_pass', {before + 1}, {now})"
    assert lake.ask(f"select distinct agency_tracking_number {changed} order by 1") == [
        ("T-20",),
        ("T-21",),
        ("T-new",),
    ]

    assert build(lake) == {}
    (lake.root / "landing/sbir/awards/bulk/c.csv").write_text(
        (lake.root / "landing/sbir/awards/bulk/b.csv").read_text()
    )
    assert build(lake)["transformed.awards"] == 0  # the same award in one file more is a duplicate
    assert lake.ask("select rule from lake.validated.sbir_awards_duplicate") == [("same_award",)]


def test_without_any_award_the_gate_of_the_awards_says_so_and_nothing_below_is_built(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    done = lake.run("+transformed.companies")
    step = done.step("validated.sbir_awards_pass")
    assert step.status == "failed" and "completeness" in step.error["what"] and "0 of 0" in step.error["what"]
    assert done.step("transformed.companies").status == "blocked"
    assert lake.ask("select count(*) from lake.validated.sbir_award_lines") == [(0,)]
