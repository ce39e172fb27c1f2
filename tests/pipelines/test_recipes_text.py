"""From a source to packed rows, without Dagster: what is sampled, cut, dropped, encoded, split and packed."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipelines.recipes import cleaning, corpus, neardup, packing, shards, sources, splitting, stages, tokens
from pipelines.recipes.sources import Counts, Source, SourceError, sample

DOCUMENTS = corpus.generate(1_500, seed=7)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus through all four steps, in parts of 256 texts."""
    root = tmp_path_factory.mktemp("recipes")
    corpus.write(root / "corpus.jsonl.gz", DOCUMENTS)
    before, shards.ROWS = shards.ROWS, 256
    try:
        source = Source("corpus.jsonl.gz")
        folders = {name: root / name for name in ("raw", "cleaning", "cleaned", "tokenized", "splits")}
        for folder in folders.values():
            folder.mkdir()
        stages.raw(source, "it", root, folders["raw"])
        stages.cleaned(folders["raw"], folders["cleaning"], folders["cleaned"], near=0.8, same_group=0.5, say=_quiet)
        stages.tokenized(
            folders["cleaned"],
            folders["tokenized"],
            max_seq_length=192,
            vocabulary=600,
            tokenizer=None,
            end=tokens.END,
            say=_quiet,
        )
        stages.split(folders["tokenized"], folders["splits"], ratio=0.1, seed=42)
    finally:
        shards.ROWS = before
    return root


def _quiet(_: str) -> None: ...


# Sources


def _sampled(root: Path, counts: Counts | None = None, **wish: Any) -> pl.DataFrame:
    source = Source(**{"source": "in/*", "text_column": "text", **wish})
    return pl.concat(list(sample(source, root, counts or Counts())), how="diagonal_relaxed")


def test_files_of_every_kind_are_read_by_one_setting_and_broken_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one", "x": 1}\n{"text": "two"}\n'))
    (tmp_path / "in/b.jsonl").write_text('{"text": "three"}\nno json\n[]\n{"text": "four"}')
    pl.DataFrame({"text": ["five"], "y": [1]}).write_parquet(tmp_path / "in/c.parquet")
    (tmp_path / "in/d.txt").write_text("six\nis long\n\nseven\n\n\n")
    counts = Counts()
    frame = _sampled(tmp_path, counts)
    assert frame["text"].to_list() == ["one", "two", "three", "four", "five", "six\nis long", "seven\n"]
    assert frame["row"].to_list() == list(range(7))
    assert (counts.rows, counts.unreadable, counts.sampled) == (7, 2, 7)


def test_a_sample_is_the_same_however_the_file_is_cut_and_holds_no_more_than_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text("".join(json.dumps({"text": f"t{n}"}) + "\n" for n in range(3_000)))
    whole = _sampled(tmp_path, max_samples=100, seed=5)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1_000)
    assert _sampled(tmp_path, max_samples=100, seed=5).equals(whole)
    assert whole["row"].to_list() != sorted(whole["row"].to_list()) and whole["row"].n_unique() == 100
    assert [f"t{n}" for n in whole["row"]] == whole["text"].to_list()
    other = _sampled(tmp_path, max_samples=100, seed=6)
    assert len(set(other["row"]) & set(whole["row"])) < 20
    # Another machine or version of a library draws the same: written out in plain integers.
    assert whole["row"].to_list() == sorted(range(3_000), key=lambda row: _splitmix64(row, 5))[:100]


def _splitmix64(row: int, seed: int) -> int:
    most = (1 << 64) - 1
    mixed = (row + seed + 1) * 0x9E3779B97F4A7C15 & most
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & most
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & most
    return mixed ^ mixed >> 31


