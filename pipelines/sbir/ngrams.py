"""Which names are worth comparing: those that share rare runs of four signs.

gram        four signs of a name that follow each other, blanks around it included: " acm", "acme", "cme "
frequency   how many names of the searched side hold a gram
chosen      the rarest grams of a name that is looked for, as many as its budget of postings pays for
posting     one searched name that holds a chosen gram

A misspelt name loses the four grams around each slip and keeps the others, so it meets its true name by one of them;
names that share only common words ("systems", "research") are never compared. Everything is arrays: 500,000 names of
25 signs are 13 MB of text, and only postings of chosen grams are ever collected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

_SIGNS = 38  # a blank, a-z, 0-9, and one for everything else
_GRAMS = _SIGNS**4
_CODES = np.full(256, 37, dtype=np.uint32)
_CODES[32] = 0
_CODES[97:123] = np.arange(1, 27)
_CODES[65:91] = np.arange(1, 27)
_CODES[48:58] = np.arange(27, 37)
_NAMES_AT_ONCE = 50_000  # of the searched side, while its grams are counted and collected


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is looked at for one name.

    `postings`: searched names by chosen grams, the rarest gram always among them up to `rarest`. `keep`: those that
    share the most weight and are compared letter by letter. `pairs_at_once`: postings in memory at a time.
    """

    postings: int = 10_000
    rarest: int = 40_000
    grams: int = 16
    keep: int = 60
    pairs_at_once: int = 1_000_000


def likely_pairs(
    left: pl.Series, right: pl.Series, budget: Budget | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (position in `left`, position in `right`) that share rare grams, in chunks of whole left names.

    Names are normalised text; null and empty ones meet nobody. A pair occurs once. Equal names are not treated in a
    special way: a join finds those.
    """
    budget = budget or Budget()
    grams, starts = grams_of(left)
    frequency = _frequencies(right, np.unique(grams))
    owner, gram = _chosen(grams, starts, frequency, budget)
    if not len(owner):
        return
    wanted = np.zeros(_GRAMS, dtype=bool)
    wanted[gram] = True
    postings, begin = _postings(right, wanted, frequency)
    weight = np.log1p(len(right) / np.maximum(frequency, 1)).astype(np.float32)
    # Whole left names, as many as their postings allow.
    costs = frequency[gram].astype(np.int64)
    paid = np.cumsum(costs)
    at = 0
    while at < len(owner):
        spent = paid[at - 1] if at else 0
        end = int(np.searchsorted(paid, spent + budget.pairs_at_once, side="right"))
        end = max(end, at + 1)
        if end < len(owner):
            first = int(np.searchsorted(owner, owner[end], side="left"))
            end = first if first > at else int(np.searchsorted(owner, owner[at], side="right"))
        yield _most_alike(owner[at:end], gram[at:end], costs[at:end], postings, begin, weight, budget.keep)
        at = end


def grams_of(names: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the grams of each name, each once, name after name; and where each name's begin (length names + 1)."""
    owner, gram = _owned_grams(names)
    starts = np.searchsorted(owner, np.arange(len(names) + 1))
    return gram, starts


def _owned_grams(names: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    padded = (" " + names.fill_null("").str.strip_chars() + " ").to_arrow()
    # A large string: offsets and bytes, taken as they lie.
    import pyarrow as pa

    text = padded.cast(pa.large_string())
    text = pa.concat_arrays(text.chunks) if isinstance(text, pa.ChunkedArray) else text
    offsets = np.frombuffer(text.buffers()[1], dtype=np.int64, count=len(text) + 1 + text.offset)[text.offset :]
    data = text.buffers()[2]
    signs = _CODES[np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]]] if data else np.empty(0, np.uint32)
    lengths = np.diff(offsets)
    n_grams = np.maximum(lengths - 3, 0)
    if not n_grams.sum():
        return np.empty(0, np.int64), np.empty(0, np.uint32)
    code = ((signs[:-3] * _SIGNS + signs[1:-2]) * _SIGNS + signs[2:-1]) * _SIGNS + signs[3:]
    owner = np.repeat(np.arange(len(text)), n_grams)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(n_grams) - n_grams, n_grams)
    gram = code[np.repeat(offsets[:-1] - offsets[0], n_grams) + place]
    both = np.sort(owner.astype(np.uint64) << np.uint64(32) | gram)  # np.unique hashes: six times slower here
    both = both[np.concatenate([[True], both[1:] != both[:-1]])]
    return (both >> np.uint64(32)).astype(np.int64), both.astype(np.uint32)


