"""Python assets are read, never imported."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ratatouille.project.records import Asset, Project

Make = Callable[..., Project]
RAW = {"bronze/raw.csv": "id\n1\n", "bronze/other.csv": "id\n1\n"}


def _asset(make: Make, code: str, files: dict[str, str] | None = None) -> Asset:
    project = make({**RAW, "silver/p.py": code, **(files or {})})
    assert project.problems == (), [problem.message for problem in project.problems]
    return project.assets["silver.p"]


def test_code_does_not_run(make: Make) -> None:
    asset = _asset(make, "raise SystemExit\ndef build(context):\n    return context.ref('bronze.raw')\n")
    assert asset.depends_on == ("bronze.raw",)


def test_what_it_asks_for(make: Make) -> None:
    code = """
def helper(c):
    return c.ref("bronze.other")

def build(context):
    if context.is_incremental:
        context.watermark("id")
    yield context.source("landing/*.csv")
    yield context.ref("bronze.raw")
    yield helper(context)
"""
    asset = _asset(make, code)
    assert asset.depends_on == ("bronze.other", "bronze.raw") or asset.depends_on == ("bronze.raw", "bronze.other")
    assert [source.glob for source in asset.sources] == ["landing/*.csv"]
    assert asset.incremental


def test_computed_names_are_fine_when_declared(make: Make) -> None:
    code = "def build(context):\n    return context.ref('bronze.' + 'raw')\n"
    assert _asset(make, code, {"silver/p.yaml": "depends_on: [bronze.raw]"}).depends_on == ("bronze.raw",)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import httpx", ("network: httpx",)),
        ("from urllib.request import urlopen", ("network: urllib",)),
        ("x = lambda: datetime.now()", ("clock: datetime.now",)),
        ("x = lambda: datetime.datetime.now()", ("clock: datetime.datetime.now",)),
        ("x = lambda: random.random()", ("random: random.random",)),
        ("x = 1", ()),
    ],
)
def test_what_never_stays_the_same(line: str, found: tuple[str, ...], make: Make) -> None:
    assert _asset(make, f"{line}\ndef build(context):\n    return 1\n").volatile == found


def test_comments_and_docstrings_do_not_change_the_code(make: Make) -> None:
    plain = _asset(make, "def build(context):\n    return 1\n")
    told = _asset(make, '"""Words."""\n# more\ndef build(context):\n    """Why."""\n    return (1)\n')
    other = _asset(make, "def build(context):\n    return 2\n")
    assert plain.code_hash == told.code_hash != other.code_hash


MODULES = [
    ("from _rates import rate", "pipelines/sales/silver/_rates.py"),
    ("from ._rates import rate", "pipelines/sales/silver/_rates.py"),
    ("from rates import rate", "pipelines/sales/rates.py"),
    ("from ..rates import rate", "pipelines/sales/rates.py"),
    ("from pipelines.sales.rates import rate", "pipelines/sales/rates.py"),
    ("from pipelines.sales import rates", "pipelines/sales/rates.py"),
    ("import lib.rates", "pipelines/sales/lib/rates.py"),
]


@pytest.mark.parametrize(("line", "path"), MODULES)
def test_a_change_in_an_imported_module_changes_the_code(line: str, path: str, make: Make) -> None:
    code = f"{line}\ndef build(context):\n    return 1\n"
    one = _asset(make, code, {path: "def rate():\n    return 1\n"})
    same = _asset(make, code, {path: "def rate():\n    # words\n    return 1\n"})
    two = _asset(make, code, {path: "def rate():\n    return 2\n"})
    assert one.code_hash == same.code_hash != two.code_hash


def test_modules_behind_modules_count_and_circles_end(make: Make) -> None:
    code = "import a\ndef build(context):\n    return 1\n"
    one = _asset(make, code, {"pipelines/sales/a.py": "import b", "pipelines/sales/b.py": "import a\nx = 1"})
    two = _asset(make, code, {"pipelines/sales/a.py": "import b", "pipelines/sales/b.py": "import a\nx = 2"})
    assert one.code_hash != two.code_hash


def test_variables_that_are_used_count_and_others_do_not(make: Make) -> None:
    code = "def build(context):\n    return context.var('rate')\n"
    one = _asset(make, code, {"workspace.yaml": "vars: {rate: 1, other: 1}"})
    same = _asset(make, code, {"workspace.yaml": "vars: {rate: 1, other: 2}"})
    two = _asset(make, code, {"workspace.yaml": "vars: {rate: 2, other: 1}"})
    assert one.code_hash == same.code_hash != two.code_hash
