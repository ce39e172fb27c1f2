"""Selectors mean what people expect, and say what they do not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratatouille.errors import RequestError
from ratatouille.project import downstream, load, select, upstream
from ratatouille.project.records import Asset, Project, Workspace

#   bronze.a -> silver.b -> gold.d
#   bronze.c -> silver.b          silver.e (python) -> gold.d
ASSETS = [
    Asset("bronze.a", "bronze", "a", "seed", "pipelines/sales/bronze/a.csv", pipeline="sales", group="sales"),
    Asset("bronze.c", "bronze", "c", "sql", "pipelines/f1/bronze/c.sql", pipeline="f1", group="cars", tags=("daily",)),
    Asset("silver.b", "silver", "b", "sql", "pipelines/f1/silver/b.sql", pipeline="f1", group="cars",
          depends_on=("bronze.a", "bronze.c"), owners=("ana@x.org",)),
    Asset("silver.e", "silver", "e", "python", "pipelines/f1/silver/e.py", pipeline="f1", group="f1", tags=("daily",)),
    Asset("gold.d", "gold", "d", "sql", "pipelines/f1/gold/d.sql", pipeline="f1", group="f1",
          depends_on=("silver.b", "silver.e")),
]  # fmt: skip
PROJECT = Project(Workspace("/x", "x"), {asset.name: asset for asset in ASSETS})
ALL = ("bronze.a", "bronze.c", "silver.b", "silver.e", "gold.d")


@pytest.mark.parametrize(
    ("selectors", "names"),
    [
        ([], "bronze.a bronze.c silver.b silver.e gold.d"),
        (["silver.b"], "silver.b"),
        (["silver/b"], "silver.b"),
        (["+silver.b"], "bronze.a bronze.c silver.b"),
        (["silver.b+"], "silver.b gold.d"),
        (["+silver.b+"], "bronze.a bronze.c silver.b gold.d"),
        (["silver.*"], "silver.b silver.e"),
        (["+silver.*"], "bronze.a bronze.c silver.b silver.e"),
        (["*"], "bronze.a bronze.c silver.b silver.e gold.d"),
        (["pipelines/f1/silver/b.sql"], "silver.b"),
        (["./pipelines/f1/silver/b.sql+"], "silver.b gold.d"),
        (["pipeline:f1"], "bronze.c silver.b silver.e gold.d"),
        (["layer:gold"], "gold.d"),
        (["group:cars"], "bronze.c silver.b"),
        (["tag:daily"], "bronze.c silver.e"),
        (["kind:python"], "silver.e"),
        (["kind:s*"], "bronze.a bronze.c silver.b gold.d"),
        (["owner:ana@x.org"], "silver.b"),
        (["+group:cars"], "bronze.a bronze.c silver.b"),
        (["pipeline:f1 and tag:daily"], "bronze.c silver.e"),
        (["layer:gold or layer:bronze and kind:sql"], "bronze.c gold.d"),
        (["(layer:gold or layer:bronze) and kind:sql"], "bronze.c gold.d"),
        (["not layer:silver"], "bronze.a bronze.c gold.d"),
        (["not (layer:silver or layer:gold) and not tag:daily"], "bronze.a"),
        (["NOT layer:silver AND layer:gold"], "gold.d"),
        (["gold.d", "bronze.a"], "bronze.a gold.d"),
    ],
)
def test_selected_in_dependency_order(selectors: list[str], names: str) -> None:
    assert " ".join(select(PROJECT, selectors)) == names


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("silver.bb", "There is no asset called 'silver.bb'. Did you mean 'silver.b'?"),
        ("gold.d and silver.x", "There is no asset called 'silver.x'."),
        ("pipline:f1", "'pipline:' is not a way to select. Did you mean 'pipeline'?"),
        ("tag:dayly", "No asset has the tag 'dayly'. Did you mean 'daily'?"),
        ("layer:sliver", "No asset has the layer 'sliver'. Did you mean 'silver'?"),
        ("nothing.*", "No asset matches 'nothing.*'."),
        ("(gold.d", "a closing parenthesis is missing here"),
        ("gold.d)", "'and', 'or' or the end is expected here"),
        ("gold.d bronze.a", "'and', 'or' or the end is expected here"),
        ("gold.d and", "a name is expected here"),
        ("not", "a name is expected here"),
        ("", "a name is expected here"),
        ("+", "a name is expected beside +"),
        ("../../etc/passwd", "There is no asset called"),
        ("silver.b'; drop table x", "There is no asset called 'silver.b';'."),
        ("(" * 200 + "gold.d" + ")" * 200, "nested too deeply"),
        ("not " * 200 + "gold.d", "nested too deeply"),
        ("a" * 10_001, "may have 10,000 characters"),
    ],
)
def test_refused(selector: str, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        select(PROJECT, [selector])
    assert message in raised.value.what


def test_the_place_in_the_selector_is_underlined() -> None:
    with pytest.raises(RequestError) as raised:
        select(PROJECT, ["gold.d bronze.a"])
    assert raised.value.where == "selector:1:8\n    gold.d bronze.a\n           ^^^^^^^^"


def test_above_and_below() -> None:
    assert upstream(PROJECT, "gold.d") == ("bronze.a", "bronze.c", "silver.b", "silver.e")
    assert downstream(PROJECT, "bronze.a") == ("silver.b", "gold.d")
    assert upstream(PROJECT, "bronze.a") == ()


def test_a_layer_without_assets_selects_nothing() -> None:
    empty = Project(Workspace("/x", "x"), {})
    assert select(empty, ["layer:gold"]) == ()


def test_a_broken_asset_is_named_with_its_problem(write: Callable[..., Path]) -> None:
    project = load(write({"silver/a.sql": "selec 1"}), environment={}, use_cache=False)
    with pytest.raises(RequestError, match=r"silver.a cannot be used: this is not a select"):
        select(project, ["silver.a"])


_WORDS = st.sampled_from(
    ["and", "or", "not", "(", ")", "+", "gold.d", "+silver.b", "bronze.a+", "tag:daily", "kind:", "*"]
)


@given(st.lists(_WORDS, max_size=12))
@settings(max_examples=200)
def test_any_words_select_known_names_or_are_refused(words: list[str]) -> None:
    try:
        chosen = select(PROJECT, [" ".join(words)])
    except RequestError:
        return
    assert chosen == tuple(name for name in ALL if name in chosen)


@given(st.text(max_size=50))
def test_any_text_selects_known_names_or_is_refused(text: str) -> None:
    try:
        assert set(select(PROJECT, [text])) <= set(ALL)
    except RequestError as error:
        assert error.what
