"""Packing: texts side by side in rows of a fixed length, whole, so that hardly a slot is padding.

The longest text first, then the one or two that fill the rest best. This is done on the histogram of lengths: texts of
one length are interchangeable, so what fits once is repeated while there are texts for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Packed:
    """Which texts each row holds: `texts[starts[row]:starts[row + 1]]` are positions; `fill` is the share of real slots."""

    texts: np.ndarray
    starts: np.ndarray
    fill: float

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> np.ndarray:
        return self.texts[self.starts[number] : self.starts[number + 1]]


def pack(lengths: np.ndarray, room: int) -> Packed:
    """Every text of `lengths` (1 to `room` tokens) in exactly one row of `room` slots. The same lengths give the same."""
    if not len(lengths):
        return Packed(np.empty(0, np.int64), np.zeros(1, np.int64), 1.0)
    if lengths.min() < 1 or lengths.max() > room:
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} do not fit into rows of {room}")
    rows = _fitted(np.bincount(lengths, minlength=room + 1), room)
    order = np.argsort(lengths, kind="stable")
    first_of = np.searchsorted(lengths[order], np.arange(room + 2))
    used = np.zeros(room + 1, dtype=np.int64)
    pieces: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    for content, count in rows:
        columns = np.empty((count, len(content)), dtype=np.int64)
        for column, length in enumerate(content):
            begin = first_of[length] + used[length]
            columns[:, column] = order[begin : begin + count]
            used[length] += count
        pieces.append(columns.ravel())
        sizes.append(np.full(count, len(content)))
    counted = np.concatenate(sizes)
    starts = np.concatenate([[0], np.cumsum(counted)])
    return Packed(np.concatenate(pieces), starts, float(lengths.sum() / (len(counted) * room)))


def _fitted(histogram: np.ndarray, room: int) -> list[tuple[tuple[int, ...], int]]:
    """(lengths in a row, how many such rows)."""
    left = histogram.copy()
    found: list[tuple[tuple[int, ...], int]] = []
    while len(there := np.flatnonzero(left)):
        content: list[int] = []
        free = room
        while free >= there[0]:
            longest = there[np.searchsorted(there, free, side="right") - 1]
            added = (longest,) if free > 2 * longest else _closest(there, left, free)
            for length in added:
                content.append(int(length))
                left[length] -= 1
                free -= int(length)
            there = there[left[there] > 0]
            if not len(there):
                break
        # The same again, as often as there are texts for it.
        once = np.bincount(content, minlength=room + 1)
        again = int((left[once > 0] // once[once > 0]).min())
        left -= once * again
        found.append((tuple(content), again + 1))
    return found


def _closest(there: np.ndarray, left: np.ndarray, free: int) -> tuple[int, ...]:
    """One length or two that fill `free` slots best; `left` says how many texts of each length in `there` remain."""
    first = there[: np.searchsorted(there, free, side="right")]
    at = np.searchsorted(there, free - first, side="right") - 1
    # A length of which there is one text only is no partner of itself: the next shorter one is.
    at -= (at >= 0) & (there[np.maximum(at, 0)] == first) & (left[first] < 2)
    second = np.where(at >= 0, there[np.maximum(at, 0)], 0)
    best = int(np.argmax(first + second))
    return (first[best], second[best]) if second[best] else (first[best],)


def pack_full(lengths: np.ndarray, longest: int, enough: float = 0.99) -> tuple[Packed, int]:
    """Rows of one, two or four times `longest`, whichever first is `enough` full (else the fullest); and their length.

    Texts of one length leave gaps in short rows: two of 200 tokens in 512 slots. Longer rows cost more attention.
    """
    found = []
    for times in (1, 2, 4):
        packed = pack(lengths, longest * times)
        if packed.fill >= enough:
            return packed, longest * times
        found.append((packed, longest * times))
    return max(found, key=lambda one: one[0].fill)
