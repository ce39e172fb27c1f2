"""Near-duplicates by MinHash: texts that share most of their three-word shingles.

shingle     three words that follow each other, as a 32-bit hash
signature   the smallest value of each of 63 mixtures of a text's shingles; two signatures agree in as many places as
            the texts have in common (Jaccard similarity), give or take 0.06
band        three places of a signature; texts that agree in all three of one band are compared
similar     pairs of at least a given similarity, computed exactly from the shingles, not estimated
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

BANDS, ROWS = 21, 3  # a pair of similarity 0.5 / 0.7 / 0.8 meets in a band with probability 0.94 / 0.9998 / 1.0000
PLACES = BANDS * ROWS
_TEXTS_AT_ONCE = 512  # their shingles stay in the processor's cache while all mixtures are made
_PAIRS_AT_ONCE = 200_000
_dice = np.random.Generator(np.random.PCG64(20_260))
_FACTORS = (_dice.integers(1, 2**32, PLACES, dtype=np.uint64) | np.uint64(1)).astype(np.uint32)
_OFFSETS = _dice.integers(0, 2**32, PLACES, dtype=np.uint64).astype(np.uint32)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Positions of similar texts, left < right, and how similar they are."""

    left: np.ndarray
    right: np.ndarray
    similarity: np.ndarray

    def at_least(self, similarity: float) -> Pairs:
        chosen = self.similarity >= similarity
        return Pairs(self.left[chosen], self.right[chosen], self.similarity[chosen])


def shingles(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all shingles, uint32, text after text; and where each text's begin, int64.

    A text of one or two words has one shingle, its first word; no text may be without words (it gets one, of nothing).
    """
    words = texts.str.to_lowercase().str.extract_all(r"\w+").alias("words")
    counts = words.list.len().to_numpy().astype(np.int64)
    words = pl.select(pl.when(words.list.len() > 0).then(words).otherwise(pl.lit([""]))).to_series()
    counts = np.maximum(counts, 1)
    hashed = words.explode().hash(seed=3).to_numpy()
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    with np.errstate(over="ignore"):
        three = hashed * np.uint64(0x9E3779B97F4A7C15)
        three[:-1] ^= hashed[1:] * np.uint64(0xC2B2AE3D27D4EB4F)
        three[:-2] ^= hashed[2:] * np.uint64(0x165667B19E3779F9)
        three *= np.uint64(0xD6E8FEB86659FD93)
    few = np.repeat(counts < 3, counts)
    three = np.where(few, hashed, three)
    place = np.arange(len(hashed)) - np.repeat(first, counts)
    n_shingles = np.maximum(counts - 2, 1)
    whole = place < np.repeat(n_shingles, counts)
    starts = np.concatenate([[0], np.cumsum(n_shingles)[:-1]]).astype(np.int64)
    return (three[whole] >> np.uint64(32)).astype(np.uint32), starts


def signatures(texts: pl.Series) -> np.ndarray:
    """One signature a text: uint32, shape (texts, PLACES)."""
    made = np.empty((len(texts), PLACES), dtype=np.uint32)
    if not len(texts):
        return made
    hashed, starts = shingles(texts)
    ends = np.append(starts, len(hashed))
    for begin in range(0, len(texts), _TEXTS_AT_ONCE):
        end = min(begin + _TEXTS_AT_ONCE, len(texts))
        here, at = hashed[ends[begin] : ends[end]], starts[begin:end] - starts[begin]
        mixed = np.empty_like(here)
        for place in range(PLACES):
            np.multiply(here, _FACTORS[place], out=mixed)
            np.add(mixed, _OFFSETS[place], out=mixed)
            made[begin:end, place] = np.minimum.reduceat(mixed, at)
    return made


def similar(signed: np.ndarray, texts: Callable[[np.ndarray], pl.Series], at_least: float) -> Pairs:
    """All pairs that meet in a band and share `at_least` of their shingles.

    `texts` gives the texts at positions; only those that met somebody are asked for.
    """
    left, right = _met(signed, at_least - 0.2)
    if not len(left):
        return Pairs(left, right, np.empty(0))
    asked = np.unique(np.concatenate([left, right]))
    exact = _jaccard(texts(asked), np.searchsorted(asked, left), np.searchsorted(asked, right))
    return Pairs(left, right, exact).at_least(at_least)


def _met(signed: np.ndarray, likely: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that agree in a band, each text with the first of its bucket and with the one before it."""
    found: list[np.ndarray] = []
    for band in range(BANDS):
        part = signed[:, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        with np.errstate(over="ignore"):
            key = (part[:, 0] << np.uint64(32) | part[:, 1]) * np.uint64(0x9E3779B97F4A7C15) + part[:, 2]
        order = np.argsort(key, kind="stable")
        same = key[order][1:] == key[order][:-1]
        if not same.any():
            continue
        starts = np.maximum.accumulate(np.where(np.append(True, ~same), np.arange(len(order)), 0))
        later = np.flatnonzero(same) + 1
        for other in (order[starts[later]], order[later - 1]):
            found.append(np.stack([other, order[later]], axis=1))
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    pairs = np.concatenate(found)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    close = [
        (signed[part[:, 0]] == signed[part[:, 1]]).mean(axis=1) >= likely
        for part in np.array_split(pairs, max(1, len(pairs) // _PAIRS_AT_ONCE))
    ]
    pairs = pairs[np.concatenate(close)]
    return pairs[:, 0], pairs[:, 1]


def _jaccard(texts: pl.Series, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Shared shingles of all shingles, for each pair of positions in `texts`."""
    hashed, starts = shingles(texts)
    owner = np.repeat(np.arange(len(texts)), np.diff(np.append(starts, len(hashed))))
    sets = pl.DataFrame({"text": owner, "shingle": hashed}).unique()
    sizes = np.bincount(sets["text"].to_numpy(), minlength=len(texts))
    pairs = pl.DataFrame({"left": left, "right": right}).with_row_index("pair")
    shared = (
        pairs.join(sets, left_on="left", right_on="text")
        .join(sets, left_on=["right", "shingle"], right_on=["text", "shingle"])
        .group_by("pair")
        .len()
    )
    both = np.zeros(len(left))
    both[shared["pair"].to_numpy()] = shared["len"].to_numpy()
    return both / (sizes[left] + sizes[right] - both)


def groups(count: int, pairs: Pairs) -> np.ndarray:
    """For each of `count` texts the first one of its group, texts that a chain of pairs connects being one group."""
    label = np.arange(count)
    while len(pairs.left):
        before = label.copy()
        lower = np.minimum(label[pairs.left], label[pairs.right])
        np.minimum.at(label, label[pairs.left], lower)
        np.minimum.at(label, label[pairs.right], lower)
        label = label[label]
        if np.array_equal(before, label):
            break
    return label
