"""A data set as a folder of Parquet files, made one file at a time so that a killed step goes on where it was.

work      a folder beside the artifacts for one attempt at one result; its name is a hash of everything that decides
          the result, so that what lies in it can always be used, and what is made of other things is never found
shard     `part-00000.parquet`; written aside and renamed, so it is whole or not there
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

ROWS = 8_192  # texts in a shard: a second's work, so that is what a kill costs
ABOUT = "about.json"
Say = Callable[[str], None]


class BusyError(RuntimeError):
    """Another process is at the same step."""


@contextmanager
def work_folder(home: Path, *decides: Any) -> Iterator[Path]:
    """The folder for what `decides` says, made if need be; folders of other results below `home` are removed.

    One process at a time: the others get a BusyError, and a killed one stands in nobody's way.
    """
    key = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:24]
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(home / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"another process is making {home.name}") from error
        folder = home / key
        for other in home.glob("[!.]*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True, mode=0o700)
        yield folder


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def scan(folder: Path) -> pl.LazyFrame:
    """All rows of a data set, lazily."""
    return pl.scan_parquet(parts(folder), glob=False)


def write(frame: pl.DataFrame, path: Path) -> None:
    """Whole or not there; the same rows give the same bytes, so equal shards of two versions are stored once."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    frame.rechunk().write_parquet(aside, compression="zstd", compression_level=6, row_group_size=ROWS)
    os.replace(aside, path)


def write_json(path: Path, value: Any) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def even(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in frames of ROWS rows; one empty frame if there are none."""
    rest: pl.DataFrame | None = None
    for frame in frames:
        rest = frame if rest is None else pl.concat([rest, frame], how="diagonal_relaxed")
        while rest.height >= ROWS:
            yield rest.head(ROWS)
            rest = rest.slice(ROWS)
    if rest is None or rest.height:
        yield rest if rest is not None else pl.DataFrame()


def each(
    inputs: list[Path], folder: Path, make: Callable[[Path, Path], None], *, what: str, say: Say, workers: int = 0
) -> None:
    """`make(input, output)` for each input whose output is not there yet, side by side, in bounded memory.

    `make` writes its output with `write`. `say` is told how far it is and how long it may take.
    """
    todo = [(path, folder / path.name) for path in inputs if not (folder / path.name).exists()]
    if len(todo) < len(inputs):
        say(f"{what}: {len(inputs) - len(todo)} of {len(inputs)} parts were done before")
    clock = Progress(what, len(todo), say)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as crew:
        for _ in crew.map(lambda pair: make(*pair), todo):
            clock.step()


class Progress:
    """Says at most every five seconds how far something is, and when it will be done."""

    def __init__(self, what: str, total: int, say: Say, *, every_s: float = 5.0) -> None:
        self.what, self.total, self.say, self.every_s = what, total, say, every_s
        self.done, self.began, self.spoke = 0, time.monotonic(), time.monotonic()

    def step(self, count: int = 1, more: str = "") -> None:
        self.done += count
        now = time.monotonic()
        if now - self.spoke < self.every_s or not self.done:
            return
        self.spoke = now
        left_s = (now - self.began) / self.done * (self.total - self.done)
        self.say(f"{self.what}: {self.done:,} of {self.total:,}{more}, about {left_s:,.0f} s left")
