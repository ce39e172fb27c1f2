"""The tills of the sales pipeline: the same files every time, with exactly the dirt that they promise."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

GENERATOR = Path(__file__).resolve().parents[2] / "pipelines" / "sales" / "generate.py"


@pytest.fixture(scope="module")
def tills() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sales_generator", GENERATOR)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_the_same_files_every_time(tills: ModuleType) -> None:
    assert tills.first_day() == tills.first_day()
    assert tills.second_day() == tills.second_day()


def test_day_one_is_dirty_in_seven_lines(tills: ModuleType) -> None:
    rows = [row for text in tills.first_day().values() for row in rows_of(text)]
    assert len(rows) == 3 * tills.SALES_PER_STORE + 1
    cut_off = [row for row in rows if row["unit_price"] is None]
    whole = [row for row in rows if row["unit_price"] is not None]
    assert len(cut_off) == 1
    assert len([row for row in whole if int(row["quantity"]) < 0]) == 3
    assert len([row for row in whole if row["store_id"] not in tills.STORES]) == 2
    assert len([row for row in whole if not row["sale_id"]]) == 1


def test_day_two_corrects_and_replaces(tills: ModuleType) -> None:
    first, second = tills.first_day(), tills.second_day()
    corrected = rows_of(second["2026-03-03_S01_corrections.csv"])
    known = {row["sale_id"]: row for row in rows_of(first["2026-03-02_S01.csv"])}
    assert len(corrected) == 12
    assert all(row["recorded_at"] > known[row["sale_id"]]["recorded_at"] for row in corrected)
    (anew,) = set(first) & set(second)
    assert anew == "2026-03-02_S03.csv"
    prices = {row["unit_price"] for row in rows_of(second[anew]) if row["product"] == "olive oil"}
    assert prices == {"9.40"}
    ids = [row["sale_id"] for name, text in second.items() if name != anew for row in rows_of(text)]
    assert len(ids) == len(set(ids))


def test_day_one_again_does_not_undo_day_two(tills: ModuleType, tmp_path: Path) -> None:
    assert len(tills.write(tmp_path, tills.first_day(), anew=False)) == 3
    assert len(tills.write(tmp_path, tills.second_day(), anew=True)) == 5
    assert tills.write(tmp_path, tills.first_day(), anew=False) == []
    assert tills.write(tmp_path, tills.second_day(), anew=True) == []
    assert (tmp_path / "2026-03-02_S03.csv").read_text() == tills.second_day()["2026-03-02_S03.csv"]
    assert {p.suffix for p in tmp_path.iterdir()} == {".csv"}
