"""The pages, asked for by HTTP: what they show, that nothing in them is markup but what is ours, and that all links lead somewhere."""

from __future__ import annotations

import gc
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from ratatouille.beside import DAGSTER, PAGES, announced
from ratatouille.dagster.assets import file_asset
from ratatouille.engine import Request
from ratatouille.handle import run_request
from ratatouille.lake import Journal, Session, open_journal
from ratatouille.observe.compare import Compared
from ratatouille.pages import asset, reading
from ratatouille.pages.drawings import most_changed_first

sys.path.insert(0, str(Path(__file__).parent))

from pages_kitchen import SECRET, Served, served, write


class Parsed(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("a", "b", "code", "i", "span"):
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    @property
    def links(self) -> list[str]:
        return [attrs.get("href") or "" for tag, attrs in self.tags if tag == "a"]


def refuse_foreign_markup(page: Parsed) -> None:
    """No script, style or handler in the page itself, nothing from elsewhere, and none of the hostile tags."""
    for tag, attrs in page.tags:
        assert tag not in ("img", "marquee", "iframe", "object", "embed", "style", "base"), (tag, attrs)
        assert not [name for name in attrs if name.startswith("on") or name == "style"], (tag, attrs)
        if tag == "script":
            assert (attrs.get("src") or "").startswith("/static/"), attrs
        for name in ("href", "src", "action"):
            said = attrs.get(name)
            assert said is None or (said.startswith(("/", "#")) and not said.startswith("//")), (tag, attrs)


def test_every_page_that_a_link_leads_to_is_there_and_shows_hostile_words_as_words(kitchen: Served) -> None:
    waiting, seen, texts = ["/", "/console", "/compare"], set[str](), []
    while waiting:
        path = waiting.pop(0)
        if path in seen or path.startswith(("#", "/static/")) or (path.startswith("/?") and len(seen) > 20):
            continue
        seen.add(path)
        page = Parsed(kitchen.get(path))
        refuse_foreign_markup(page)
        texts.append(page.text)
        assert SECRET not in page.text, path
        waiting += page.links
    assert len(seen) > 60
    shown = [text for text in texts if "<script>alert('x')</script>" in text]
    assert len(shown) > 10
    kinds = {unquote(path).partition("?")[0].split("/")[1] for path in seen}
    assert kinds == {"", "asset", "run", "runs", "compare", "console"}


def test_the_overview_begins_with_what_needs_somebody(kitchen: Served) -> None:
    page = Parsed(kitchen.get("/"))
    rows = [link for link in page.links if link.startswith("/asset/")]
    assert rows[0] == "/asset/gold.dishes"
    assert "the gate not_too_dear failed for 1 of" in page.text
    assert "gold.menu sql, table blocked gold.dishes failed" in page.text
    assert page.text.index("gold.menu") < page.text.index("silver.orders") < page.text.index("gold.odd")
    only = Parsed(kitchen.get("/?health=failed"))
    assert "gold.dishes" in only.text and "gold.odd" not in only.text
    assert "bronze.orders" in kitchen.get("/?layer=bronze") and "gold.odd" not in kitchen.get("/?layer=bronze")
    assert "gold.odd" in kitchen.get("/?find=ODD") and "gold.menu" not in kitchen.get("/?find=ODD")
    assert "No asset is like that" in kitchen.get("/?find=%3Cnothing%3E")
    assert "7 more" in Parsed(kitchen.get("/?n=1")).text
    assert "<script>alert('x')</script>" in only.text, "a table that no file builds, and that failed"


def test_from_the_broken_asset_to_the_rows_that_broke_it_and_to_the_version_before(kitchen: Served) -> None:
    about = Parsed(kitchen.get("/asset/gold.dishes"))
    assert "the gate not_too_dear failed for 1 of" in about.text and "rat run +gold.dishes" in about.text
    rows = Parsed(kitchen.get("/asset/gold.dishes?tab=kept"))
    assert "not_too_dear: 1 failing row" in rows.text and "dish gratin" in rows.text
    versions = Parsed(kitchen.get("/asset/silver.orders?tab=versions"))
    numbers = re.findall(r"(\d+) current", versions.text)
    back, _ = re.findall(r"rat rollback silver\.orders --to (\d+)", versions.text)
    difference = next(link for link in versions.links if "tab=diff" in link)
    assert f"a={back}&b={numbers[0]}" in difference
    shown = Parsed(kitchen.get(difference))
    assert "25 added, 0 removed, 0 changed, by order_id" in shown.text
    assert "customer [hidden]" in shown.text and f"rat rollback silver.orders --to {back}" in shown.text
    assert f"Version {back} and version {numbers[0]}" in Parsed(kitchen.get("/asset/silver.orders?tab=diff")).text
    missing = Parsed(kitchen.get("/asset/silver.orders?tab=diff&a=1&b=2"))
    assert "version 1 of silver.orders cannot be read" in missing.text


def test_the_quarantine_says_why_each_row_is_kept_out(kitchen: Served) -> None:
    page = Parsed(kitchen.get("/asset/silver.orders?tab=kept"))
    assert "portions_positive order_id 107" in page.text
    assert "customer [hidden]" in page.text and "rat quarantine replay silver.orders" in page.text
    assert "Nothing of it is kept out" in kitchen.get("/asset/gold.odd?tab=kept")
    lines = Parsed(kitchen.get("/asset/bronze.orders?tab=kept"))
    assert "landing/orders/two <marquee>.csv:27" in lines.text and SECRET not in lines.text
    assert "1 row was kept out; 1 landing file was set aside" in kitchen.get("/")
    assert "landing/orders/broken.csv" in lines.text and "set aside" in lines.text


def test_a_column_is_followed_from_gold_to_the_files_it_came_in(kitchen: Served) -> None:
    about = Parsed(kitchen.get("/asset/gold.menu"))
    start = next(link for link in about.links if link.endswith("tab=lineage&column=price"))
    way = Parsed(kitchen.get(start))
    for step in ("gold.dishes.revenue 1 step up", "silver.orders.total 2 steps up", "bronze.orders.price 3 steps up"):
        assert step in way.text
    assert "landing/orders/*.csv" in way.text
    below = Parsed(kitchen.get("/asset/bronze.orders?tab=lineage&column=PRICE"))
    assert "gold.menu.price 3 steps down" in below.text
    drawn = kitchen.get("/asset/silver.orders?tab=lineage")
    assert drawn.count('class="node') >= 4 and "gold.dishes" in drawn


def test_a_run_says_what_ran_and_why_and_what_did_not(kitchen: Served) -> None:
    runs = Parsed(kitchen.get("/runs"))
    mine = [link for link in runs.links if link.startswith("/run/") and "script" not in link]
    second, first = mine[0], mine[2]
    page = Parsed(kitchen.get(second))
    for said in (
        "gold.dishes: the gate not_too_dear failed for 1 of",
        "Readers still see version",
        "blocked",
        "gold.dishes failed",
        "bronze.orders changed",
        "skipped: ",
        "not_too_dear: 1 bad row",
    ):
        assert said in page.text, said
    assert "stage-build" in kitchen.get(second) and "stage-publish" in kitchen.get(second)
    assert any(link.startswith("/compare?a=") for link in page.links)
    compared = Parsed(kitchen.get(next(link for link in page.links if link.startswith("/compare?a="))))
    assert (
        "built, then failed" in compared.text and "check not_too_dear: passed, then failed (1 bad row)" in compared.text
    )
    begun = Parsed(kitchen.get(first))
    assert "never built" in begun.text and "info: so many rows: 1, and" in begun.text
    assert "Could not convert string [hidden] to INT32" in page.text
    assert "begins" in kitchen.get("/run/2", 404) and "There is no run" in kitchen.get("/run/nothing", 404)


def test_of_many_assets_those_that_changed_are_shown_first() -> None:
    def compared(name: str, **what: Any) -> Compared:
        return Compared(name, **{"status": ("built", "built"), "figures": {}, "stages": {}, **what})

    same, read = compared("gold.a"), compared("gold.b", changed=("inputs",))
    code, broken = compared("gold.c", changed=("code",)), compared("gold.d", status=("built", "failed"))
    assert most_changed_first([same, read, code, broken]) == [code, broken, read, same]


def test_checks_trends_and_code_of_an_asset(kitchen: Served) -> None:
    checks = Parsed(kitchen.get("/asset/gold.dishes?tab=checks"))
    assert "not_too_dear sql failed" in checks.text and "dish_not_null" in checks.text
    assert kitchen.get("/asset/gold.dishes?tab=trends").count("<svg") == 3
    code = Parsed(kitchen.get("/asset/silver.orders?tab=code"))
    assert "{{ ref('bronze.orders') }}" in code.text and 'from "lake"."bronze"."orders"' in code.text
    assert "where _loaded_at > '" in code.text and "max_quarantine: 0.5" in code.text
    near = Parsed(kitchen.get("/asset/gold.dishse", 404))
    assert "There is no asset called 'gold.dishse'. Did you mean 'gold.dishes'?" in near.text


def test_many_versions_that_are_remembered_are_not_looked_through_for_garbage_again(
    kitchen_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = gc.get_freeze_count()
    monkeypatch.setattr(reading, "_MANY", 0)
    try:
        with served(kitchen_root).client as client:
            client.get("/")
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()


def test_pages_follow_what_is_published_and_begin_anew_where_the_lake_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"workspace.yaml": "name: small\nresources: {memory: 1GB, threads: 2}\n"})
    small = served(tmp_path)
    with small.client:
        assert "There are no assets yet" in small.get("/") and "Nothing has run yet" in small.get("/runs")
        assert "Nothing has run yet" in small.get("/compare")
        write(tmp_path, {"pipelines/gold/a.sql": "select 1 as id\n"})
        look_at_the_files(small)
        assert "it was never built" in small.get("/asset/gold.a") and "new" in small.get("/")
        for tab in ("lineage", "checks", "versions", "diff", "kept", "trends", "code"):
            refuse_foreign_markup(Parsed(small.get(f"/asset/gold.a?tab={tab}")))
        run_request(tmp_path, Request(()))
        alone = small.get("/compare")
        assert "was asked for the same." in alone and 'class="error"' not in alone
        assert 'class="error"' in small.get("/compare?a=nothing")
        assert "1 built" in small.get("/runs") and "rat rollback" not in small.get("/asset/gold.a?tab=versions")
        write(tmp_path, {"pipelines/gold/a.sql": "select 1 as id, 2 as two\n"})
        look_at_the_files(small)
        assert "its code has changed since it was built" in small.get("/asset/gold.a")
        run_request(tmp_path, Request(()))
        assert "+ two" in small.get("/asset/gold.a?tab=versions")
        assert "column two: not there, then integer" in small.get("/compare?asset=gold.a")
        assert "changed: code" in small.get("/compare")
        # A view that cannot be read, and one that takes too long, are no reason not to show the page.
        views = {
            "v": "select 1 / 0 as n, error('no')",
            "w": "select sum(a.i * b.i) as n from range(10000000) a(i), range(1000) b(i)",
        }
        write(tmp_path, {f"pipelines/gold/{n}.sql": sql for n, sql in views.items()})
        write(tmp_path, {f"pipelines/gold/{n}.yaml": "materialize: view\n" for n in views})
        run_request(tmp_path, Request(()))
        look_at_the_files(small)
        assert "it was" not in small.get("/asset/gold.v") and 'class="error"' in small.get("/asset/gold.v")
        monkeypatch.setattr(asset, "VIEW_S", 0.2)
        assert "took longer than 0 seconds" in small.get("/asset/gold.w")
        assert "gold.w" in small.get("/asset/gold.w?tab=lineage")
        shutil.rmtree(tmp_path / ".rat")
        small.client.get("/asset/gold.a")
        assert "it was never built" in small.get("/asset/gold.a")
        run_request(tmp_path, Request(()))
        assert "+ two" not in small.get("/asset/gold.a?tab=versions")


