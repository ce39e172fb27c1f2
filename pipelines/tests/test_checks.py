"""The eight gates of the training pipeline, each seen failing: the thing that it guards is damaged, and nothing gets by."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tests" / "pipelines"):
    sys.path.insert(0, str(folder))

from recipes_bench import CHAIN, DATA, Larder, checks, larder_in, spoiled, statuses  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # Dagster's SQLite storage closes its connections when it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass(frozen=True)
class Damage:
    """What is done to what a stage has written, and what the check must say of it."""

    stage: str
    does: Callable[[Path], None]
    says: dict[str, Any]

    @property
    def asset(self) -> str:
        return {"raw": CHAIN[0], "cleaned": CHAIN[1], "tokenized": CHAIN[2], "split": CHAIN[3]}[self.stage]


def _each_part(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for part in folder.glob("part-*.parquet"):
            change(pl.read_parquet(part)).write_parquet(part)

    return damage


def _one_text_blank(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(text=pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("  \n")).otherwise("text"))


def _two_sequences_zero(frame: pl.DataFrame) -> pl.DataFrame:
    zeros = pl.lit([0, 0, 0]).cast(frame.schema["input_ids"])
    return frame.with_columns(input_ids=pl.when(pl.int_range(pl.len()) < 2).then(zeros).otherwise("input_ids"))


DAMAGES = {
    "raw_dataset_is_nonempty": Damage("raw", _each_part(lambda frame: frame.head(0)), {"num_rows": 0}),
    "raw_dataset_has_text_column": Damage(
        "raw",
        _each_part(lambda frame: frame.rename({"input": "instructions"})),
        {"expected_column": "input", "columns": "row, instructions"},
    ),
    "cleaned_dataset_is_nonempty": Damage("cleaned", _each_part(lambda frame: frame.head(0)), {"num_rows": 0}),
    "cleaned_dataset_no_empty_texts": Damage("cleaned", _each_part(_one_text_blank), {"empty_count": 1}),
    "tokenized_dataset_has_expected_columns": Damage(
        "tokenized", _each_part(lambda frame: frame.drop("attention_mask")), {"missing_columns": "attention_mask"}
    ),
    "tokenized_dataset_is_nonempty": Damage("tokenized", _each_part(lambda frame: frame.head(0)), {"num_rows": 0}),
    "tokenized_dataset_sequences_valid": Damage(
        "tokenized", _each_part(_two_sequences_zero), {"all_zero_sequences": 2}
    ),
    "train_val_splits_exist_on_disk": Damage(
        "split",
        lambda folder: shutil.rmtree(folder / "val"),
        {"train_exists": True, "val_exists": False},
    ),
}


@pytest.fixture(scope="module")
def larder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Larder]:
    """The data once through, whole."""
    with larder_in(tmp_path_factory.mktemp("checks")) as made:
        made.receive(100)
        assert made.run().success
        yield made


def test_the_eight_checks_of_the_document_are_there_and_they_block(larder: Larder) -> None:
    graph = larder.definitions.get_repository_def().asset_graph
    blocking = {key.name: key.asset_key.to_user_string() for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == {name: damage.asset for name, damage in DAMAGES.items()}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_blocked_and_readers_keep_the_last_good_version(larder: Larder, name: str) -> None:
    damage = DAMAGES[name]
    good = larder.versions()
    files = larder.bytes_of(damage.asset)
    below = DATA[DATA.index(damage.asset) :]
    larder.receive(100, seed=1 if damage.stage != "raw" else len(name))
    with spoiled(larder, damage.stage, damage.does):
        result = larder.run(*below)
    # The check says what it found, the run has failed, and nothing below has begun.
    passed, said = checks(result)[name]
    assert not passed and not result.success
    assert {key: said[key] for key in damage.says} == damage.says
    assert set(statuses(result)) == {damage.asset}
    # Readers are where they were, bit by bit.
    assert larder.versions() == good
    assert larder.bytes_of(damage.asset) == files
    # The reason is kept: rat history and the journal tell it too.
    events = json.dumps([str(event.message) for event in result.all_events])
    assert name in events


def test_after_the_damage_a_good_version_passes_all_eight(larder: Larder) -> None:
    before = larder.versions()
    larder.receive(100, seed=77)
    result = larder.run()
    assert result.success and {name for name, (passed, _) in checks(result).items() if passed} == set(DAMAGES)
    after = larder.versions()
    assert all(after[name] != before[name] for name in DATA)


def test_an_empty_source_fails_its_check_and_nothing_divides_by_zero(larder: Larder) -> None:
    path = larder.root / "landing/recipes/corpus.jsonl.gz"
    path.unlink()
    (larder.root / "landing/recipes/none.jsonl").write_text("")
    result = larder.run()
    assert checks(result)["raw_dataset_is_nonempty"] == (False, {"num_rows": 0, "candidate": "rejected; it stays for inspection", "readers see version": "2"})  # fmt: skip
    # All blank: cleaning leaves nothing, and says so through its check.
    (larder.root / "landing/recipes/none.jsonl").write_text('{"input": " "}\n{"input": null}\n')
    result = larder.run()
    assert checks(result)["raw_dataset_is_nonempty"][0] and not checks(result)["cleaned_dataset_is_nonempty"][0]