def _frequencies(right: pl.Series, asked: np.ndarray) -> np.ndarray:
    """How many names hold each gram, by code; zero also for grams that nobody asks for."""
    counted = np.zeros(_GRAMS, dtype=np.uint32)
    for at in range(0, len(right), _NAMES_AT_ONCE):
        counted += np.bincount(_owned_grams(right[at : at + _NAMES_AT_ONCE])[1], minlength=_GRAMS).astype(np.uint32)
    kept = np.zeros(_GRAMS, dtype=np.uint32)
    kept[asked] = counted[asked]
    return kept


def _chosen(
    grams: np.ndarray, starts: np.ndarray, frequency: np.ndarray, budget: Budget
) -> tuple[np.ndarray, np.ndarray]:
    """The rarest grams of each name that occur on the other side at all: (owner, gram), sorted by owner."""
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    found = frequency[grams] > 0
    owner, grams = owner[found], grams[found]
    order = np.lexsort((frequency[grams], owner))
    owner, grams = owner[order], grams[order]
    cost = frequency[grams].astype(np.int64)
    first = np.searchsorted(owner, owner, side="left")  # where this owner's rarest gram stands
    rank = np.arange(len(owner)) - first
    spent = np.cumsum(cost)
    before = np.where(first > 0, spent[np.maximum(first - 1, 0)], 0)
    within = (spent - before <= budget.postings) & (rank < budget.grams)
    within |= (rank == 0) & (cost <= budget.rarest)
    return owner[within], grams[within]


def _postings(right: pl.Series, wanted: np.ndarray, frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the names that hold each wanted gram, gram after gram; and where each gram's begin, by code."""
    counted = np.zeros(_GRAMS, dtype=np.int64)
    counted[wanted] = frequency[wanted]
    begin = np.cumsum(counted) - counted
    postings, free = np.empty(counted.sum(), dtype=np.uint32), begin.copy()
    for at in range(0, len(right), _NAMES_AT_ONCE):
        owner, gram = _owned_grams(right[at : at + _NAMES_AT_ONCE])
        held = wanted[gram]
        both = np.sort(gram[held].astype(np.uint64) << np.uint64(32) | (owner[held] + at).astype(np.uint64))
        gram = (both >> np.uint64(32)).astype(np.uint32)
        some, first, times = np.unique(gram, return_index=True, return_counts=True)
        postings[np.repeat(free[some] - first, times) + np.arange(len(gram))] = both.astype(np.uint32)
        free[some] += times
    return postings, begin


def _most_alike(
    owner: np.ndarray,
    gram: np.ndarray,
    cost: np.ndarray,
    postings: np.ndarray,
    begin: np.ndarray,
    weight: np.ndarray,
    keep: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Of the postings of some chosen grams: for each left name the `keep` right names that share the most weight."""
    place = np.arange(cost.sum()) - np.repeat(np.cumsum(cost) - cost, cost)
    right = postings[np.repeat(begin[gram], cost) + place]
    pair = np.repeat(owner.astype(np.uint64) << np.uint64(32), cost) | right
    order = np.argsort(pair)
    pair = pair[order]
    new = np.flatnonzero(np.concatenate([[True], pair[1:] != pair[:-1]])) if len(pair) else np.empty(0, np.int64)
    shared = np.add.reduceat(np.repeat(weight[gram], cost)[order], new) if len(pair) else np.empty(0, np.float32)
    pair = pair[new]
    left, right = (pair >> np.uint64(32)).astype(np.int64), pair.astype(np.uint32)
    best = np.lexsort((-shared, left))
    rank = np.arange(len(best)) - np.searchsorted(left, left[best], side="left")
    best = best[rank < keep]
    return left[best], right[best].astype(np.int64)
