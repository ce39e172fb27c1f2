"""The first four steps, from a folder to a folder: raw, cleaned, tokenized, split. What Dagster stores is what they return.

Each takes the folder of the step above and a work folder, writes its result there part by part, and picks up what is
already in it. Nothing in here knows Dagster or the lake, and nothing needs torch.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from . import cleaning, neardup, shards, splitting, tokens
from .shards import ABOUT, Say
from .sources import ROW, Counts, Source, sample

IDS, MASK = "input_ids", "attention_mask"
REMOVED = "removed.parquet"


def raw(source: Source, identity: str, root: Path, work: Path) -> dict[str, Any]:
    """The sample of the source in parts; what is known of it, which also lies beside them."""
    counts = Counts()
    for old in work.glob("*"):
        old.unlink()
    for number, frame in enumerate(shards.even(sample(source, root, counts))):
        if not frame.width:
            frame = pl.DataFrame(schema={ROW: pl.Int64, source.text_column: pl.String})
        shards.write(frame, work / f"part-{number:05d}.parquet")
    about = {
        "source": source.source,
        "identity": identity,
        "text_column": source.text_column,
        "rows": counts.rows,
        "unreadable_lines": counts.unreadable,
        "num_rows": counts.sampled,
    }
    shards.write_json(work / ABOUT, about)
    return about


def cleaned(above: Path, work: Path, result: Path, *, near: float, same_group: float, say: Say) -> dict[str, Any]:
    """`row`, `text`, `group` in parts, and `removed.parquet`. Both thresholds are shares of common shingles."""
    column = shards.read_json(above / ABOUT)["text_column"]

    def clean_part(source: Path, target: Path) -> None:
        texts = pl.read_parquet(source, columns=[ROW, column]).rename({column: "text"})
        kept, removed = cleaning.clean(texts)
        shards.write(removed, target.with_suffix(".removed"))
        np.save(target.with_suffix(".npy"), neardup.signatures(kept["text"]))
        shards.write(kept, target)

    shards.each(shards.parts(above), work, clean_part, what="cleaning", say=say)
    made = shards.parts(work)
    frames = [pl.read_parquet(path, columns=[ROW]) for path in made]
    rows = pl.concat(frames)[ROW].to_numpy()
    sizes = [frame.height for frame in frames]
    prints = pl.concat([cleaning.fingerprints(pl.read_parquet(path)["text"]) for path in made])
    first = cleaning.copies(prints).to_numpy()
    original = np.flatnonzero(first == np.arange(len(rows)))
    signed = np.concatenate([np.load(path.with_suffix(".npy")) for path in made])[original]

    def texts_at(positions: np.ndarray) -> pl.Series:
        return _texts_at(made, sizes, original[positions])

    say(f"cleaning: {len(rows):,} texts, {len(rows) - len(original):,} of them copies; comparing the others")
    least = min(same_group, near) if near > 0 else same_group
    pairs = neardup.similar(signed, texts_at, least)
    twin_of = original[neardup.groups(len(original), pairs.at_least(near if near > 0 else 2.0))]
    group = original[neardup.groups(len(original), pairs)]
    stays = np.zeros(len(rows), dtype=bool)
    stays[original] = twin_of == original
    of = first.copy()
    of[original] = twin_of
    group_of = np.zeros(len(rows), dtype=np.int64)
    group_of[original] = rows[group]
    # A copy of a twin goes back to the one that stays.
    of = of[of]
    result.mkdir(exist_ok=True)
    n_cut, dropped, begin = 0, [], 0
    for path, size in zip(made, sizes, strict=True):
        here = slice(begin, begin + size)
        frame = pl.read_parquet(path)
        kept = frame.with_columns(group=pl.Series(group_of[here])).filter(pl.Series(stays[here]))
        shards.write(kept, result / path.name)
        reason = np.where(first[here] == np.arange(begin, begin + size), "near duplicate", "exact duplicate")
        gone = frame.select(ROW, reason=pl.Series(reason), of=pl.Series(rows[of[here]]), text="text")
        listed = pl.concat([pl.read_parquet(path.with_suffix(".removed")), gone.filter(~pl.Series(stays[here]))])
        dropped.append(listed)
        begin += size
    removed = pl.concat(dropped).sort(ROW, "reason")
    n_cut = removed.filter(pl.col("reason").str.starts_with("cut")).height
    shards.write(removed, result / REMOVED)
    n_in = pl.scan_parquet(shards.parts(above), glob=False).select(pl.len()).collect().item()
    about = {
        "rows_in": n_in,
        "rows_out": int(stays.sum()),
        "removed_share": round(1 - int(stays.sum()) / n_in, 4) if n_in else 0.0,
        "texts_cut": n_cut,
        "by_reason": dict(removed.group_by("reason").len().sort("reason").iter_rows()),
        "groups": len(np.unique(group_of[stays])),
    }
    shards.write_json(result / ABOUT, about)
    return about


def _texts_at(made: list[Path], sizes: list[int], positions: np.ndarray) -> pl.Series:
    """Texts at ascending positions of the corpus, read from the parts that hold them."""
    ends = np.cumsum(sizes)
    found = []
    for number, path in enumerate(made):
        begin = ends[number] - sizes[number]
        here = positions[np.searchsorted(positions, begin) : np.searchsorted(positions, ends[number])] - begin
        if len(here):
            found.append(pl.read_parquet(path, columns=["text"])["text"].gather(here))
    return pl.concat(found) if found else pl.Series("text", [], dtype=pl.String)


def tokenized(
    above: Path, work: Path, *, max_seq_length: int, vocabulary: int, tokenizer: Path | None, end: str, say: Say
) -> dict[str, Any]:
    """`row`, `group`, `input_ids`, `attention_mask` in parts, and the tokenizer; no padding. `tokenizer`: a file to use."""
    file = work / tokens.FILE
    if not file.exists():
        if tokenizer is not None:
            text = tokenizer.read_text(encoding="utf-8")
        else:
            say(f"tokenizing: learning {vocabulary:,} tokens")
            text = tokens.learn((pl.read_parquet(p)["text"].to_list() for p in shards.parts(above)), vocabulary)
        aside = file.with_suffix(".aside")
        aside.write_text(text, encoding="utf-8")
        aside.rename(file)
    encoder = tokens.Encoder(file, end)

    def encode_part(source: Path, target: Path) -> None:
        frame = pl.read_parquet(source)
        ids, lengths, lost = encoder.encode(frame["text"], max_seq_length)
        kind = pl.UInt16 if encoder.dtype is np.uint16 else pl.Int32
        listed = tokens.as_lists(ids, lengths).cast(pl.List(kind))
        mask = tokens.as_lists(np.ones(len(ids), np.uint8), lengths).rename(MASK)
        shards.write_json(target.with_suffix(".json"), {"tokens": len(ids), "cut": lost, "texts": len(lengths)})
        shards.write(pl.DataFrame([frame[ROW], frame["group"], listed.rename(IDS), mask]), target)

    shards.each(shards.parts(above), work, encode_part, what="tokenizing", say=say)
    counted = [shards.read_json(path) for path in sorted(work.glob("part-*.json"))]
    texts, total = sum(one["texts"] for one in counted), sum(one["tokens"] for one in counted)
    about = {
        "num_rows": texts,
        "tokens": total,
        "tokens_cut_off": sum(one["cut"] for one in counted),
        "max_seq_length": max_seq_length,
        "vocabulary": encoder.vocabulary,
        "end": end,
        "end_id": encoder.end,
        "tokenizer_sha256": tokens.identity(file.read_text(encoding="utf-8")),
        "slots_if_padded": texts * max_seq_length,
        "real_share_if_padded": round(total / (texts * max_seq_length), 4) if texts else 0.0,
    }
    shards.write_json(work / ABOUT, about)
    return about


def split(above: Path, work: Path, *, ratio: float, seed: int) -> dict[str, Any]:
    """`train/` and `val/`, the tokenizer, and what is known of them. Groups lie on one side."""
    for old in work.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    groups = shards.scan(above).select("group").collect()["group"].to_numpy()
    validation = splitting.is_validation(groups, ratio, seed)
    with ExitStack() as files:
        sides = {name: files.enter_context(closing(splitting.Writer(work / name))) for name in splitting.SIDES}
        begin = 0
        for path in shards.parts(above):
            frame = pl.read_parquet(path, columns=[ROW, IDS])
            here = validation[begin : begin + frame.height]
            begin += frame.height
            for name, chosen in (("train", ~here), ("val", here)):
                mine = frame.filter(pl.Series(chosen, dtype=pl.Boolean))
                ids = mine[IDS].explode().drop_nulls().to_numpy()
                sides[name].add(ids, mine[IDS].list.len().to_numpy().astype(np.int64), mine[ROW].to_numpy())
        counted = {name: writer.finish() for name, writer in sides.items()}
    (work / tokens.FILE).write_bytes((above / tokens.FILE).read_bytes())
    about = shards.read_json(above / ABOUT) | {
        "train_examples": counted["train"],
        "val_examples": counted["val"],
        "train_tokens": int(splitting.read(work / "train").starts[-1]),
        "val_tokens": int(splitting.read(work / "val").starts[-1]),
    }
    shards.write_json(work / ABOUT, about)
    return about
