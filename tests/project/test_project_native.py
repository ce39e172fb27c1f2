"""Native assets are known from their decorators: no code runs, and what is not said in plain text is not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratatouille import project as files
from ratatouille.project.native import natives, table_name
from ratatouille.project.records import Project

LAYERS = ("bronze", "silver", "gold")


def found(code: str) -> list[str]:
    return list(natives({"pipelines/feeds.py": f"import dagster as dg\n{code}".encode()}, LAYERS))


@pytest.mark.parametrize(
    ("code", "tables"),
    [
        ("@dg.asset\ndef orders(): ...", ["default.orders"]),
        ("@asset\ndef raw_orders(): ...", ["raw.orders"]),
        ("@dg.asset(group_name='feeds')\ndef orders(): ...", ["feeds.orders"]),
        ("@dg.asset(name='orders', key_prefix='raw')\ndef f(): ...", ["raw.orders"]),
        ("@dg.asset(key_prefix=['shop', 'raw'])\ndef orders(): ...", ["raw.orders"]),
        ("@dg.asset(key=['silver', 'orders'])\ndef f(): ...", ["silver.orders"]),
        ("@dg.asset(key=dg.AssetKey(['silver', 'orders']))\ndef f(): ...", ["silver.orders"]),
        ("@dg.asset(metadata={'table': 'gold/orders', 'x': compute()})\ndef f(): ...", ["gold.orders"]),
        ("GROUP = 'feeds'\n@dg.asset(group_name=GROUP)\nasync def orders(): ...", ["feeds.orders"]),
        (
            "@dg.multi_asset(specs=[dg.AssetSpec('raw_a'), dg.AssetSpec(['silver', 'b'])])\ndef f(): ...",
            ["raw.a", "silver.b"],
        ),
    ],
)
def test_the_decorator_says_the_table(code: str, tables: list[str]) -> None:
    assert found(code) == tables


@pytest.mark.parametrize(
    "code",
    [
        "@dg.asset(name=f'orders_{n}')\ndef f(): ...",
        "@dg.asset(key=KEY)\ndef f(): ...",
        "A = B\nB = A\n@dg.asset(name=A)\ndef f(): ...",
        "@dg.asset(metadata=facts())\ndef f(): ...",
        "@dg.op\ndef orders(): ...",
        "@dg.multi_asset(outs={'a': dg.AssetOut()})\ndef f(): ...",
        "def orders(: broken",
    ],
)
def test_what_only_running_would_tell_is_not_guessed(code: str) -> None:
    assert found(code) == []


def test_where_it_is_made_is_known() -> None:
    native = natives({"pipelines/feeds.py": b"import dagster as dg\n\n\n@dg.asset\ndef raw_x(): ..."}, LAYERS)["raw.x"]
    assert (native.path, native.line) == ("pipelines/feeds.py", 4)


def test_a_name_without_any_place_has_a_schema_too() -> None:
    assert table_name(["orders"], "", "", LAYERS) == "default.orders"
    assert table_name(["shop", "orders"], "g", "", LAYERS) == "shop.orders"


def make(root: Path, content: dict[str, str]) -> Project:
    for name, text in {"workspace.yaml": "name: kitchen\n", **content}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return files.load(root)


FEEDS = "import dagster as dg\n\n@dg.asset(key_prefix='raw')\ndef weather(): ...\n"


def test_a_file_may_ref_a_native_asset(tmp_path: Path) -> None:
    project = make(
        tmp_path,
        {"pipelines/feeds.py": FEEDS, "pipelines/silver/wet.sql": "select day from {{ ref('raw.weather') }}"},
    )
    assert project.problems == ()
    assert project.assets["silver.wet"].depends_on == ("raw.weather",)
    assert list(project.natives) == ["raw.weather"]
    again = files.load(tmp_path)  # from the cache
    assert again.natives == project.natives and again.assets == project.assets


def test_a_misspelt_native_asset_is_an_error_with_the_near_miss(tmp_path: Path) -> None:
    project = make(
        tmp_path,
        {"pipelines/feeds.py": FEEDS, "pipelines/silver/wet.sql": "select day from {{ ref('raw.wether') }}"},
    )
    [problem] = project.problems
    assert problem.message == "there is no asset called 'raw.wether'"
    assert "raw.weather" in problem.hint
    (tmp_path / "pipelines/feeds.py").write_text(FEEDS.replace("weather", "wether"))
    assert files.load(tmp_path).problems == ()


def test_a_table_that_is_used_without_ref_is_named(tmp_path: Path) -> None:
    project = make(tmp_path, {"pipelines/feeds.py": FEEDS, "pipelines/silver/wet.sql": "select day from raw.weather"})
    [problem] = project.problems
    assert "used without ref" in problem.message and problem.hint == "write {{ ref('raw.weather') }}"


def test_a_file_of_the_same_name_is_the_one_that_counts(tmp_path: Path) -> None:
    project = make(
        tmp_path,
        {"pipelines/feeds.py": FEEDS.replace("raw", "silver"), "pipelines/silver/weather.sql": "select 1 as day"},
    )
    assert list(project.assets) == ["silver.weather"] and not project.natives
