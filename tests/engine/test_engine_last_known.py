"""What was last known of the lake is used only while it is still so."""

from __future__ import annotations

import json
import shutil
import sqlite3
from datetime import UTC, datetime

import pytest

from ratatouille import project as files
from ratatouille.engine import holds, last_known, open_workbench
from ratatouille.engine.plan import read_state
from ratatouille.lake.catalogs import file as catalog_file

ASSET = "pipelines/bronze/numbers.sql"
CSV = "pipelines/bronze/raw.yaml"
BELOW = "pipelines/silver/below.sql"


@pytest.fixture
def built(shop):
    shop.write(
        {
            ASSET: "select 1 as n, 'x' as word",
            BELOW: "select n from {{ ref('bronze.numbers') }}",
            "pipelines/bronze/raw.sql": "select * from {{ source('landing/*.csv') }}",
            CSV: "materialize: append\nsources: {'landing/*.csv': {columns: {id: BIGINT}}}",
            "landing/a.csv": "id\n1\n",
        }
    )
    shop.run()
    return shop


def recalled(shop):
    return last_known.recall(files.load(shop.root))


def read(shop):
    with open_workbench(shop.root) as bench, bench.lake.pinned() as session:
        return read_state(session, bench.project)


def opened(monkeypatch):
    """How often the lake is opened from here on."""
    from ratatouille.lake import connect

    times = []
    attach = connect._attach
    monkeypatch.setattr(connect, "_attach", lambda *a, **k: (times.append(1), attach(*a, **k))[1])
    return times


def test_what_is_known_after_a_run_is_what_the_ledger_says(built):
    known, state = recalled(built), read(built)
    assert (known.version, known.heads, dict(known.standing)) == (state.version, state.heads, dict(state.standing))
    assert known.landing == {name: list(found) for name, found in state.landing.items()}
    assert known.landing["bronze.raw"][0].file == "landing/a.csv"


def test_what_is_known_follows_files_that_come_and_change(built):
    built.write({"landing/b.csv": "id\n2\n"})
    built.run()
    built.write({"landing/a.csv": "id\n11\n12\n"})
    built.run()
    state = read(built)
    found = {one.file: one for one in recalled(built).landing["bronze.raw"]}
    assert found == {one.file: one for one in state.landing["bronze.raw"]}
    assert {name: one.rows_in for name, one in found.items()} == {"landing/a.csv": 2, "landing/b.csv": 1}


def test_a_run_with_nothing_to_do_does_not_open_the_lake(built, monkeypatch):
    times = opened(monkeypatch)
    assert built.run().status == "fresh" and times == []
    built.write({"landing/b.csv": "id\n2\n"})
    assert built.run().step("bronze.raw").rows_written == 1 and times


def test_files_that_are_set_aside_are_named_without_the_lake_too(built, monkeypatch):
    built.write({"landing/bad.csv": "id\nx\n"})
    built.run()
    times = opened(monkeypatch)
    assert [row["file"] for row in built.run().set_aside] == ["landing/bad.csv"] and times == []


def test_a_publish_by_somebody_else_makes_it_old(built):
    known = (built.root / ".rat/cache/state.json").read_bytes()
    built.write({ASSET: "select 2 as n, 'x' as word"})
    built.run()
    (built.root / ".rat/cache/state.json").write_bytes(known)
    assert recalled(built) is None
    assert built.run().status == "fresh" and recalled(built) is not None


@pytest.mark.parametrize("name", ["hold", "release"])
def test_a_hold_and_its_release_make_it_old(built, name):
    built.write({ASSET: "select 2 as n, 'x' as word"})
    first = built.entries("bronze.numbers")[0].version
    built.run()
    project = files.load(built.root)
    with holds.bench_on(project) as bench:
        holds.roll_back(bench, "bronze.numbers", first)
    assert recalled(built) is None
    assert built.step("bronze.numbers").status == "held"
    assert built.step("silver.below").status == "built"
    assert "bronze.numbers" in recalled(built).holds
    if name == "release":
        with holds.bench_on(project) as bench:
            holds.release(bench, "bronze.numbers")
        assert recalled(built) is None and built.step("bronze.numbers").status == "built"


def test_another_set_of_assets_needs_another_state(built):
    built.write({"pipelines/silver/more.sql": "select 1 as n"})
    assert recalled(built) is None
    assert built.step("silver.more").status == "built"


def test_another_lake_under_the_same_name_is_not_known(built):
    catalog = built.root / ".rat/catalog.sqlite"
    newest = catalog_file.newest_version(catalog)
    with sqlite3.connect(catalog) as writer:
        writer.execute("update ducklake_snapshot set snapshot_time = '2001-01-01 00:00:00+00'")
    writer.close()
    assert catalog_file.newest_version(catalog)[0] == newest[0] and recalled(built) is None


@pytest.mark.parametrize("damage", ["", "{", '{"product": "other"}', "[]"])
def test_a_damaged_file_is_ignored(built, damage):
    (built.root / ".rat/cache/state.json").write_text(damage)
    assert recalled(built) is None and built.run().status == "fresh"


def test_fields_of_another_kind_are_ignored(built):
    path = built.root / ".rat/cache/state.json"
    found = json.loads(path.read_text())
    found["heads"] = [[1, 2]]
    path.write_text(json.dumps(found))
    assert recalled(built) is None and built.run().status == "fresh"


def test_a_catalog_that_this_process_has_attached_is_not_read(built):
    catalog = built.root / ".rat/catalog.sqlite"
    assert catalog_file.newest_version(catalog) is not None
    with open_workbench(built.root), open_workbench(built.root):
        assert catalog_file.newest_version(catalog) is None
    assert catalog_file.newest_version(catalog) is not None


def test_a_removed_table_is_built_again_though_nothing_else_changed(built):
    with open_workbench(built.root, write=True) as bench, bench.lake.session() as session:
        session.execute("drop table lake.bronze.numbers")
    assert built.step("bronze.numbers").status == "built"


def test_an_asset_that_is_due_is_built(shop):
    shop.write({ASSET: "select now() as at", "pipelines/bronze/numbers.yaml": "refresh_every: 1h"})
    shop.run()
    assert shop.run().status == "fresh"
    path = shop.root / ".rat/cache/state.json"
    old = datetime.now(UTC).replace(tzinfo=None, year=2020).isoformat()
    found = json.loads(path.read_text())
    found["heads"][0] |= {name: old for name, value in found["heads"][0].items() if _is_time(value)}
    path.write_text(json.dumps(found))
    assert shop.run().step("bronze.numbers").status == "built"


def _is_time(value: object) -> bool:
    return isinstance(value, str) and value.startswith("20") and "T" in value and "-" in value[:5]


def test_a_cache_that_cannot_be_written_only_makes_it_slower(built):
    shutil.rmtree(built.root / ".rat/cache")
    (built.root / ".rat/cache").write_text("a file where the folder should be")
    assert built.run().status == "fresh" and recalled(built) is None
