"""The cache: the same project, without a parser; never wrong, never needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ratatouille.project import draft, load
from ratatouille.project.records import Project

Write = Callable[..., Path]
FILES = {
    "workspace.yaml": "name: shop\nenv: [CITY]\nvars: {limit: 3}\nsources: {s: {files: 'landing/*.csv', nulls: [NA]}}",
    "bronze/raw.csv": "id,amount\n1,2\n",
    "bronze/s.sql": "select * from {{ source('s') }}",
    "silver/sales.sql": "select id, amount, now() as t from {{ ref('bronze.raw') }} where id > {{ var('limit') }}",
    "silver/sales.yaml": "columns: {id: {type: int, sensitive: true, checks: [not_null, {accepted_values: [1, a]}]}}\n"
    "retries: {max: 1}\ntriggers: [{schedule: '@daily'}]\nfreshness: {warn_after: 1h}\nversion: {sql: select 1}",
    "gold/total.sql": "select sum(amount) as total from {{ ref('silver.sales') }}",
    "gold/p.py": "import helper\ndef build(context):\n    return context.ref('silver.sales')\n",
    "pipelines/sales/helper.py": "x = 1",
    "gold/broken.sql": "select nope from {{ ref('silver.sales') }} join other using (id)",
}


@pytest.fixture
def drafted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the assets whose files were parsed."""
    names: list[str] = []
    real = draft.draft_asset

    def counted(found, *rest):  # type: ignore[no-untyped-def]
        names.append(found.name)
        return real(found, *rest)

    monkeypatch.setattr(draft, "draft_asset", counted)
    return names


def _fresh(root: Path) -> Project:
    return load(root, environment={}, use_cache=False)


def test_a_cached_project_is_equal(write: Write, drafted: list[str]) -> None:
    root = write(FILES)
    first = load(root, environment={})
    assert len(drafted) == 6
    assert len(first.problems) == 1
    drafted.clear()
    assert load(root, environment={}) == first
    assert drafted == []
    assert _fresh(root) == first


CHANGES = {
    "a query": (
        "silver/sales.sql",
        "select id, amount, 1 as t from {{ ref('bronze.raw') }} where id > 4",
        ["silver.sales"],
    ),
    "a query's columns": (
        "silver/sales.sql",
        "select id, amount from {{ ref('bronze.raw') }}",
        ["gold.total", "silver.sales"],
    ),
    "a column that is used below": ("bronze/raw.csv", "id,amnt\n1,2\n", ["bronze.raw", "silver.sales"]),
    "a sidecar": ("silver/sales.yaml", "description: x", ["silver.sales"]),
    "a new file": ("gold/more.sql", "select 1 as a", ["gold.more"]),
    "a module": ("pipelines/sales/helper.py", "x = 2", ["gold.p"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_changed_is_read_again_and_the_result_is_right(
    change: tuple[str, str, list[str]], write: Write, drafted: list[str]
) -> None:
    load(write(FILES), environment={})
    drafted.clear()
    name, text, expected = change
    root = write({**FILES, name: text})
    project = load(root, environment={})
    again = [one for one in drafted if one != "gold.broken"]
    assert sorted(set(again)) == expected
    assert project == _fresh(root)
    assert load(root, environment={}) == project


def test_a_removed_file_is_gone(write: Write) -> None:
    root = write(FILES)
    load(root, environment={})
    (root / "pipelines/sales/gold/total.sql").unlink()
    project = load(root, environment={})
    assert "gold.total" not in project.assets
    assert project == _fresh(root)


def test_variables_and_the_environment_count(write: Write) -> None:
    root = write({**FILES, "bronze/c.sql": "select '{{ env('CITY', 'x') }}' as city"})
    one = load(root, environment={"CITY": "a", "OTHER": "1"})
    assert load(root, environment={"CITY": "a", "OTHER": "2"}) == one
    two = load(root, environment={"CITY": "b"})
    assert one.assets["bronze.c"].code_hash != two.assets["bronze.c"].code_hash
    assert one.assets["silver.sales"].code_hash == two.assets["silver.sales"].code_hash


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"product": 1}', b"\xff\xfe", b"null"])
@pytest.mark.parametrize("name", ["project.json", "analysis.json"])
def test_a_damaged_cache_is_ignored(name: str, damage: bytes, write: Write) -> None:
    root = write(FILES)
    first = load(root, environment={})
    (root / ".rat/cache" / name).write_bytes(damage)
    assert load(root, environment={}) == first


def test_a_cache_of_another_version_is_ignored(write: Write, drafted: list[str]) -> None:
    root = write(FILES)
    first = load(root, environment={})
    for path in (root / ".rat/cache").iterdir():
        path.write_text(re.sub(r'"product": "\w+"', '"product": "0"', path.read_text()))
    drafted.clear()
    assert load(root, environment={}) == first
    assert len(drafted) == 6


def test_a_cache_with_other_shapes_is_ignored(write: Write) -> None:
    root = write(FILES)
    first = load(root, environment={})
    for path in (root / ".rat/cache").iterdir():
        path.write_text(path.read_text().replace('"name"', '"nom"').replace('"drafts"', '"d"'))
    assert load(root, environment={}) == first


def test_a_folder_that_cannot_be_written_is_fine(write: Write) -> None:
    root = write(FILES)
    (root / ".rat").write_text("in the way")
    assert load(root, environment={}).assets


def test_the_cache_is_private(write: Write) -> None:
    root = write(FILES)
    load(root, environment={})
    assert (root / ".rat/cache").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (root / ".rat/cache").iterdir()} == {0o600}
    assert {path.name for path in (root / ".rat/cache").iterdir()} == {"project.json", "analysis.json"}


HEAVY = ("yaml", "pydantic", "jinja2", "sqlglot", "polars", "pyarrow", "duckdb", "typer", "rich")


def test_unchanged_files_load_without_a_parser(write: Write) -> None:
    root = write(FILES)
    code = (
        "import sys\nfrom pathlib import Path\nimport ratatouille.project as project\n"
        f"imported = [name for name in {HEAVY} if name in sys.modules]\n"
        "loaded = project.load(Path(sys.argv[1]), environment={})\n"
        "project.select(loaded, ['+gold.total'])\n"
        f"print(imported, [name for name in {HEAVY} if name in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    load(root, environment={})
    found = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout.strip() == "[] []"
