"""vars_files: variables in files of their own, one over the other, and the environment over all of them."""

from __future__ import annotations

import pytest

from ratatouille.errors import RequestError
from ratatouille.project import load

BASE = "quality: {least: 0.9, name: base}\nlist: [1, 2]\n"
FILES = {
    "workspace.yaml": "name: shop\nvars_files:\n  shop: {files: [pipelines/base.yaml, 'pipelines/${SHOP_ENV:-dev}.yaml'], environment: SHOP}\n"
    "environments: {trial: {vars: {shop: {quality: {name: trial}}}}}\n",
    "pipelines/base.yaml": BASE,
    "pipelines/dev.yaml": "quality: {name: dev}\n",
    "pipelines/prod.yaml": "# nothing differs\n",
    "silver/sales.sql": "select {{ var('shop.quality.least') }} as least, '{{ var('shop.quality.name') }}' as name",
    "silver/sales.yaml": "checks: {c: {check: completeness, columns: [least], at_least: \"{{ var('shop.quality.least') }}\"}}",
}


def shop_of(make, environment: dict[str, str] | None = None, **more: str) -> dict[str, object]:
    return make({**FILES, **more}, environment=environment or {}).workspace.vars["shop"]


def test_files_lie_over_each_other_and_the_environment_over_them(make) -> None:
    assert shop_of(make) == {"quality": {"least": 0.9, "name": "dev"}, "list": [1, 2]}
    assert shop_of(make, {"SHOP_ENV": "prod"})["quality"] == {"least": 0.9, "name": "base"}
    said = {"SHOP__QUALITY__LEAST": "0.5", "SHOP__LIST": "[3]", "SHOPKEEPER__X": "1"}
    assert shop_of(make, said) == {"quality": {"least": 0.5, "name": "dev"}, "list": [3]}
    assert shop_of(make, {"RATATOUILLE_ENV": "trial"})["quality"] == {"least": 0.9, "name": "trial"}
    project = make(FILES, environment={"SHOP__QUALITY__LEAST": "0.5"})
    assert project.assets["silver.sales"].checks[0].arguments["at_least"] == 0.5
    assert not project.errors


def test_a_change_in_a_file_or_in_the_environment_is_seen_through_the_cache_which_stores_no_value_of_it(write) -> None:
    root = write(FILES)

    def name(**environment: str) -> object:
        return load(root, environment=environment).workspace.vars["shop"]["quality"]["name"]

    first = load(root, environment={}).assets["silver.sales"].code_hash
    assert name(SHOP__QUALITY__NAME="hush-hush") == "hush-hush"
    changed = load(root, environment={"SHOP__QUALITY__NAME": "hush-hush"}).assets["silver.sales"].code_hash
    assert changed != first and load(root, environment={}).assets["silver.sales"].code_hash == first
    (root / "pipelines/dev.yaml").write_text("quality: {name: other}\n")
    assert name() == "other"
    load(root, environment={"SHOP__QUALITY__LEAST": "0.123456"})
    assert "0.123456" not in (root / ".rat/cache/project.json").read_text()


@pytest.mark.parametrize(
    ("more", "environment", "what", "next_"),
    [
        ({}, {"SHOP__QUALITY__LESAT": "1"}, "shop has no 'quality.lesat'", "Did you mean 'least'?"),
        ({}, {"SHOP__QUALITY": "1"}, "'quality' is no single value", "SHOP__QUALITY__LEAST"),
        ({}, {"SHOP_ENV": "gone"}, "pipelines/gone.yaml cannot be read", "write it"),
        ({"workspace.yaml": "vars_files: {shop: {files: ../x.yaml}}"}, {}, "'../x.yaml' is not a file of this workspace", "relative"),
        ({"workspace.yaml": "vars: {shop: 1}\nvars_files: {shop: {files: pipelines/base.yaml}}"}, {}, "'shop' is under `vars:` too", ""),
        ({"workspace.yaml": "vars_files: {shop: {files: pipelines/base.yaml, environment: 'a b'}}"}, {}, "environment", ""),
        ({"pipelines/base.yaml": "- 1"}, {}, "must be a mapping", ""),
        ({"pipelines/base.yaml": "a: 1\na: 2"}, {}, "twice", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_with_its_place(make, more, environment, what: str, next_: str) -> None:
    with pytest.raises(RequestError) as refused:
        shop_of(make, environment, **more)
    assert what in f"{refused.value.what}" and next_ in refused.value.next, refused.value
