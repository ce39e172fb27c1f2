"""F1 from landing files to tables, without Dagster: what bronze takes, and the laps of twelve real races."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ratatouille import dbt
from ratatouille.errors import GateFailed
from ratatouille.handle import Workspace

ROOT = Path(__file__).resolve().parents[2]
LAPS = "bronze_raw.bronze_laps"
SILVER = "default_silver_clean"
GOLD = "default_gold_analytics"


@pytest.fixture
def kitchen(tmp_path: Path) -> Workspace:
    """A workspace with the bronze files and the dbt project, and no Dagster assets."""
    root = tmp_path / "kitchen"
    (root / "pipelines" / "f1").mkdir(parents=True)
    shutil.copy(ROOT / "workspace.yaml", root)
    for part in ("bronze_raw", "dbt"):
        shutil.copytree(ROOT / "pipelines" / "f1" / part, root / "pipelines" / "f1" / part)
    return Workspace(root)


def lap(number: int, **more: Any) -> dict[str, Any]:
    return {"session_key": 9002, "meeting_key": 1201, "driver_number": 44, "lap_number": number, "date_start": "2024-03-03T18:01:00+00:00", "lap_duration": 75.0, "duration_sector_1": 25.0, "duration_sector_2": 25.0, "duration_sector_3": 25.0, "i1_speed": 300, "i2_speed": 300, "st_speed": 300, "is_pit_out_lap": False, "segments_sector_1": [2048], "segments_sector_2": [2048], "segments_sector_3": [2048], **more}  # fmt: skip


def land(kitchen: Workspace, key: int, entity: str, rows: Any, meeting: int = 1201) -> Path:
    path = kitchen.root / f"landing/f1/year=2024/meeting={meeting}/session={key}/{entity}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


def count(kitchen: Workspace, table: str = LAPS) -> int:
    return int(kitchen.query(f"select count(*) as n from {table}")["n"][0])


def test_a_half_written_file_is_set_aside_and_read_once_it_is_whole(kitchen: Workspace) -> None:
    land(kitchen, 9001, "laps", [lap(1, session_key=9001)])
    whole = json.dumps([lap(1), lap(2)])
    half = land(kitchen, 9002, "laps", whole[: len(whole) // 2])
    step = kitchen.run(LAPS)
    [aside] = step["set_aside"]
    assert aside["file"] == str(half.relative_to(kitchen.root)) and "not closed" in aside["reason"]
    assert count(kitchen) == 1
    assert kitchen.run(LAPS)["status"] in ("skipped", "held") and count(kitchen) == 1
    land(kitchen, 9002, "laps", whole)
    assert kitchen.run(LAPS)["rows_written"] == 2 and count(kitchen) == 3


def test_a_field_that_is_missing_or_of_another_type_keeps_the_file_out_and_a_new_one_is_kept(
    kitchen: Workspace,
) -> None:
    land(kitchen, 9001, "laps", [lap(1, session_key=9001)])
    assert kitchen.run(LAPS)["rows_written"] == 1
    without = lap(1)
    del without["lap_duration"]
    for broken, why in (([without], "lap_duration"), ([lap(1, lap_duration="fast")], '"fast"')):
        path = land(kitchen, 9002, "laps", broken)
        [aside] = kitchen.run(LAPS)["set_aside"]
        assert aside["file"] == str(path.relative_to(kitchen.root)) and why in aside["reason"]
        assert count(kitchen) == 1
    land(kitchen, 9002, "laps", [lap(1, tyre="soft")])
    step = kitchen.run(LAPS)
    assert any("tyre" in warning for warning in step["warnings"]), step
    assert kitchen.query(f"select session_key, tyre from {LAPS} order by 1").rows() == [(9001, None), (9002, "soft")]


@pytest.mark.real_data
@pytest.mark.slow
def test_twelve_real_races_and_the_three_whose_sessions_are_not_given(kitchen: Workspace, real_data: Path) -> None:
    given = real_data / "f1"
    races = {int(path.name.split("_")[1].split(".")[0]): path for path in sorted((given / "laps").glob("*.json.gz"))}
    assert len(races) == 12
    tables = {name: _table(given, name) for name in ("sessions", "drivers")}
    known = sorted(set(races) & set(tables["sessions"]["session_key"]))
    unknown = sorted(set(races) - set(known))
    assert (len(known), unknown) == (9, [9472, 9496, 9550])

    _land_races(kitchen, races, known)
    for name, rows in tables.items():
        for key in known:
            land(kitchen, key, name, rows.filter(pl.col("session_key") == key).to_dicts())
    land(kitchen, 1, "location", [{"session_key": known[0], "meeting_key": 1, "driver_number": 1, "date": "2023-03-05T15:00:00+00:00", "x": 1, "y": 1, "z": 1}])  # fmt: skip
    for name in ("pit", "race_control", "session_result", "starting_grid"):
        land(kitchen, 1, name, [])
    kitchen.run()
    assert count(kitchen) == sum(len(_laps(races[key])) for key in known) == 10_147
    built = {layer: _build(kitchen, layer) for layer in ("silver", "core", "marts")}
    assert {layer: told["status"] for layer, told in built.items()} == dict.fromkeys(built, "completed")
    assert count(kitchen, f"{SILVER}.silver_laps") == count(kitchen, f"{GOLD}.fact_laps") == 10_147
    keys = "session_key, driver_number, lap_number"
    assert kitchen.query(f"select {keys} from {GOLD}.fact_laps group by all having count(*) > 1").is_empty()
    assert count(kitchen, f"{GOLD}.session_leaderboard where position = 1") == 9

    # The laps of races whose sessions nobody gave: the test says which fault it is, and readers keep the nine.
    _land_races(kitchen, races, unknown)
    kitchen.run()
    assert count(kitchen) == 13_589
    with pytest.raises(GateFailed, match="silver_laps_have_a_session"):
        _build(kitchen, "silver")
    assert count(kitchen, f"{SILVER}.silver_laps") == 10_147


def _build(kitchen: Workspace, layer: str) -> dict[str, Any]:
    return dbt.build(kitchen.root / "pipelines/f1/dbt", select=layer, workspace=kitchen.root)


def _laps(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
    return rows


def _land_races(kitchen: Workspace, races: dict[int, Path], keys: Sequence[int]) -> None:
    for key in keys:
        land(kitchen, key, "laps", _laps(races[key]))


def _table(given: Path, name: str) -> pl.DataFrame:
    """The rows of 2023 and of session 9531."""
    rows = pl.read_csv(given / f"openf1_{name}_2023.csv", null_values="NA", infer_schema_length=None)
    rows = rows.with_columns(pl.col("^team_colour$").cast(pl.String))
    return pl.concat([rows, pl.DataFrame(json.loads((given / "api" / f"{name}_9531.json").read_text()))], how="diagonal_relaxed")  # fmt: skip
