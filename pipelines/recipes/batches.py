"""Rows of packed texts as what a model takes: ids, positions that begin anew with each text, a mask, labels.

A text sees itself only: the mask keeps the others of its row away, and the first token of a text is nobody's label.
Nothing is said of padding: it is masked, and is no label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from .packing import Packed
from .splitting import Side

NO_LABEL = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids`, `positions`, `labels`: (rows, length); `mask`: (rows, 1, length, length), true where a token may look."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    n_labels: int


def batch(side: Side, packed: Packed, rows: np.ndarray, length: int, end: int) -> Batch:
    """Some rows of a packing, as one batch."""
    texts = [packed.row(int(row)) for row in rows]
    which = np.concatenate(texts)
    sizes = side.lengths[which]
    row_of = np.repeat(np.arange(len(rows)), [int(side.lengths[one].sum()) for one in texts])
    within = np.arange(len(row_of)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # place in the text
    first = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=len(rows)))[:-1]])
    column = np.arange(len(row_of)) - first[row_of]
    ids = np.full((len(rows), length), end, dtype=np.int64)
    positions = np.zeros((len(rows), length), dtype=np.int64)
    owner = np.full((len(rows), length), -1, dtype=np.int64)
    ids[row_of, column] = side.tokens[np.repeat(side.starts[which], sizes) + within]
    positions[row_of, column] = within
    owner[row_of, column] = np.repeat(np.arange(len(which)), sizes)
    labels = np.full((len(rows), length), NO_LABEL, dtype=np.int64)
    # The label of a place is the next token, where that is of the same text.
    same = (owner[:, 1:] == owner[:, :-1]) & (owner[:, 1:] >= 0)
    labels[:, :-1][same] = ids[:, 1:][same]
    owners = torch.from_numpy(owner)
    mask = (owners[:, :, None] == owners[:, None, :]).tril()[:, None]
    return Batch(torch.from_numpy(ids), torch.from_numpy(positions), mask, torch.from_numpy(labels), int(same.sum()))


def order(rows: int, epoch: int, seed: int) -> np.ndarray:
    """The rows of an epoch in the order in which they are learnt from; the same for the same seed."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)


def portions(rows: np.ndarray, at_once: int) -> Iterator[np.ndarray]:
    for begin in range(0, len(rows), at_once):
        yield rows[begin : begin + at_once]
