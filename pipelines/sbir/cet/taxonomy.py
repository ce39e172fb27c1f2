"""The areas of critical and emerging technology, read from taxonomy.yaml and checked before anything is classified.

keyword      a phrase that speaks for an area, as words: lower case, letters and digits, one blank between
specificity  what one is worth: several words 2, a long word 1.25, a short word 0.75, an abbreviation 0.4
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("taxonomy.yaml")
AREAS = 21
LONG_WORD = 8  # letters
_SECTIONS = {"version", "shared", "areas", "pairs", "agencies"}
_OF_AREA = {"id", "name", "definition", "keywords", "negative", "parent"}


class TaxonomyError(ValueError):
    """A taxonomy that cannot be used; the message says everything that is wrong with it."""


@dataclass(frozen=True, slots=True)
class Keyword:
    area: str
    words: str
    specificity: float
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Area:
    id: str
    name: str
    definition: str
    parent: str | None
    keywords: tuple[Keyword, ...]


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """`pairs`: (one, other, area, points). `agencies`: (name in lower case, area or "*", points)."""

    version: str
    areas: tuple[Area, ...]
    pairs: tuple[tuple[str, str, str, float], ...]
    agencies: tuple[tuple[str, str, float], ...]

    @property
    def keywords(self) -> tuple[Keyword, ...]:
        return tuple(keyword for area in self.areas for keyword in area.keywords)

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per area: cet_id, name, definition, keywords, negative_keywords, parent, taxonomy_version."""
        return [
            {
                "cet_id": area.id,
                "name": area.name,
                "definition": area.definition,
                "keywords": [k.words for k in area.keywords if not k.negative],
                "negative_keywords": [k.words for k in area.keywords if k.negative],
                "parent": area.parent or "",
                "taxonomy_version": self.version,
            }
            for area in self.areas
        ]

    @property
    def mark(self) -> str:
        """Another one for every other taxonomy, whatever its version says."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def load(path: Path = FILE, *, areas: int | None = AREAS) -> Taxonomy:
    """The taxonomy in a file; `areas` is how many it must have, None for any number. TaxonomyError lists what is wrong."""
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise TaxonomyError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return taxonomy(said, str(path), areas=areas)


def taxonomy(said: Any, where: str = "taxonomy", *, areas: int | None = AREAS) -> Taxonomy:
    """The taxonomy that a mapping describes."""
    if not isinstance(said, dict) or not isinstance(said.get("areas"), list):
        raise TaxonomyError(f"{where} has no list of areas")
    wrong = [f"{name} is not known" for name in said.keys() - _SECTIONS]
    found = [_area(one, wrong) for one in said["areas"] if isinstance(one, dict)]
    ids = [area.id for area in found]
    if areas is not None and len(set(ids)) != areas:
        wrong.append(f"{len(set(ids))} areas, not {areas}")
    wrong += [f"two areas are called {name}" for name, n in Counter(ids).items() if n > 1]
    wrong += [f"{a.id}: its parent {a.parent} is no area" for a in found if a.parent and a.parent not in ids]
    shared = {words(one) for one in said.get("shared") or []}
    wrong += _named_twice(found, shared)
    pairs = [(*map(words, one["words"]), str(one["area"]), float(one["points"])) for one in said.get("pairs") or []]
    known = {k.words for area in found for k in area.keywords if not k.negative}
    for one, other, area, _ in pairs:
        wrong += [
            f"the pair of {area} has a phrase that no area has: {word}" for word in (one, other) if word not in known
        ]
    agencies = [
        (str(name).casefold(), str(one["area"]), float(one["points"]))
        for one in said.get("agencies") or []
        for name in one["names"]
    ]
    named = [area for *_, area, _ in pairs] + [area for _, area, _ in agencies]
    wrong += [f"{area} gets points and is no area" for area in dict.fromkeys(named) if area not in (*ids, "*")]
    version = str(said.get("version") or "")
    if not version:
        wrong.append("it has no version")
    if wrong:
        raise TaxonomyError(f"{where}: " + "; ".join(wrong))
    return Taxonomy(version, tuple(found), tuple(pairs), tuple(agencies))


def words(phrase: Any) -> str:
    """Letters and digits in lower case, one blank between: how phrases and texts are compared."""
    return " ".join(re.findall(r"[a-z0-9]+", str(phrase).lower()))


def specificity(phrase: Any) -> float:
    """2, 1.25, 0.75 or 0.4; see above."""
    text = str(phrase).strip()
    if " " in words(text):
        return 2.0
    if text.isupper() or (len(text) <= 6 and sum(sign.isupper() for sign in text) > 1):
        return 0.4
    return 1.25 if len(text) >= LONG_WORD else 0.75


def _area(said: dict[str, Any], wrong: list[str]) -> Area:
    name = str(said.get("id"))
    wrong += [f"{name}: {key} is not known" for key in said.keys() - _OF_AREA]
    keywords = [Keyword(name, words(one), specificity(one)) for one in said.get("keywords") or []]
    negative = [Keyword(name, words(one), 0.0, True) for one in said.get("negative") or []]
    if not 10 <= len(keywords) <= 25:
        wrong.append(f"{name}: {len(keywords)} keywords, 10 to 25 are asked for")
    wrong += [f"{name}: an empty phrase" for one in (*keywords, *negative) if not one.words]
    inside = [
        f"{name}: {one.words} is a part of {other.words}, which would count twice"
        for one in keywords
        for other in keywords
        if one is not other and f" {one.words} " in f" {other.words} "
    ]
    wrong += inside
    return Area(
        name,
        str(said.get("name") or name),
        str(said.get("definition") or ""),
        said.get("parent"),
        (*keywords, *negative),
    )


def _named_twice(areas: list[Area], shared: set[str]) -> list[str]:
    owners: dict[str, list[str]] = {}
    for area in areas:
        for keyword in area.keywords:
            if not keyword.negative:
                owners.setdefault(keyword.words, []).append(area.id)
    undeclared = [
        f"{phrase} is in {' and '.join(of)}; say so under shared"
        for phrase, of in owners.items()
        if len(of) > 1 and phrase not in shared
    ]
    return undeclared + [
        f"{phrase} is shared, and not in two areas" for phrase in sorted(shared) if len(owners.get(phrase, [])) < 2
    ]
