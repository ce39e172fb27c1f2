"""Pages point at things that exist, and every page can be found from the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("pipelines/**/*.md")])
TEMPLATE = ROOT / "src" / "ratatouille" / "cli" / "template"
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert missing == []


def test_every_command_that_a_page_names_exists() -> None:
    from ratatouille.cli.commands import COMMANDS

    pages = [p for p in PAGES if p.name != "CHANGELOG.md"] + [TEMPLATE / "README.md"]
    named = {
        (page.name, command)
        for page in pages
        for command in re.findall(r"(?:`|\$ |&& |^)rat ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 20
    assert {(page, command) for page, command in named if command not in COMMANDS} == set()


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text(encoding="utf-8"))}
    pages = {p.resolve() for p in ROOT.glob("docs/**/*.md")} - {index.resolve()}
    assert sorted(str(p.relative_to(ROOT)) for p in pages - linked) == []


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    promised = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    explained = set(re.findall(r"^([a-z][a-z0-9-]*):.*## ", makefile, re.MULTILINE))
    assert explained == promised
