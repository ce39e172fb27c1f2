"""How good is good: the losses that counting alone reaches, with the same tokenizer, on the same texts.

unigram, bigram    nats per token of a model that knows how often each token is, and which follows which. The first
                   token of a text is nobody's to predict, here as in training
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .splitting import Side

# How many observations the unigram distribution is worth in a bigram. The one that suits the validation texts best is
# taken, so the baseline is as strong as it can be.
WORTH = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 100_000)


def baselines(train: Side, val: Side, vocabulary: int) -> dict[str, Any]:
    """Losses of both baselines on `val` in nats per token, and the bigram's perplexity."""
    before, after = _pairs(train)
    counted = np.bincount(after, minlength=vocabulary).astype(np.float64)
    chance = (counted + 1) / (counted.sum() + vocabulary)
    keys, times = np.unique(before.astype(np.int64) * vocabulary + after, return_counts=True)
    starts = np.bincount(before, minlength=vocabulary).astype(np.float64)
    first, second = _pairs(val)
    wanted = first.astype(np.int64) * vocabulary + second
    seen = np.zeros(len(wanted))
    if len(keys):
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        seen = np.where(keys[at] == wanted, times[at], 0).astype(np.float64)
    losses = {k: float(-np.log((seen + k * chance[second]) / (starts[first] + k)).mean()) for k in WORTH}
    best = min(losses, key=losses.__getitem__)
    return {
        "unigram_loss": float(-np.log(chance[second]).mean()),
        "bigram_loss": losses[best],
        "bigram_perplexity": math.exp(losses[best]),
        "bigram_smoothing": best,
    }


def _pairs(side: Side) -> tuple[np.ndarray, np.ndarray]:
    """Every token and the one after it in the same text."""
    tokens = np.asarray(side.tokens)
    inside = np.ones(max(0, len(tokens) - 1), dtype=bool)
    ends = side.starts[1:-1] - 1
    inside[ends[ends < len(inside)]] = False
    return tokens[:-1][inside], tokens[1:][inside]
