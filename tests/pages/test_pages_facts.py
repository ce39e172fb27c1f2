"""The pages, asked for by HTTP: what they show, that nothing in them is markup but what is ours, and that all links lead somewhere."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

sys.path.insert(0, str(Path(__file__).parent))

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>"
SECRET = "Ada Lovelace"
Served = Any  # of conftest.py


class Parsed(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

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
        assert tag not in ("img", "b0ld", "i0", "iframe", "object", "embed", "style", "base"), (tag, attrs)
        assert not [name for name in attrs if name.startswith("on") or name == "style"], (tag, attrs)
        if tag == "script":
            assert (attrs.get("src") or "").startswith("/static/"), attrs
        for name in ("href", "src", "action"):
            said = attrs.get(name)
            assert said is None or said.startswith(("/", "#")) and not said.startswith("//"), (tag, attrs)


def test_every_page_that_a_link_leads_to_is_there_and_shows_hostile_words_as_words(kitchen: Served) -> None:
    waiting, seen, texts = ["/", "/console", "/compare"], set[str](), []
    while waiting:
        path = waiting.pop(0)
        if path in seen or path.startswith(("#", "/static/")):
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
