"""Variables that lie in files: over each other, under the environment, and wrong ones said at their place."""

from __future__ import annotations

import pytest

from ratatouille import project
from ratatouille.errors import RatError

SAID = 'name: shop\nvars: {rate: 3}\nvars_files:\n  shop: {files: [conf/base.yaml, "conf/${SHOP_ENV:-dev}.yaml"], environment: SHOP}\n'
BASE = "quality: {least: 0.9, names: [a, b]}\nlimit: 5\n"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    for variable in ("SHOP_ENV", "SHOP__LIMIT", "SHOP__QUALITY__LEAST"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "conf").mkdir()
    (tmp_path / "workspace.yaml").write_text(SAID)
    (tmp_path / "conf" / "base.yaml").write_text(BASE)
    (tmp_path / "conf" / "dev.yaml").write_text("quality: {least: 0.5}\n")
    (tmp_path / "conf" / "prod.yaml").write_text("limit: 7\n")
    return tmp_path


def read(root):
    return project.load(root).workspace.vars


def test_later_files_lie_over_earlier_ones_and_the_environment_over_all(shop, monkeypatch):
    assert read(shop) == {"rate": 3, "shop": {"quality": {"least": 0.5, "names": ["a", "b"]}, "limit": 5}}
    monkeypatch.setenv("SHOP_ENV", "prod")
    assert read(shop)["shop"] == {"quality": {"least": 0.9, "names": ["a", "b"]}, "limit": 7}
    monkeypatch.setenv("SHOP__QUALITY__LEAST", "0.25")
    monkeypatch.setenv("SHOP__quality__NAMES", "[c]")
    assert read(shop)["shop"]["quality"] == {"least": 0.25, "names": ["c"]}


def test_a_change_of_a_file_is_seen_at_once(shop):
    assert read(shop)["shop"]["limit"] == 5
    (shop / "conf" / "base.yaml").write_text(BASE.replace("5", "6"))
    assert read(shop)["shop"]["limit"] == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SHOP__QUALITY__LEST": "1"}, "SHOP__QUALITY__LEST: shop has no 'quality.lest'"),
        ({"SHOP__QUALITY": "1"}, "'quality' is no single value"),
        ({"SHOP_ENV": "test"}, "conf/test.yaml cannot be read: No such file"),
        ({"SHOP_ENV": "../../x"}, "is not a file of this workspace"),
        ("- 1\n", "his must be a mapping"),
        ("a: [1\n", "conf/dev.yaml"),
        ("a: !!python/object/apply:os.system [x]\n", "conf/dev.yaml"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(shop, monkeypatch, change, said):
    if isinstance(change, str):
        (shop / "conf" / "dev.yaml").write_text(change)
    else:
        for name, value in change.items():
            monkeypatch.setenv(name, value)
    with pytest.raises(RatError) as refused:
        read(shop)
    assert said in str(refused.value)


def test_a_pipeline_that_was_taken_away_takes_its_settings_along(shop, monkeypatch):
    monkeypatch.setenv("SHOP__LIMIT", "9")
    assert read(shop)["shop"]["limit"] == 9
    for file in (shop / "conf").iterdir():
        file.unlink()
    (shop / "conf").rmdir()
    assert read(shop) == {"rate": 3, "shop": {}}
