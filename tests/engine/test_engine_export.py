"""Exports: the same rows in every format, whole or not there, and of the version that was asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import duckdb
import pytest

from ratatouille import project as files
from ratatouille.cli.entry import run_command
from ratatouille.errors import LakeError, RequestError
from ratatouille.upkeep import export as exporting
from ratatouille.upkeep.export import export, plain_type

SQL = """
select i as id, (i % 200)::utinyint as small, (i * 1.5)::decimal(12, 2) as amount, 'nö ' || i as name,
  timestamp '2026-01-01' + to_days(i::integer) as at_, [i, null] as many, {'a': i, 'b': null::varchar} as pair,
  case when i % 2 = 0 then i / 3 end as part, uuid '00000000-0000-0000-0000-000000000001' as u, date '2026-01-01' as d
from range(SIZE) t(i)
"""


@pytest.fixture
def built(shop):
    shop.write({"pipelines/gold/g.sql": SQL.replace("SIZE", "300"), "pipelines/gold/v.sql": "select count(*) as n from {{ ref('gold.g') }}",
                "pipelines/gold/v.yaml": "materialize: view\n", "pipelines/gold/never.sql": "select 1 / 0 as n, error('no') as e"})  # fmt: skip
    assert not shop.run("gold.g", "gold.v").failed
    return shop


def exported(shop, *selectors, **options):
    options = {"format": "parquet", "to": shop.root.parent / "out"} | options
    return export(files.load(shop.root), selectors or ["gold.g"], **options)


def content(path, format):
    """id, amount, name, part, pair.a of what a foreign reader sees."""
    if format == "delta":
        from deltalake import DeltaTable

        rows = DeltaTable(path).to_pyarrow_table()
    elif format == "iceberg":
        from pyiceberg.table import StaticTable

        hint = (Path(path) / "metadata/version-hint.text").read_text()
        rows = StaticTable.from_metadata(f"{path}/metadata/{hint}.metadata.json").scan().to_arrow()
    else:
        rows = duckdb.sql(f"from '{path}'").to_arrow_table()
    whole = "id, amount::decimal(12,2)::varchar, name, round(part, 6)" + (
        "" if format == "csv" else ", pair.a, many[1], small, u::varchar, d"
    )
    with duckdb.connect() as reader:
        return reader.register("rows", rows).execute(f"select {whole} from rows order by id").fetchall()


@pytest.mark.parametrize("format", ["parquet", "csv", "delta", "iceberg"])
def test_every_format_has_the_same_rows(built, format, capsys):
    old = built.entries("gold.g")[0].version
    what = "id, amount::decimal(12,2)::varchar, name, round(part, 6)" + (
        "" if format == "csv" else ", pair.a, many[1], small, u::varchar, d"
    )
    rows = built.rows(f"select {what} from gold.g order by id")
    out = built.root.parent / "out"
    (done,) = exported(built, format=format)
    assert (done.asset, done.rows, done.version) == ("gold.g", 300, old) and done.bytes > 1000
    assert content(done.path, format) == rows
    assert [path.name for path in out.iterdir()] == [Path(done.path).name], "nothing is left beside it"

    built.write({"pipelines/gold/g.sql": SQL.replace("SIZE", "10")}).run("gold.g")
    with pytest.raises(RequestError, match="there already"):
        exported(built, format=format)
    assert content(done.path, format) == rows
    words = ["-w", str(built.root), "export", "gold.g", "--to", str(out), "--format", format, "--overwrite", "--json"]
    assert run_command(words) == 0
    assert json.loads(capsys.readouterr().out)[0]["rows"] == 10
    assert content(done.path, format) == rows[:10]
    exported(built, format=format, version=old, overwrite=True)
    assert content(done.path, format) == rows
    assert [path.name for path in out.iterdir()] == [Path(done.path).name]


def test_a_table_may_say_where_it_lies_in_an_export(built):
    built.write({"pipelines/gold/h.sql": "select 1 as id", "pipelines/gold/h.yaml": "export_as: valid/pass/h\n"})
    built.run("gold.h")
    out = built.root.parent / "tree"
    for one in exported(built, "gold.h", to=out), exported(built, "layer:gold", to=out, format="csv"):
        assert {Path(done.path).relative_to(out).with_suffix("").as_posix() for done in one} <= {
            "valid/pass/h",
            "gold.g",
            "gold.v",
        }
    assert (out / "valid" / "pass" / "h.parquet").is_file() and (out / "valid" / "pass" / "h.csv").is_file()

    built.write({"pipelines/gold/g.yaml": "export_as: valid/pass/h\n"})
    with pytest.raises(RequestError, match="would both be"):
        exported(built, "layer:gold", to=out, overwrite=True)
    for wrong in ("../h", "/h", "a//h", ".h"):
        built.write({"pipelines/gold/h.yaml": f"export_as: {wrong}\n"})
        assert "below the folder of the export" in str(files.load(built.root).errors[0]), wrong


def test_an_export_that_fails_leaves_what_was_there(built, monkeypatch):
    (done,) = exported(built)
    (table,) = exported(built, format="iceberg")
    before = content(done.path, "parquet")

    def torn(*words, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting.os, "replace", torn)
    monkeypatch.setattr(exporting.os, "rename", torn)
    for format in ("parquet", "iceberg"):
        with pytest.raises(LakeError, match="full"):
            exported(built, format=format, overwrite=True)
    assert content(done.path, "parquet") == before == content(table.path, "iceberg")
    assert len(list((built.root.parent / "out").iterdir())) == 2
    monkeypatch.undo()
    dead = built.root.parent / "out/.gold.g.parquet.999999.partial"
    dead.write_text("left by a killed export")
    exported(built, overwrite=True)
    assert not dead.exists()


def test_selections_share_a_version_and_views_are_rows_too(built):
    done = exported(built, "layer:gold", format="csv")
    assert [(one.asset, one.rows) for one in done] == [("gold.g", 300), ("gold.v", 1)], (
        "what was never built is left out"
    )


def test_what_cannot_be_exported_says_why(built, monkeypatch, tmp_path):
    for options, said in (
        ({"format": "xls"}, "no format"),
        ({"to": built.root / ".rat/data/x"}, "own folder"),
        ({"version": 999}, "never published"),
    ):
        with pytest.raises(RequestError, match=said):
            exported(built, **options)
    with pytest.raises(RequestError, match="never built"):
        exported(built, "gold.never")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(RequestError) as raised:
        exported(built, format="delta")
    assert raised.value.next == "pip install 'ratatouille-lakehouse[export]'"
    monkeypatch.undo()
    (path,) = (built.root / ".rat/data/gold/g").rglob("*.parquet")
    os.chmod(path, 0o600)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(LakeError, match="damaged"):
        exported(built, to=tmp_path / "other")
    assert not (tmp_path / "other").exists(), "nothing was written"


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        ("STRUCT(\"UUID\" UTINYINT, b TIMESTAMP_NS[])", "STRUCT(\"UUID\" INTEGER, b TIMESTAMP[])"),
        ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE"),
        ("TIME", "VARCHAR"),
        ("MAP(UBIGINT, JSON)", "MAP(DECIMAL(20,0), VARCHAR)"),
    ],
)  # fmt: skip
def test_types_that_the_open_formats_do_not_have_become_the_nearest(kind, plain):
    assert plain_type(kind) == plain
