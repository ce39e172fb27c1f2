"""Texts as numbers: a byte-level BPE tokenizer, learnt from the corpus or brought by a model, and a fast encoder.

vocabulary    token 0 is `<|endoftext|>`: it ends every text and pads what must be padded
encode        texts of a batch go to the encoder as one text with the end mark between them: one call into Rust for
              thousands of texts, and the ids come back as one array. Ids are those of the tokenizer's own `encode`.
fast          tiktoken with the tokenizer's own merges (twice as fast, identical ids); other tokenizers are used as they are
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

END = "<|endoftext|>"
FILE = "tokenizer.json"
# How text is cut into words before merges are applied: contractions, words, numbers of up to three digits, signs, spaces.
PATTERN = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"


def learn(texts: Iterable[Sequence[str]], vocabulary: int) -> str:
    """A tokenizer learnt from batches of texts, as the JSON of the `tokenizers` library. The same texts give the same."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def identity(json_text: str) -> str:
    """What tells one tokenizer from another: the hash of its file."""
    return hashlib.sha256(json_text.encode()).hexdigest()


class Encoder:
    """Encodes batches of texts with the tokenizer in a file; safe to use from several threads."""

    def __init__(self, file: Path, end: str = END) -> None:
        from tokenizers import Tokenizer

        self.slow = Tokenizer.from_file(str(file))
        self.slow.no_truncation()
        self.slow.no_padding()
        self.vocabulary = int(self.slow.get_vocab_size())
        self.end = self.slow.token_to_id(end)
        if self.end is None:
            raise ValueError(f"the tokenizer in {file} has no token {end}")
        self._end_text = end
        self._fast = _tiktoken(json.loads(file.read_text(encoding="utf-8")), end)
        self.dtype = np.uint16 if self.vocabulary <= 1 << 16 else np.int32

    def encode(self, texts: pl.Series, longest: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Token ids, text after text, each ended by the end mark and cut at `longest`; each text's length; ids cut off."""
        if not len(texts):
            return np.empty(0, self.dtype), np.empty(0, np.int64), 0
        found = self._flat(texts)
        ids, lengths = found if found is not None else self._one_by_one(texts)
        kept = np.minimum(lengths, longest)
        if (lengths > longest).any():
            place = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            ids = ids[place < longest]
        return ids.astype(self.dtype), kept, int((lengths - kept).sum())

    def _flat(self, texts: pl.Series) -> tuple[np.ndarray, np.ndarray] | None:
        """All in one call; None where a text holds the end mark itself, or there is no fast encoder."""
        if self._fast is None:
            return None
        joined = texts.str.join(self._end_text)[0] + self._end_text
        ids = self._fast.encode_to_numpy(joined, allowed_special={self._end_text})
        ends = np.flatnonzero(ids == self.end)
        if len(ends) != len(texts):
            return None
        return ids, np.diff(ends, prepend=-1)

    def _one_by_one(self, texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        if self._fast is not None:
            listed = self._fast.encode_ordinary_batch(texts.to_list())
        else:
            listed = [one.ids for one in self.slow.encode_batch_fast(texts.to_list(), add_special_tokens=False)]
        lengths = np.array([len(ids) + 1 for ids in listed], dtype=np.int64)
        flat = np.full(int(lengths.sum()), self.end, dtype=np.int64)
        inside = np.ones(len(flat), dtype=bool)
        inside[np.cumsum(lengths) - 1] = False
        flat[inside] = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in listed])
        return flat, lengths


def _tiktoken(said: dict[str, Any], end: str) -> Any:
    """tiktoken's encoder for a tokenizer of ours; None for one that does more than split by our pattern and merge."""
    import tiktoken

    model, before = said["model"], said.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    pattern = next((step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"), None)
    plain = model.get("type") == "BPE" and not model.get("byte_fallback") and said.get("normalizer") is None
    special = {one["content"]: one["id"] for one in said.get("added_tokens", ())}
    if not plain or pattern != PATTERN or set(special) != {end}:
        return None
    to_byte = _bytes_of_characters()
    ranks = {
        bytes(to_byte[character] for character in token): number
        for token, number in model["vocab"].items()
        if token not in special
    }
    return tiktoken.Encoding("recipes", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)


def _bytes_of_characters() -> dict[str, int]:
    """The byte that each printable character of a byte-level vocabulary stands for (GPT-2's table)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + number): byte for number, byte in enumerate(hidden)}


def as_lists(ids: np.ndarray, lengths: np.ndarray) -> pl.Series:
    """Flat ids as a column of lists, without a Python object for each."""
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    # By way of polars: pyarrow's own array() imports pandas to look at numpy's arrays, a second of processor time.
    flat, at = pl.Series(ids).to_arrow(), pl.Series(offsets).to_arrow()
    return pl.Series("input_ids", pl.from_arrow(pa.LargeListArray.from_arrays(at, flat)))
