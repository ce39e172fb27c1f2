"""Where raw text comes from: files of this machine, or a data set of the Hugging Face hub; and a sample of it.

source    a pattern of files below the workspace (`landing/recipes/*.jsonl.gz`: .jsonl, .parquet, .txt, also .gz),
          or `hf://owner/name`
layout    text: the text column holds it | recipe: `title`, `ingredients` and `directions` are made into one text
sample    of files: the `max_samples` rows whose mixed row numbers are smallest, in that order. Every row is looked at
          once, no more than the sample and a batch is held, and the same rows come out on every machine.
          Of the hub: a seeded shuffle with a buffer, then the first rows, so that only those are fetched.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

HUB = "hf://"
ROW = "row"
BLOCK_BYTES = 16 << 20
BATCH_ROWS = 50_000


class SourceError(ValueError):
    """What is wrong with the source, in one sentence; `cure` says what to do."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Source:
    source: str
    text_column: str = "input"
    layout: str = "text"
    subset: str = ""
    split: str = "train"
    revision: str = ""
    max_samples: int = 0  # 0: all of them
    seed: int = 42


@dataclass(slots=True)
class Counts:
    """Rows of the source, lines that are no JSON, rows in the sample."""

    rows: int = 0
    unreadable: int = 0
    sampled: int = 0


def identity(source: Source, root: Path) -> str:
    """A hash of what would be read: the source's settings, and the bytes of its files or the hub's revision."""
    if source.source.startswith(HUB):
        said = _hub_revision(source)
    else:
        said = [[path.relative_to(root).as_posix(), _sha256(path)] for path in files(source, root)]
    return hashlib.sha256(json.dumps([repr(source), said]).encode()).hexdigest()


def files(source: Source, root: Path) -> list[Path]:
    """The files that the pattern means, sorted. SourceError if there is none, or if it leads out of `root`."""
    pattern = Path(source.source)
    if pattern.is_absolute() or ".." in pattern.parts:
        raise SourceError(f"the source {source.source} leads out of the workspace", f"put the files below {root}")
    found = sorted(path for path in root.glob(source.source) if path.is_file())
    if not found:
        raise SourceError(
            f"no file is called {source.source}",
            "put text there, or make some: python -m pipelines.recipes.corpus --recipes 2000",
        )
    return found


def sample(source: Source, root: Path, counts: Counts) -> Iterator[pl.DataFrame]:
    """Frames with `row` (its number in the source) and the text column, or whatever columns there are without it."""
    batches = _numbered(_hub(source) if source.source.startswith(HUB) else _local(source, root, counts), counts)
    if source.max_samples <= 0 or source.source.startswith(HUB):
        for batch in batches:
            counts.sampled += batch.height
            yield batch
        return
    kept: pl.DataFrame | None = None
    for batch in batches:
        mixed = batch.with_columns(pl.Series("_mixed", _mixed(batch[ROW].to_numpy(), source.seed)))
        both = mixed if kept is None else pl.concat([kept, mixed], how="diagonal_relaxed")
        kept = both.sort("_mixed").head(source.max_samples)
    if kept is not None:
        counts.sampled = kept.height
        yield kept.drop("_mixed")


def _numbered(batches: Iterator[pl.DataFrame], counts: Counts) -> Iterator[pl.DataFrame]:
    for batch in batches:
        yield batch.with_row_index(ROW, offset=counts.rows).with_columns(pl.col(ROW).cast(pl.Int64))
        counts.rows += batch.height


def _mixed(rows: np.ndarray, seed: int) -> np.ndarray:
    """splitmix64 of the row numbers: the same on every machine and in every version of every library."""
    with np.errstate(over="ignore"):
        mixed = (rows.astype(np.uint64) + np.uint64(seed + 1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


# Files


def _local(source: Source, root: Path, counts: Counts) -> Iterator[pl.DataFrame]:
    for path in files(source, root):
        kind = path.name.removesuffix(".gz").rpartition(".")[2]
        if kind == "parquet":
            yield from (_text(frame, source) for frame in _parquet(path))
        elif kind in ("jsonl", "ndjson"):
            yield from (_text(_json(block, counts), source) for block in _blocks(path, b"\n"))
        elif kind == "txt":
            for block in _blocks(path, b"\n\n"):
                texts = [text for text in block.decode("utf-8", "replace").split("\n\n") if text.strip()]
                yield pl.DataFrame({source.text_column: pl.Series(texts, dtype=pl.String)})
        else:
            raise SourceError(f"{path.name} is neither .jsonl, .parquet nor .txt", "name other files as the source")


def _parquet(path: Path) -> Iterator[pl.DataFrame]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield pl.DataFrame(pl.from_arrow(batch))


def _blocks(path: Path, end: bytes) -> Iterator[bytes]:
    """About 16 MB at a time, each cut after an `end`."""
    rest = b""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            whole, found, rest = (rest + block).rpartition(end)
            if found:
                yield whole
    if rest.strip():
        yield rest


def _json(block: bytes, counts: Counts) -> pl.DataFrame:
    try:
        return pl.read_ndjson(io.BytesIO(block), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        # One line is broken: the others are read, and it is counted.
        rows = []
        for line in block.splitlines():
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.append(row)
            else:
                counts.unreadable += 1
        return pl.DataFrame(rows, infer_schema_length=None)


def _text(frame: pl.DataFrame, source: Source) -> pl.DataFrame:
    """The text column alone; every column where it is missing, so that the check can say what there is."""
    if source.layout == "recipe":
        wanted = {"title", "ingredients", "directions"}
        if wanted <= set(frame.columns):
            return frame.select(_recipe().alias(source.text_column))
        return frame
    if source.text_column in frame.columns:
        return frame.select(pl.col(source.text_column).cast(pl.String))
    return frame


def _recipe() -> pl.Expr:
    nothing = pl.lit([], dtype=pl.List(pl.String))
    ingredients = pl.col("ingredients").fill_null(nothing).list.eval(pl.lit("- ") + pl.element()).list.join("\n")
    numbers = pl.int_range(1, pl.len() + 1).cast(pl.String) + ". "
    directions = pl.col("directions").fill_null(nothing).list.eval(numbers + pl.element()).list.join("\n")
    return pl.concat_str(
        [
            pl.col("title").fill_null(""),
            pl.lit("\n\nIngredients:\n"),
            ingredients,
            pl.lit("\n\nDirections:\n"),
            directions,
        ]
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The hub


def _hub(source: Source) -> Iterator[pl.DataFrame]:
    rows = _load_dataset(source)
    if source.max_samples > 0:
        rows = rows.shuffle(seed=source.seed, buffer_size=max(10_000, source.max_samples)).take(source.max_samples)
    for batch in rows.iter(batch_size=1000):
        yield _text(pl.DataFrame(dict(batch), strict=False), source)


def _load_dataset(source: Source) -> Any:
    datasets = _datasets()
    name = source.source.removeprefix(HUB)
    return datasets.load_dataset(
        name, source.subset or None, split=source.split, revision=source.revision or None, streaming=True
    )


def _hub_revision(source: Source) -> str:
    """The commit that a name means now; a pinned revision is taken at its word."""
    if source.revision:
        return source.revision
    _datasets()
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(source.source.removeprefix(HUB)).sha)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise SourceError(
            "data sets of the hub need the package datasets", "uv sync --extra recipes (make setup EXTRAS=recipes)"
        ) from error
    return datasets
