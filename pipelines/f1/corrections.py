"""What changed between two readings of the same session: rows added, changed, removed.

History of the API changes: lap times are inferred later, results are corrected by the stewards.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from .landing import rank_of
from .openf1 import Row

READ_CHARACTERS = 1 << 20
SHOWN = 5  # examples per entity


@dataclass(frozen=True)
class Correction:
    """How many rows of an entity of a session differ from what was read before. `examples`: a few of them, as text."""

    session_key: int
    entity: str
    added: int
    changed: int
    removed: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"session {self.session_key} {self.entity}: {self.added} added, {self.changed} changed, {self.removed} removed"


def rows_of_file(path: Path) -> Iterator[Row]:
    """The rows of a JSON array of objects, one by one; memory is bounded by the largest row. `.gz` is unpacked.

    Raises ValueError when the file is no whole array.
    """
    decoder = json.JSONDecoder()
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as file:
        text = file.read(READ_CHARACTERS).lstrip()
        if text[:1] != "[":
            raise ValueError(f"{path.name} is no JSON array")
        at, first = 1, True
        while True:
            at = _skip(text, at, "," if not first else "")
            if text[at : at + 1] == "]":
                return
            try:
                if at >= len(text):
                    raise ValueError("more is needed")
                row, at = decoder.raw_decode(text, at)
            except ValueError:
                more = file.read(READ_CHARACTERS)
                if not more:
                    raise ValueError(f"{path.name} breaks off") from None
                text, at = text[at:] + more, 0
                continue
            first = False
            yield row


def _skip(text: str, at: int, sign: str) -> int:
    """Past blanks, and one `sign` if it is there."""
    while at < len(text) and text[at] in " \t\r\n" + sign:
        if text[at] == sign:
            sign = ""
        at += 1
    return at


def compare(session_key: int, entity: str, old: Path | None, new: Path | None, key: Sequence[str]) -> Correction:
    """Rows of `new` against rows of `old`; None stands for no rows. Both are sorted by `key`.

    Rows that share a key are told apart by their order. Memory is bounded by the rows of one driver.
    """
    counts: Counter[str] = Counter()
    examples: list[str] = []
    for before, after in _side_by_side(old, new, key):
        for name in before.keys() | after.keys():
            was, now = before.get(name), after.get(name)
            if was == now:
                continue
            kind = "added" if was is None else "removed" if now is None else "changed"
            counts[kind] += 1
            if len(examples) < SHOWN:
                examples.append(_example(key, was, now))
    return Correction(
        session_key, entity, counts["added"], counts["changed"], counts["removed"], tuple(sorted(examples))
    )


Keyed = dict[tuple[Any, ...], Row]


def _side_by_side(old: Path | None, new: Path | None, key: Sequence[str]) -> Iterator[tuple[Keyed, Keyed]]:
    """Rows by key, for one value of the first key column at a time: that is one driver for the large entities."""
    sides = [_groups(path, key) for path in (old, new)]
    heads = [next(side, None) for side in sides]
    while heads[0] or heads[1]:
        lowest = min(head[0] for head in heads if head)
        taken: list[Keyed] = []
        for index, side in enumerate(sides):
            head = heads[index]
            if head and head[0] == lowest:
                taken.append(head[1])
                heads[index] = next(side, None)
            else:
                taken.append({})
        yield taken[0], taken[1]


def _groups(path: Path | None, key: Sequence[str]) -> Iterator[tuple[tuple[int, float, str], Keyed]]:
    rows = rows_of_file(path) if path else iter(())
    by_date = key[0] == "date"  # every row is a group of its own then, which is slow and does not help
    for rank, group in groupby(rows, key=lambda row: (0, 0, "") if by_date else rank_of(row.get(key[0]))):
        seen: Counter[tuple[Any, ...]] = Counter()
        keyed: Keyed = {}
        for row in group:
            name = tuple(str(row.get(column)) for column in key)
            keyed[*name, seen[name]] = row
            seen[name] += 1
        yield rank, keyed


def _example(key: Sequence[str], was: Row | None, now: Row | None) -> str:
    row = now or was or {}
    name = ", ".join(f"{column} {row.get(column)}" for column in key)
    if was is None or now is None:
        return f"{name}: {'added' if was is None else 'removed'}"
    changed = sorted(column for column in was.keys() | now.keys() if was.get(column) != now.get(column))
    return f"{name}: " + ", ".join(f"{column} {was.get(column)} -> {now.get(column)}" for column in changed[:3])
