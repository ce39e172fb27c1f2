"""Recipes: cleaning, tokenising and training beside the usual way, in one run.

    python benchmarks/recipes.py                                                # synthetic recipes; writes results/recipes.*
    python benchmarks/recipes.py --text recipes.jsonl.gz --layout recipe --times 20

usual     datasets.map, a row at a time: Python's regexes, a set for copies, the model's tokenizer, padded to 512
ours      the steps cleaned_dataset and tokenized_dataset: parts side by side, copies and near-duplicates, no padding
raw       the encoders alone on the cleaned texts: tiktoken and tokenizers, a batch on all cores; the fastest counts
packed    training as trained_model does it; padded: the same model and the same steps on rows padded to 512

Each sample is a process of its own; rounds are interleaved. A sample counts only if its ids are the usual way's ids.
Tokens are real ones: padding is nobody's token. It needs the extra `recipes`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
LONGEST = 512
WAYS = ("usual", "ours", "raw")
TRAININGS = ("packed", "padded")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--recipes", type=int, default=20_000, help="of the grammar, where no text is given")
    parser.add_argument("--text", type=Path, default=None, help="JSON lines to measure on")
    parser.add_argument("--layout", default="text", choices=("text", "recipe"))
    parser.add_argument(
        "--times", type=int, default=1, help="how often the text is taken, each time a little different"
    )
    parser.add_argument("--size", default="tiny", help="the dial, for training")
    parser.add_argument("--steps", type=int, default=12, help="of each training")
    parser.add_argument("--work", nargs=2, default=None, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        way, folder = asked.work
        print(json.dumps(globals()[f"_{way}"](Path(folder), asked)))
        return
    with tempfile.TemporaryDirectory(prefix="recipes-bench-") as name:
        folder = Path(name)
        _prepare(folder, asked)
        samples: dict[str, list[dict[str, Any]]] = {way: [] for way in (*WAYS, *TRAININGS)}
        for number in range(asked.runs):
            for way in list(samples) if number % 2 == 0 else list(samples)[::-1]:
                samples[way].append(_sample(way, folder, asked))
                print(f"round {number + 1}, {way}: {samples[way][-1]}", file=sys.stderr, flush=True)
        facts = json.loads((folder / "facts.json").read_text())
    ids = {sample["ids"] for way in ("usual", "ours") for sample in samples[way]}
    if len(ids) != 1:
        sys.exit(f"the ids differ: {ids}")
    report = _report(asked, samples, facts)
    print(report)
    (HERE / "results" / "recipes.md").write_text(report)
    (HERE / "results" / "recipes.json").write_text(json.dumps({"facts": facts, "samples": samples}, indent=1) + "\n")


def _sample(way: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from measure import Command, measure

    argv = [sys.executable, __file__, "--work", way, str(folder), "--size", asked.size, "--steps", str(asked.steps)]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    env |= {"OMP_NUM_THREADS": "1"} if way in TRAININGS else {}
    done = measure(Command(argv, HERE.parent, env), folder / f"{way}.log")
    said = json.loads([line for line in done.output.splitlines() if line.startswith("{")][-1])
    return {**said, "process_s": done.wall_s, "cpu_s": done.cpu_s, "rss_bytes": done.rss_bytes}


def _prepare(folder: Path, asked: argparse.Namespace) -> None:
    """Raw texts, a tokenizer learnt from the cleaned ones, and the splits to train on."""
    import polars as pl
    from pipelines.recipes import corpus, sources, stages, tokens

    if asked.text is None:
        corpus.write(folder / "text.jsonl.gz", corpus.generate(asked.recipes, seed=1))
    else:
        shutil.copy(asked.text, folder / "text.jsonl.gz")
        if asked.text.suffix != ".gz":
            (folder / "text.jsonl.gz").write_bytes(gzip.compress(asked.text.read_bytes()))
    source = sources.Source("text.jsonl.gz", layout=asked.layout)
    texts = pl.concat(list(sources.sample(source, folder, sources.Counts())))
    # Taken again, a text has other words all over, so that it is no near-duplicate of itself.
    again = [
        texts["input"].str.replace_all(r"([aeiou])(\w)", f"${{1}}{chr(97 + n)}${{2}}") for n in range(asked.times - 1)
    ]
    texts = pl.DataFrame({"row": range(texts.height * asked.times), "input": pl.concat([texts["input"], *again])})
    (folder / "raw").mkdir()
    from pipelines.recipes import shards

    for number, frame in enumerate(shards.even([texts])):
        shards.write(frame, folder / "raw" / f"part-{number:05d}.parquet")
    shards.write_json(folder / "raw" / shards.ABOUT, {"text_column": "input"})
    _cleaned(folder, "learning")
    _tokenized(folder, "learning", None)
    shutil.copy(folder / "learning-tokens" / tokens.FILE, folder / tokens.FILE)
    (folder / "splits").mkdir()
    about = stages.split(folder / "learning-tokens", folder / "splits", ratio=0.1, seed=42)
    shards.write_json(folder / "facts.json", about | {"raw_texts": texts.height, "bytes": int(texts["input"].str.len_bytes().sum())})  # fmt: skip


def _cleaned(folder: Path, name: str) -> dict[str, Any]:
    from pipelines.recipes import stages

    for part in ("work", "cleaned"):
        shutil.rmtree(folder / f"{name}-{part}", ignore_errors=True)
        (folder / f"{name}-{part}").mkdir()
    return stages.cleaned(
        folder / "raw",
        folder / f"{name}-work",
        folder / f"{name}-cleaned",
        near=0.8,
        same_group=0.5,
        say=lambda _: None,
    )


def _tokenized(folder: Path, name: str, tokenizer: Path | None) -> dict[str, Any]:
    from pipelines.recipes import stages, tokens

    target = folder / f"{name}-tokens"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    return stages.tokenized(
        folder / f"{name}-cleaned",
        target,
        max_seq_length=LONGEST,
        vocabulary=4096,
        tokenizer=tokenizer,
        end=tokens.END,
        say=lambda _: None,
    )


class _Clock:
    """Seconds, and processor seconds of all threads, of one lap after the other."""

    def __init__(self) -> None:
        self._last = time.perf_counter(), time.process_time()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter(), time.process_time()
        self._laps |= {f"{name}_s": now[0] - self._last[0], f"{name}_cpu": now[1] - self._last[1]}
        self._last = now

    def laps(self) -> dict[str, float]:
        totals = {
            name: sum(value for lap, value in self._laps.items() if lap.endswith(end))
            for name, end in (("seconds", "_s"), ("cpu", "_cpu"))
        }
        return self._laps | totals


# The ways


def _ours(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    import polars as pl
    from pipelines.recipes import packing, shards, tokens

    clock = _Clock()
    cleaned = _cleaned(folder, "ours")
    clock.lap("cleaning")
    about = _tokenized(folder, "ours", folder / tokens.FILE)
    clock.lap("tokenising")
    ended = time.perf_counter()
    frame = shards.scan(folder / "ours-tokens").select("row", "input_ids").collect()
    packed, room = packing.pack_full(frame["input_ids"].list.len().to_numpy().astype("int64"), LONGEST)
    size = sum(path.stat().st_size for path in (folder / "ours-tokens").glob("part-*.parquet"))
    return {
        **clock.laps(),
        "texts": cleaned["rows_in"],
        "tokens": about["tokens"],
        "bytes": size,
        "fill": packed.fill,
        "room": room,
        "packing_s": time.perf_counter() - ended,
        "ids": _digest(frame.sort("row").rows()),
    } | {"near": int(pl.read_parquet(folder / "ours-cleaned/removed.parquet").filter(reason="near duplicate").height)}


def _usual(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    import datasets
    import polars as pl
    from pipelines.recipes import cleaning, shards, tokens
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    texts = shards.scan(folder / "raw").collect()
    end = tokens.END
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / tokens.FILE), eos_token=end, pad_token=end)
    tail = re.compile(cleaning._TAIL.replace("(?i)", ""), re.IGNORECASE)
    clock = _Clock()
    rows = datasets.Dataset.from_dict({"row": texts["row"].to_list(), "text": texts["input"].to_list()})
    rows = rows.map(lambda row: {"text": tail.sub("", row["text"].strip(), count=1).rstrip()})
    seen: set[str] = set()

    def new(row: dict[str, Any]) -> bool:
        if not row["text"] or row["text"] in seen:
            return False
        seen.add(row["text"])
        return True

    rows = rows.filter(new)
    clock.lap("cleaning")
    rows = rows.map(
        lambda row: tokenizer(row["text"] + end, truncation=True, max_length=LONGEST, padding="max_length"),
        remove_columns=["text"],
    )
    clock.lap("tokenising")
    frame = pl.DataFrame(pl.from_arrow(rows.data.table)).select("row", "input_ids", "attention_mask")
    lengths = frame["attention_mask"].list.sum()
    real = frame.with_columns(pl.col("input_ids").list.head(pl.col("attention_mask").list.sum())).sort("row")
    # Near-duplicates are not looked for in this way: what ours drops is left out of the comparison.
    kept = set(shards.scan(folder / "learning-tokens").select("row").collect()["row"])
    return {
        **clock.laps(),
        "texts": texts.height,
        "tokens": int(lengths.sum()),
        "bytes": rows.data.nbytes,
        "fill": float(lengths.sum()) / (len(rows) * LONGEST),
        "ids": _digest([row for row in real.select("row", "input_ids").rows() if row[0] in kept]),
    }


def _raw(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from pipelines.recipes import shards, tokens

    texts = shards.scan(folder / "learning-cleaned").collect()["text"].to_list()
    encoder = tokens.Encoder(folder / tokens.FILE)
    found: dict[str, Any] = {}
    for name, encode in (
        ("tokenizers", lambda: encoder.slow.encode_batch_fast(texts, add_special_tokens=False)),
        ("tiktoken", lambda: encoder._fast.encode_ordinary_batch(texts, num_threads=os.cpu_count() or 1)),
    ):
        clock = _Clock()
        encoded = encode()
        clock.lap(name)
        found |= clock.laps()
        del encoded
    fastest = min(("tokenizers", "tiktoken"), key=lambda name: found[f"{name}_s"])
    return found | {"seconds": found[f"{fastest}_s"], "cpu": found[f"{fastest}_cpu"]}


def _digest(rows: list[tuple[int, list[int]]]) -> str:
    digest = hashlib.sha256()
    for row, ids in rows:
        digest.update(f"{row}:{','.join(map(str, ids))};".encode())
    return digest.hexdigest()[:16]


# Training


def _packed(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    return _trained(folder, asked)


def _padded(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    from pipelines.recipes import packing, training

    def alone(lengths: np.ndarray, longest: int) -> tuple[packing.Packed, int]:
        """Each text a row of its own, padded to the longest."""
        count = len(lengths)
        fill = float(lengths.sum() / (count * longest)) if count else 1.0
        return packing.Packed(np.arange(count), np.arange(count + 1), fill), longest

    training.pack_full = alone
    return _trained(folder, asked)


def _trained(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Real tokens a second of some steps, the first of which is not counted."""
    import torch
    from pipelines.recipes import training

    torch.manual_seed(1)
    (folder / "w").mkdir(exist_ok=True)
    job = training.Job(splits=str(folder / "splits"), work=str(folder / "w"), size=asked.size, device="cpu")
    one = training._Training(job, training._place("cpu"), lambda _: None)
    one._step()
    counted, started, cpu = one.state.tokens, time.perf_counter(), time.process_time()
    for _ in range(asked.steps):
        one._step()
    seconds, tokens = time.perf_counter() - started, one.state.tokens - counted
    return {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_s": tokens / seconds,
        "tokens_per_cpu_s": tokens / (time.process_time() - cpu),
        "fill": one.packed.fill,
    }


