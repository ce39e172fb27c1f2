"""Linking: the drafts of all assets become one graph. Names are looked up, cycles found, columns followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ratatouille.errors import near_miss
from ratatouille.project.draft import Draft
from ratatouille.project.graph import find_cycle, in_order
from ratatouille.project.records import Asset, Problem
from ratatouille.project.text_file import Mention, Place


def link(drafts: Mapping[str, Draft]) -> tuple[dict[str, Asset], list[Problem]]:
    """The assets without errors in dependency order, and every problem."""
    problems = [problem for draft in drafts.values() for problem in draft.problems]
    for draft in drafts.values():
        problems += _unknown_names(draft, drafts)
    inputs = {name: draft.asset.depends_on for name, draft in drafts.items()}
    problems += _cycles(inputs, drafts)
    broken = {problem.asset for problem in problems if problem.severity == "error"}
    assets = {name: drafts[name].asset for name in in_order(inputs) if name not in broken}
    return assets, problems


def _unknown_names(draft: Draft, drafts: Mapping[str, Draft]) -> Iterator[Problem]:
    asset = draft.asset
    for mention in draft.mentions:
        name = mention.name.rpartition(".")[0] if mention.kind == "relationship" else mention.name
        if mention.kind not in ("ref", "relationship") or name in drafts:
            continue
        yield replace(_unknown(mention, name, asset, drafts), asset=asset.name)


def _unknown(mention: Mention, name: str, asset: Asset, drafts: Mapping[str, Draft]) -> Problem:
    if name == asset.name:
        return mention.place.problem(f"{name} reads itself", hint="use {{ this }}")
    if "." not in name:
        same = [known for known in drafts if known.endswith(f".{name}")]
        hint = f"did you mean '{same[0]}'?" if same else "name the layer too: silver.sales"
        return mention.place.problem(f"'{name}' is not the name of an asset", hint=hint)
    return mention.place.problem(f"there is no asset called '{name}'", hint=near_miss(name, drafts).strip())


def _cycles(inputs: Mapping[str, tuple[str, ...]], drafts: Mapping[str, Draft]) -> Iterator[Problem]:
    rest = dict(inputs)
    while cycle := find_cycle(rest):
        first, second = cycle[0], cycle[1]
        mentions = drafts[first].mentions
        place = next((m.place for m in mentions if m.kind == "ref" and m.name == second), None)
        place = place or Place(drafts[first].asset.path)
        message = f"these assets read each other: {' -> '.join(cycle)}"
        yield replace(place.problem(message, hint="remove one of the refs"), asset=first)
        for name in set(cycle):
            del rest[name]
