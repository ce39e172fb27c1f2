"""Selectors: which assets a person means.

name       silver.sales, silver/sales, silver.*, pipelines/sales/silver/sales.sql
around     +x with everything upstream, x+ with everything downstream, +x+ with both
method     pipeline:f1, layer:gold, group:, tag:, kind:, owner:
together   and, or, not, parentheses; `and` binds closer than `or`; several selectors are a union
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from ratatouille.errors import RequestError, near_miss, underline
from ratatouille.project.graph import downstream, find_asset, upstream
from ratatouille.project.records import ASSET_KINDS, Asset, Project

METHODS = ("pipeline", "layer", "group", "tag", "kind", "owner")
MAX_LENGTH = 10_000
MAX_DEPTH = 50
_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")


def select(project: Project, selectors: Sequence[str]) -> tuple[str, ...]:
    """The names that any of the selectors means, in dependency order; without selectors every asset.

    RequestError for a selector that cannot be read and for a name or value that nothing has.
    """
    if not selectors:
        return tuple(project.assets)
    chosen: set[str] = set()
    for selector in selectors:
        chosen |= _Parser(project, selector).parse()
    return tuple(name for name in project.assets if name in chosen)


class _Parser:
    """Recursive descent over: or := and ("or" and)*, and := not ("and" not)*, not := "not" not | "(" or ")" | word."""

    def __init__(self, project: Project, selector: str) -> None:
        self.project = project
        self.selector = selector
        if len(selector) > MAX_LENGTH:
            raise RequestError(
                f"A selector may have {MAX_LENGTH:,} characters; this has {len(selector):,}.",
                where=f"selector {selector[:60]} ...",
                next="Select by pipeline:, layer: or tag: instead",
            )
        self.tokens = [(m.group(1), m.start(1)) for m in _TOKEN.finditer(selector)]
        self.index = 0
        self.depth = 0

    def parse(self) -> set[str]:
        chosen = self.either()
        if self.index < len(self.tokens):
            raise self.wrong("'and', 'or' or the end is expected here")
        return chosen

    def either(self) -> set[str]:
        chosen = self.both()
        while self.take("or"):
            chosen = chosen | self.both()
        return chosen

    def both(self) -> set[str]:
        chosen = self.negated()
        while self.take("and"):
            chosen = chosen & self.negated()
        return chosen

    def negated(self) -> set[str]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong("this selector is nested too deeply")
        if self.take("not"):
            chosen = set(self.project.assets) - self.negated()
        elif self.take("("):
            chosen = self.either()
            if not self.take(")"):
                raise self.wrong("a closing parenthesis is missing here")
        else:
            chosen = self.word()
        self.depth -= 1
        return chosen

    def word(self) -> set[str]:
        if self.index >= len(self.tokens) or self.tokens[self.index][0].lower() in ("and", "or", ")"):
            raise self.wrong("a name is expected here")
        word = self.tokens[self.index][0]
        self.index += 1
        above, below = word.startswith("+"), word.endswith("+") and len(word) > 1
        bare = word[1 if above else 0 : len(word) - 1 if below else len(word)]
        if not bare:
            self.index -= 1
            raise self.wrong("a name is expected beside +")
        named = _matching(self.project, bare)
        chosen = set(named)
        for name in named:
            chosen.update(upstream(self.project, name) if above else ())
            chosen.update(downstream(self.project, name) if below else ())
        return chosen

    def take(self, word: str) -> bool:
        if self.index < len(self.tokens) and self.tokens[self.index][0].lower() == word:
            self.index += 1
            return True
        return False

    def wrong(self, message: str) -> RequestError:
        end = len(self.selector)
        text, start = self.tokens[self.index] if self.index < len(self.tokens) else (" ", end)
        shown = re.sub(r"\s", " ", self.selector)
        where = underline("selector", 1, start + 1, len(text), shown)
        return RequestError(f"This selector cannot be read: {message}.", where=where, next="For example: +silver.sales")


def _matching(project: Project, word: str) -> set[str]:
    method, colon, value = word.partition(":")
    if colon:
        return _by_method(project, method.lower(), value)
    by_path = next((asset.name for asset in project.assets.values() if word.removeprefix("./") == asset.path), "")
    if by_path:
        return {by_path}
    name = word.replace("/", ".")
    if any(character in name for character in "*?["):
        found = {key for key in project.assets if fnmatchcase(key, name)}
        if not found:
            raise RequestError(f"No asset matches '{word}'.", where=f"selector {word}", next="List them: rat check")
        return found
    return {find_asset(project, name).name}


def _by_method(project: Project, method: str, value: str) -> set[str]:
    if method not in METHODS:
        raise RequestError(
            f"'{method}:' is not a way to select.{near_miss(method, METHODS)}",
            where=f"selector {method}:{value}",
            next="Use one of " + ", ".join(f"{name}:" for name in METHODS),
        )
    known = {one for asset in project.assets.values() for one in _values(asset, method)}
    known |= set(ASSET_KINDS) if method == "kind" else set(project.workspace.layers) if method == "layer" else set()
    if value not in known and not any(fnmatchcase(one, value) for one in known):
        raise RequestError(
            f"No asset has the {method} '{value}'.{near_miss(value, known)}",
            where=f"selector {method}:{value}",
            next=f"Known: {', '.join(sorted(known)[:20]) or 'none'}",
        )
    return {
        asset.name for asset in project.assets.values() if any(fnmatchcase(v, value) for v in _values(asset, method))
    }


def _values(asset: Asset, method: str) -> tuple[str, ...]:
    if method == "tag":
        return asset.tags
    if method == "owner":
        return asset.owners
    return (str(getattr(asset, method)),)
