"""A stored file that is not what was published is caught before the next computation."""

from __future__ import annotations

import os

import pytest

from ratatouille import project as files
from ratatouille.upkeep.verify import verify

CHAIN = {
    "pipelines/bronze/a.sql": "select i as n, repeat('x', 50) as pad from range(1000) t(i)",
    "pipelines/silver/b.sql": "select n from {{ ref('bronze.a') }}",
}


def data_file(shop, asset):
    (path,) = (shop.root / ".rat/data" / asset.replace(".", "/")).rglob("*.parquet")
    os.chmod(path, 0o600)
    return path


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_a_bit, "checksum"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "bytes instead of"),
        (lambda path: path.unlink(), "gone"),
    ],
)
def test_damage_is_caught_before_it_is_read(shop, damage, said):
    shop.write({"workspace.yaml": "name: shop\nverify_every: 0s\n"} | CHAIN)
    shop.run()
    damage(data_file(shop, "bronze.a"))
    shop.write({"pipelines/silver/b.sql": "select n + 1 as n from {{ ref('bronze.a') }}"})
    step = shop.step("silver.b")
    assert step.status == "failed"
    assert said in step.error["where"]
    assert shop.value("select max(n) from silver.b") == 999, "readers see the version built from whole files"
    assert shop.step("bronze.a", force=True).status == "built"
    assert shop.step("silver.b").status == "built"


def test_sizes_are_compared_even_when_checksums_are_not_due(shop):
    shop.write(CHAIN)
    shop.run()
    data_file(shop, "bronze.a").unlink()
    shop.write({"pipelines/silver/b.sql": "select n + 2 as n from {{ ref('bronze.a') }}"})
    assert "gone" in shop.step("silver.b").error["where"]


def test_a_delete_file_of_rows_that_all_went_is_no_damage(shop):
    """DuckLake leaves it as if it were in use when a table is emptied."""
    shop.write(
        {
            "pipelines/silver/m.sql": "select i as id, {{ var('v') }} as v from range({{ var('v') }}, 4) t(i)",
            "pipelines/silver/m.yaml": "materialize: merge\nunique_key: id\nrefresh_every: 0s\non_change: forward\n",
            "workspace.yaml": "name: shop\nvars: {v: 0}\n",
        }
    )
    shop.run()
    shop.write({"workspace.yaml": "name: shop\nvars: {v: 2}\n"})
    assert shop.step("silver.m").entry.rows_deleted == 2
    assert shop.step("silver.m", force=True).rows_total == 2
    assert verify(files.load(shop.root)).damaged == ()