def test_recipes_in_columns_become_one_text(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows = [
        {"title": "Tea", "ingredients": ["water", "leaves"], "directions": ["Boil.", "Wait."]},
        {"title": "Toast", "ingredients": None, "directions": ["Toast."]},
    ]
    (tmp_path / "in/a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    first, second = _sampled(tmp_path, layout="recipe")["text"]
    assert first == "Tea\n\nIngredients:\n- water\n- leaves\n\nDirections:\n1. Boil.\n2. Wait."
    assert second.startswith("Toast\n") and second.endswith("Directions:\n1. Toast.")


def test_a_source_says_what_is_wrong_and_what_helps(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file is called in/\*") as none:
        _sampled(tmp_path)
    assert "pipelines.recipes.corpus" in none.value.cure
    with pytest.raises(SourceError, match="leads out"):
        _sampled(tmp_path, source="../*.jsonl")
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(SourceError, match="neither"):
        _sampled(tmp_path, source="a.doc")


def test_the_hub_is_streamed_shuffled_with_the_seed_and_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Rows:
        def __init__(self, rows: list[int]) -> None:
            self.rows = rows

        def shuffle(self, *, seed: int, buffer_size: int) -> Rows:
            asked.append((seed, buffer_size))
            return Rows(self.rows[::-1])

        def take(self, count: int) -> Rows:
            return Rows(self.rows[:count])

        def iter(self, batch_size: int) -> Any:
            yield {"text": [f"t{n}" for n in self.rows], "other": self.rows}

    class Hub:
        @staticmethod
        def load_dataset(*words: Any, **options: Any) -> Rows:
            asked.append((words, options))
            return Rows(list(range(50)))

    monkeypatch.setattr(sources, "_datasets", lambda: Hub)
    source = {"source": "hf://owner/name", "subset": "part", "revision": "abc", "max_samples": 3, "seed": 9}
    assert _sampled(tmp_path, **source)["text"].to_list() == ["t49", "t48", "t47"]
    options = {"split": "train", "revision": "abc", "streaming": True}
    assert asked == [(("owner/name", "part"), options), (9, 10_000)]
    assert sources.identity(Source(**source), tmp_path) != sources.identity(
        Source(**{**source, "revision": "d"}), tmp_path
    )


# Cleaning


COMMENTARY = {
    "attribution": "Adapted from a book of my aunt's",
    "source": "Source: the back of a box",
    "photo credit": "Photo credit: A. Cook",
    "notes": "Cook's Notes: double the garlic",
    "tips": "Baking tip: use a stone",
    "remark": "I made this twice last week",
    "thanks": "Thank you all for reading",
    "social media": "Follow us on everything",
    "rating": "4.5 out of 5 stars",
    "disclosure": "Disclosure: they gave me a pan",
}


@pytest.mark.parametrize("reason", COMMENTARY)
def test_commentary_is_cut_from_its_first_line_to_the_end(reason: str) -> None:
    recipe = "Soup\n\n- 1 onion\n\n1. Note the time.\n2. Cook."
    kept, removed = cleaning.clean(
        pl.DataFrame({"row": [4], "text": [f"  {recipe}\n\n{COMMENTARY[reason]}\nAnd so on.\n"]})
    )
    assert kept.rows() == [(4, recipe)]
    assert removed.rows() == [(4, f"cut: {reason}", None, f"{COMMENTARY[reason]}\nAnd so on.")]


def test_what_only_looks_like_commentary_stays() -> None:
    texts = [
        "Thanksgiving stuffing\n\n- 1 loaf",
        "#1 brownies\n- 10 tips of asparagus\n1. Share among four plates.",
        "I love this cake\n- sugar",  # a title is never commentary
        "Ragu\n- 1 can, see note\n1. Thankless stirring: an hour.",
        "Stew\nSourdough on the side\nImaginary spice",
    ]
    kept, removed = cleaning.clean(pl.DataFrame({"row": range(len(texts)), "text": texts}))
    assert kept["text"].to_list() == texts and removed.is_empty()


def test_blank_and_missing_texts_are_empty_and_said_to_be() -> None:
    texts = pl.DataFrame({"row": [1, 2, 3, 4], "text": ["", None, " \n\t ", "Tea\n \n"]})
    kept, removed = cleaning.clean(texts)
    assert kept.rows() == [(4, "Tea")]
    assert removed.select("row", "reason").rows() == [(1, "empty"), (2, "empty"), (3, "empty")]


def test_everything_planted_is_found_and_nothing_else_and_all_rows_are_accounted_for(kitchen: Path) -> None:
    removed = pl.read_parquet(kitchen / "cleaned" / "removed.parquet")
    kept = shards.scan(kitchen / "cleaned").collect()
    planted = {kind: {n for n, one in enumerate(DOCUMENTS) if one.kind == kind} for kind in ("copy", "twin", "blank")}
    found = {
        kind: set(removed.filter(pl.col("reason") == reason)["row"])
        for kind, reason in (("copy", "exact duplicate"), ("twin", "near duplicate"), ("blank", "empty"))
    }
    assert found["blank"] == planted["blank"]
    # A copy of a text whose twin came first is gone too, whatever it is called.
    assert found["copy"] | found["twin"] >= planted["copy"]
    recall = len((found["copy"] | found["twin"]) & planted["twin"]) / len(planted["twin"])
    assert recall >= 0.98, recall
    wrong = (found["copy"] | found["twin"]) - planted["copy"] - planted["twin"]
    assert len(wrong) <= 1, wrong
    cut = set(removed.filter(pl.col("reason").str.starts_with("cut"))["row"])
    assert cut == {n for n, one in enumerate(DOCUMENTS) if one.kind == "commentary"}
    dropped = removed.filter(~pl.col("reason").str.starts_with("cut"))
    assert sorted([*kept["row"], *dropped["row"]]) == list(range(len(DOCUMENTS)))
    # Each duplicate names a text that is still there.
    assert set(dropped["of"].drop_nulls()) <= set(kept["row"])
    about = shards.read_json(kitchen / "cleaned" / shards.ABOUT)
    assert (about["rows_in"], about["rows_out"]) == (len(DOCUMENTS), kept.height)
    assert sum(about["by_reason"].values()) == removed.height


def test_a_copy_of_a_twin_names_the_text_that_stays(tmp_path: Path) -> None:
    first = next(one.text for one in DOCUMENTS if one.kind == "plain")
    twin = first.replace("Heat", "Warm")
    folders = [tmp_path / name for name in ("raw", "work", "cleaned")]
    for folder in folders:
        folder.mkdir()
    texts = pl.DataFrame({"row": [10, 11, 12, 13], "input": [first, twin, twin, "Tea\n- leaves"]})
    shards.write(texts, folders[0] / "part-00000.parquet")
    shards.write_json(folders[0] / shards.ABOUT, {"text_column": "input"})
    stages.cleaned(*folders, near=0.8, same_group=0.5, say=_quiet)
    removed = pl.read_parquet(folders[2] / "removed.parquet")
    assert removed.select("row", "reason", "of").rows() == [(11, "near duplicate", 10), (12, "exact duplicate", 10)]


def test_similar_texts_are_found_by_their_exact_similarity_and_chains_are_one_group() -> None:
    words = [f"w{n}" for n in range(120)]
    texts = pl.Series(
        [" ".join(words), " ".join([*words[:110], *"abcdefghij"]), " ".join(words[40:] + words[:40]), "other words"]
    )
    signed = neardup.signatures(texts)
    pairs = neardup.similar(signed, lambda at: texts.gather(at), 0.5)
    found = {
        (int(a), int(b)): round(float(s), 3) for a, b, s in zip(pairs.left, pairs.right, pairs.similarity, strict=True)
    }
    # 118 shingles each: the first 108 are shared; a rotation loses the two across the seam and makes two.
    assert found[0, 1] == round(108 / 128, 3) and found[0, 2] == round(116 / 120, 3)
    assert neardup.groups(4, pairs).tolist() == [0, 0, 0, 3]
    estimated = (signed[0] == signed[1]).mean()
    assert abs(estimated - 108 / 128) < 0.2
    assert neardup.signatures(pl.Series(["", "a", "a b", "a b c"])).shape == (4, neardup.PLACES)


def test_a_large_group_of_twins_is_one_group_in_any_order() -> None:
    left, right = np.arange(0, 999), np.arange(1, 1000)
    order = np.random.default_rng(1).permutation(999)
    pairs = neardup.Pairs(left[order], right[order], np.ones(999))
    assert set(neardup.groups(1001, pairs).tolist()) == {0, 1000}


# Tokens


@pytest.fixture(scope="module")
def encoder(kitchen: Path) -> tokens.Encoder:
    return tokens.Encoder(kitchen / "tokenized" / tokens.FILE)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=8))
def test_ids_are_those_of_the_tokenizer_itself_for_any_text(encoder: tokens.Encoder, texts: list[str]) -> None:
    ids, lengths, lost = encoder.encode(pl.Series("text", texts, dtype=pl.String), 10_000)
    expected = [[*encoder.slow.encode(text, add_special_tokens=False).ids, encoder.end] for text in texts]
    assert ids.tolist() == [number for one in expected for number in one]
    assert lengths.tolist() == [len(one) for one in expected] and lost == 0


def test_the_end_mark_inside_a_text_does_not_tear_it_apart(encoder: tokens.Encoder) -> None:
    texts = pl.Series(["a<|endoftext|>b", "c"])
    _, lengths, _ = encoder.encode(texts, 100)
    assert len(lengths) == 2 and lengths[0] > 3 and lengths.sum() == lengths[0] + 2


def test_a_tokenizer_that_does_more_than_ours_is_used_as_it_is(encoder: tokens.Encoder, tmp_path: Path) -> None:
    said = json.loads(encoder.slow.to_str())
    said["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "t.json").write_text(json.dumps(said))
    other = tokens.Encoder(tmp_path / "t.json")
    ids, _, _ = other.encode(pl.Series(["Chop THE Onion", ""]), 100)
    plain, _, _ = encoder.encode(pl.Series(["chop the onion", ""]), 100)
    assert ids.tolist() == plain.tolist()


def test_the_same_texts_teach_the_same_tokenizer() -> None:
    texts = [["Heat the oil.", "Heat the butter."], ["Chop the onion."]]
    assert tokens.identity(tokens.learn(texts, 300)) == tokens.identity(tokens.learn(texts, 300))


def test_sequences_are_cut_at_the_longest_counted_and_never_padded(kitchen: Path, encoder: tokens.Encoder) -> None:
    frame = shards.scan(kitchen / "tokenized").collect()
    about = shards.read_json(kitchen / "tokenized" / shards.ABOUT)
    lengths = frame["input_ids"].list.len()
    whole, real, lost = encoder.encode(shards.scan(kitchen / "cleaned").collect()["text"], 192)
    assert lengths.max() == 192 and about["tokens"] == lengths.sum() == len(whole) == real.sum()
    assert about["tokens_cut_off"] == lost > 0
    assert frame["input_ids"].explode().to_list() == whole.tolist()
    assert (frame["attention_mask"].list.len() == lengths).all() and frame["attention_mask"].list.min().min() == 1
    ends = frame.filter(lengths < 192)["input_ids"].list.last()
    assert set(ends) == {encoder.end}


# Splits and packing


def test_groups_lie_on_one_side_and_the_same_seed_gives_the_same() -> None:
    groups = np.repeat(np.arange(300), np.random.default_rng(0).integers(1, 5, 300))
    validation = splitting.is_validation(groups, 0.1, 42)
    assert not set(groups[validation]) & set(groups[~validation])
    assert 0.08 < validation.mean() < 0.13
    assert (validation == splitting.is_validation(groups, 0.1, 42)).all()
    assert (validation != splitting.is_validation(groups, 0.1, 43)).any()
    assert splitting.is_validation(np.array([1, 2]), 0.01, 1).sum() == 1
    assert splitting.is_validation(np.array([1, 2]), 1.0, 1).sum() == 1
    assert not splitting.is_validation(np.array([5, 5]), 0.5, 1).any()


def test_a_split_that_fails_leaves_no_file_open(kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(splitting.Writer, "add", full)
    with pytest.raises(OSError, match="No space left") as failed:
        stages.split(kitchen / "tokenized", tmp_path, ratio=0.1, seed=42)
    held = [os.path.realpath(one) for one in Path("/proc/self/fd").iterdir()]
    assert not [path for path in held if path.startswith(str(tmp_path))], failed


def test_a_split_holds_every_text_once_as_it_was_encoded(kitchen: Path) -> None:
    frame = shards.scan(kitchen / "tokenized").collect()
    by_row = dict(zip(frame["row"], frame["input_ids"].to_list(), strict=True))
    sides = {name: splitting.read(kitchen / "splits" / name) for name in splitting.SIDES}
    assert sorted([*sides["train"].rows, *sides["val"].rows]) == sorted(by_row)
    for side in sides.values():
        assert side.tokens.dtype == np.uint16
        for number in range(0, len(side), 37):
            assert side.text(number).tolist() == by_row[int(side.rows[number])]
    assert not splitting.problems(kitchen / "splits")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 32), max_size=120), st.integers(32, 64))
def test_packing_puts_every_text_whole_into_one_row(lengths: list[int], room: int) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    packed = packing.pack(sizes, room)
    assert sorted(packed.texts.tolist()) == list(range(len(lengths)))
    for row in range(len(packed)):
        assert 1 <= sizes[packed.row(row)].sum() <= room
    if lengths:
        assert packed.fill == pytest.approx(sum(lengths) / (len(packed) * room))
        # Two rows that fit into one are never left apart.
        loads = sorted(int(sizes[packed.row(row)].sum()) for row in range(len(packed)))
        assert len(loads) < 2 or loads[0] + loads[1] > room


def test_rows_of_recipes_are_full() -> None:
    dice = np.random.default_rng(3)
    sizes = np.clip(dice.lognormal(5.4, 0.5, 20_000).astype(int), 14, 512)
    packed, room = packing.pack_full(sizes, 512)
    assert packed.fill >= 0.99 and room in (512, 1024)
    assert Counter(packed.texts.tolist()) == Counter(range(20_000))
    with pytest.raises(ValueError, match="do not fit"):
        packing.pack(np.array([5]), 4)
