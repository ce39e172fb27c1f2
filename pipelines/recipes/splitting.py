"""Splits: which texts are for training and which for validation, and both as flat files that training maps into memory.

group     near-duplicates belong to one group, and a group lies on one side as a whole, so that nothing of what is
          validated on was seen in other words in training
files     `tokens.npy`, all ids one after the other (uint16, or int32 for vocabularies beyond 65,536), `starts.npy`,
          where each text begins (and one more), `rows.npy`, the rows of the source that they come from
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIDES = ("train", "val")


def is_validation(groups: np.ndarray, ratio: float, seed: int) -> np.ndarray:
    """For each text whether it is for validation: the groups whose mixed numbers are smallest, until `ratio` is reached.

    At least one group of two or more is; none of fewer than two. The same groups, ratio and seed give the same.
    """
    names, which, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2 or ratio <= 0:
        return np.zeros(len(groups), dtype=bool)
    order = np.argsort(_mixed(names, seed), kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = before < max(1, round(len(groups) * min(ratio, 1.0)))
    chosen[-1] = False  # something is left to learn from
    validation = np.empty(len(names), dtype=bool)
    validation[order] = chosen
    return validation[which]


def _mixed(numbers: np.ndarray, seed: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        mixed = (numbers.astype(np.uint64) ^ np.uint64(seed * 2 + 1)) * np.uint64(0xFF51AFD7ED558CCD)
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return mixed ^ (mixed >> np.uint64(33))


class Writer:
    """Writes one side of a split, text after text, with no more than a batch in memory. To be closed, whatever happens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._ids = open(folder / ".tokens", "wb")
        self._lengths: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._kind: np.dtype = np.dtype(np.uint16)

    def add(self, ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> None:
        self._kind = ids.dtype
        self._ids.write(np.ascontiguousarray(ids).tobytes())
        self._lengths.append(lengths)
        self._rows.append(rows)

    def close(self) -> None:
        self._ids.close()

    def finish(self) -> int:
        """Write the files; how many texts there are."""
        self.close()
        lengths = np.concatenate([np.empty(0, np.int64), *self._lengths])
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        raw = self.folder / ".tokens"
        # Copied as bytes, not through a map: on a full disk a write fails, while a mapped page kills the process.
        header = {
            "descr": np.lib.format.dtype_to_descr(self._kind),
            "fortran_order": False,
            "shape": (int(starts[-1]),),
        }
        with open(self.folder / "tokens.npy", "wb") as whole, open(raw, "rb") as ids:
            np.lib.format.write_array_header_1_0(whole, header)
            shutil.copyfileobj(ids, whole, 1 << 20)
        raw.unlink()
        np.save(self.folder / "starts.npy", starts)
        np.save(self.folder / "rows.npy", np.concatenate([np.empty(0, np.int64), *self._rows]))
        return len(lengths)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a split. `tokens` is mapped, not read."""

    tokens: np.ndarray
    starts: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def text(self, number: int) -> np.ndarray:
        return self.tokens[self.starts[number] : self.starts[number + 1]]


def read(folder: Path) -> Side:
    """One side of a split. Nothing in the files is code: numpy's format, without pickles."""
    tokens = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False) if _has_tokens(folder) else _NONE
    starts = np.load(folder / "starts.npy", allow_pickle=False)
    return Side(tokens, starts, np.load(folder / "rows.npy", allow_pickle=False))


_NONE = np.empty(0, np.uint16)


def _has_tokens(folder: Path) -> bool:
    return int(np.load(folder / "starts.npy", allow_pickle=False)[-1]) > 0


def problems(folder: Path) -> dict[str, str]:
    """Side -> what is wrong with it, of sides that are missing, empty or do not fit together."""
    found = {}
    for name in SIDES:
        try:
            side = read(folder / name)
        except (OSError, ValueError) as error:
            found[name] = f"cannot be read: {type(error).__name__}"
            continue
        if not len(side):
            found[name] = "has no texts"
        elif len(side.tokens) != side.starts[-1] or len(side.rows) != len(side) or (side.lengths < 1).any():
            found[name] = "its files do not fit together"
    return found