# The report


def _report(asked: argparse.Namespace, samples: dict[str, list[dict[str, Any]]], facts: dict[str, Any]) -> str:
    def of(way: str, measure: str) -> float:
        return statistics.median(sample[measure] for sample in samples[way])

    ours, usual = samples["ours"][0], samples["usual"][0]

    def ratio(one: tuple[str, str, str], other: tuple[str, str, str]) -> tuple[float, float]:
        """By seconds and by processor seconds."""
        return of(one[0], one[1]) / of(other[0], other[1]), of(one[0], one[2]) / of(other[0], other[2])

    tokenising, cleaning = ("ours", "tokenising_s", "tokenising_cpu"), ("ours", "cleaning_s", "cleaning_cpu")
    both, raw = ("ours", "seconds", "cpu"), ("raw", "seconds", "cpu")
    fill = of("ours", "fill")
    speed = ("tokens_per_s", "tokens_per_cpu_s")
    goals = [
        ("cleaning + tokenising against the usual way", ratio(both, ("usual", "seconds", "cpu")), 0.25, "<="),
        ("tokenising step against the fastest encoder alone", ratio(raw, tokenising), 0.8, ">="),
        ("cleaning against tokenising, in time", ratio(cleaning, tokenising), 1.0, "<="),
        ("rows are full", (fill, fill), 0.99, ">="),
        ("real tokens/s, packed against padded", ratio(("packed", *speed), ("padded", *speed)), 2.0, ">="),
    ]
    what = f"{asked.text.name} x {asked.times}" if asked.text else f"{asked.recipes:,} synthetic recipes"
    lines = [
        "# Recipes",
        "",
        (
            f"{datetime.now(UTC):%Y-%m-%d} · {os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python"
            f" {platform.python_version()} · medians of {asked.runs} runs, load average {os.getloadavg()[1]:.1f} at the end · {what}:"
            f" {facts['raw_texts']:,} texts, {facts['bytes'] / 1e6:.1f} MB, {facts['tokens']:,} tokens after cleaning"
        ),
        "",
        "| | cleaning s | tokenising s | rows/s | tokens/s | stored MB | slots that are tokens | peak MB | CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for way, one in (("usual", usual), ("ours", ours)):
        lines.append(
            f"| {way} | {of(way, 'cleaning_s'):.2f} | {of(way, 'tokenising_s'):.2f} |"
            f" {one['texts'] / of(way, 'seconds'):,.0f} | {one['tokens'] / of(way, 'seconds'):,.0f} |"
            f" {one['bytes'] / 1e6:.1f} | {of(way, 'fill'):.1%} | {of(way, 'rss_bytes') / 1e6:,.0f} | {of(way, 'cpu_s'):.1f} |"
        )
    lines += [
        "",
        (
            f"Encoders alone: tokenizers {of('raw', 'tokenizers_s'):.2f} s, tiktoken {of('raw', 'tiktoken_s'):.2f} s."
            f" Packing: {of('ours', 'packing_s'):.2f} s into rows of {ours['room']}. Near-duplicates that only ours looks for: {ours['near']}."
        ),
        "Ids are identical for every text that both keep.",
        "",
        f"| training, size {asked.size}, one thread | real tokens/s | by CPU second | slots that are tokens | peak MB |",
        "|---|---:|---:|---:|---:|",
    ]
    for way in TRAININGS:
        lines.append(
            f"| {way} | {of(way, 'tokens_per_s'):,.0f} | {of(way, 'tokens_per_cpu_s'):,.0f} |"
            f" {of(way, 'fill'):.1%} | {of(way, 'rss_bytes') / 1e6:,.0f} |"
        )
    lines += ["", "| goal | measured | by CPU time | wanted | |", "|---|---:|---:|---:|---|"]
    for text, (measured, by_cpu), limit, sign in goals:
        met = measured <= limit if sign == "<=" else measured >= limit
        lines.append(f"| {text} | {measured:.2f} | {by_cpu:.2f} | {sign} {limit:.2f} | {'met' if met else 'missed'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