def look_at_the_files(small: Served) -> None:
    """As if two seconds had passed."""
    small.client.app.state.kitchen._looked_at = 0.0


def test_a_page_asks_as_much_of_many_assets_as_of_few(kitchen: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    execute, do = Session.execute, Journal.do
    monkeypatch.setattr(Session, "execute", lambda self, sql: asked.append(sql) or execute(self, sql))
    monkeypatch.setattr(Journal, "do", lambda self, sql, values=(): asked.append(sql) or do(self, sql, values))
    for path, most in (("/", 12), ("/runs", 6), ("/asset/silver.orders", 16), ("/asset/silver.orders?tab=lineage", 15)):
        kitchen.get(path)
        asked.clear()
        kitchen.get(path)
        assert 0 < len(asked) <= most, (path, asked)


def test_pages_of_dagster_and_these_lead_to_each_other_while_both_run(kitchen: Served) -> None:
    root, there = kitchen.root, "http://127.0.0.1:3030"
    with announced(root, DAGSTER, there) as held:
        assert held
        with announced(root, DAGSTER, "http://127.0.0.1:3031") as again:
            assert not again
        assert f'href="{there}/assets/gold/dishes"' in kitchen.get("/asset/gold.dishes")
        with open_journal(root / ".rat" / "journal.sqlite") as journal:
            journal.start_run("of-dagster", {"label": "Dagster job kitchen"})
            journal.end_run("of-dagster", "done")
        assert f'href="{there}/runs/of-dagster"' in kitchen.get("/run/of-dagster")
    assert there not in kitchen.get("/asset/gold.dishes")
    made = file_asset(root, kitchen.client.app.state.kitchen.project.assets["gold.menu"])
    assert "page" not in next(iter(made.specs)).metadata
    with announced(root, PAGES, "http://127.0.0.1:3040"):
        made = file_asset(root, kitchen.client.app.state.kitchen.project.assets["gold.menu"])
        assert next(iter(made.specs)).metadata["page"].url == "http://127.0.0.1:3040/asset/gold.menu"
