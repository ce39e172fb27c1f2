"""The chain as Dagster assets: raw_dataset, cleaned_dataset, tokenized_dataset, train_val_splits, trained_model.

Each is an artifact: a folder that is whole or not there, verified when it is read, current when its checks have passed.
The work is in the modules beside this one; here it gets its settings, its folders and its metadata.
"""

import ast
import hashlib
import shutil
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from dagster import AssetExecutionContext, AssetIn, AssetKey, Config, Failure, MetadataValue, Output, asset
from pydantic import Field

from ratatouille import RatError, workspace

from . import extras, shards, stages, tokens
from .settings import VARIABLE, SettingsError, page, settings
from .sources import Source, SourceError, identity

PROCESSING, TRAINING = "data_processing", "training"
DISK = {
    "No space left on device": "free some space",
    "Disk quota exceeded": "free some space",
    "Read-only file system": "make the folder writable",
    "Permission denied": "make the folder writable for this user",
}
try:
    _SETTINGS, _WRONG = settings(), None
except SettingsError as error:
    # The assets are there all the same, and say what is wrong with the file as soon as one of them runs.
    _SETTINGS, _WRONG = page(), str(error)


def _code(*modules: str) -> str:
    """A hash of the modules that do a step's work: a changed rule makes the step stale, a changed comment does not."""
    trees = [ast.dump(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())) for name in modules]
    return hashlib.sha256("".join(trees).encode()).hexdigest()[:16]


RAW_CODE = _code("sources", "shards")
CLEANING_CODE = _code("stages", "cleaning", "neardup", "shards")
TOKEN_CODE = _code("stages", "tokens", "shards")
SPLIT_CODE = _code("stages", "splitting")
TRAINING_CODE = _code("learn", "model", "training", "batches", "packing", "evaluate", "report")


def _begin(context: AssetExecutionContext) -> None:
    """What would fail the run later fails it here."""
    if _WRONG:
        said = f"{_WRONG}\n{VARIABLE}\nNothing was built.\nNext: mend the file, or unset {VARIABLE}"
        raise Failure(description=said, allow_retries=False)
    extras.check(context)


@contextmanager
def _work(asset_name: str, *decides: Any) -> Iterator[Path]:
    home = workspace().root / ".rat" / "work" / "recipes" / asset_name
    try:
        with shards.work_folder(home, *decides) as work:
            yield work
    except shards.BusyError as error:
        said = f"{error}\n{home}\nNothing was changed.\nNext: wait for it; rat runs"
        raise Failure(description=said, allow_retries=True) from error
    except Exception as error:
        # The disk's troubles come as an OSError, or inside an error of polars or of safetensors.
        trouble = next((cure for words, cure in DISK.items() if words in str(error)), None)
        if trouble is None or isinstance(error, Failure):
            raise
        stands = "What was current stays current; finished parts are used again."
        said = f"{asset_name}: {str(error).splitlines()[0]}\n{home}\n{stands}\nNext: {trouble}, then run it again"
        raise Failure(description=said, allow_retries=False) from error


def _say(context: AssetExecutionContext) -> shards.Say:
    """How far it is: into the run's log, and to whoever sits in front of `rat run`."""

    def say(line: str) -> None:
        context.log.info(line)
        if sys.stderr.isatty():
            sys.stderr.write(f"{line}\n")

    return say


def _stored(context: AssetExecutionContext, folder: Path, about: dict[str, Any], work: Path) -> Iterator[Output[Path]]:
    """The result for the IO manager, and when it is stored, the end of the work folder."""
    plain = {name: value for name, value in about.items() if isinstance(value, bool | int | float | str)}
    shown = {name: MetadataValue.json(value) for name, value in about.items() if isinstance(value, dict | list)}
    context.add_output_metadata({**plain, **shown})
    yield Output(folder)
    shutil.rmtree(work, ignore_errors=True)


# Raw text


class RawConfig(Config):
    """Where the text comes from; settings.yaml explains each."""

    source: str = _SETTINGS["raw_dataset"]["source"]
    text_column: str = _SETTINGS["raw_dataset"]["text_column"]
    layout: str = _SETTINGS["raw_dataset"]["layout"]
    subset: str = _SETTINGS["raw_dataset"]["subset"]
    split: str = _SETTINGS["raw_dataset"]["split"]
    revision: str = _SETTINGS["raw_dataset"]["revision"]
    max_samples: int = _SETTINGS["raw_dataset"]["max_samples"]
    seed: int = _SETTINGS["raw_dataset"]["seed"]


@asset(
    group_name=PROCESSING,
    metadata={"table": "recipes.raw_dataset"},
    io_manager_key="artifact_io_manager",
    code_version=RAW_CODE,
    output_required=False,
    description="A sample of the source, as it came. An unchanged source is not read again: the version that stands, stands.",
    compute_kind="polars",
)
def raw_dataset(context: AssetExecutionContext, config: RawConfig) -> Iterator[Output[Path | None]]:
    _begin(context)
    root = workspace().root
    source = Source(**config.model_dump())
    try:
        would_be = f"{identity(source, root)}-{RAW_CODE}"
        stands = _standing()
        if stands is not None and shards.read_json(stands / shards.ABOUT)["identity"] == would_be:
            context.log.info("The source is unchanged: nothing is read again.")
            context.add_output_metadata({"status": "skipped", "reason": "the source is unchanged"})
            yield Output(None)
            return
        with _work("raw_dataset", would_be) as work:
            about = stages.raw(source, would_be, root, work)
            context.log.info(f"{about['rows']:,} rows, {about['num_rows']:,} of them in the sample")
            yield from _stored(context, work, about, work)
    except SourceError as error:
        raise Failure(description=f"{error}\n{config.source}\nNext: {error.cure}", allow_retries=False) from error


def _standing() -> Path | None:
    """The version that readers see; None where there is none, or where it cannot be trusted any more."""
    try:
        return workspace().artifact("recipes.raw_dataset")
    except RatError:
        return None


# Cleaned text


class CleaningConfig(Config):
    near_duplicates: float = Field(
        _SETTINGS["cleaned_dataset"]["near_duplicates"], description="share of common shingles; 0: keep them"
    )
    same_group: float = Field(
        _SETTINGS["cleaned_dataset"]["same_group"], description="texts this similar go to one side of the split"
    )


@asset(
    group_name=PROCESSING,
    metadata={"table": "recipes.cleaned_dataset"},
    io_manager_key="artifact_io_manager",
    code_version=CLEANING_CODE,
    description="Texts without trailing commentary, each once: copies and near-duplicates are gone, and listed.",
    compute_kind="polars",
)
def cleaned_dataset(
    context: AssetExecutionContext, config: CleaningConfig, raw_dataset: Path
) -> Iterator[Output[Path]]:
    _begin(context)
    with _work("cleaned_dataset", raw_dataset.name, config.model_dump(), CLEANING_CODE) as work:
        about = stages.cleaned(
            raw_dataset,
            work,
            work / "result",
            near=config.near_duplicates,
            same_group=config.same_group,
            say=_say(context),
        )
        context.log.info(f"{about['rows_in']:,} -> {about['rows_out']:,} texts, {about['removed_share']:.1%} removed")
        yield from _stored(context, work / "result", about, work)


@asset(
    group_name=PROCESSING,
    metadata={"table": "recipes.removed"},
    io_manager_key="lake_io_manager",
    ins={"cleaned_dataset": AssetIn(key=AssetKey("cleaned_dataset"))},
    description="What cleaning took away, a row each: the row of the source, the reason, what stands for it, the text.",
    compute_kind="polars",
)
def removed_texts(cleaned_dataset: Path) -> pl.DataFrame:
    return pl.read_parquet(cleaned_dataset / stages.REMOVED)


# Tokens


class TokenConfig(Config):
    max_seq_length: int = Field(
        _SETTINGS["tokenized_dataset"]["max_seq_length"], description="tokens of a text at most"
    )
    vocabulary: int = Field(_SETTINGS["tokenized_dataset"]["vocabulary"], description="of a tokenizer that is learnt")
    tokenizer: str = Field(_SETTINGS["tokenized_dataset"]["tokenizer"], description="a model's: a folder, or its name")


@asset(
    group_name=PROCESSING,
    metadata={"table": "recipes.tokenized_dataset"},
    io_manager_key="artifact_io_manager",
    code_version=TOKEN_CODE,
    description="Texts as token ids, no padding, each ended by the end mark; and their tokenizer.",
    compute_kind="rust",
)
def tokenized_dataset(
    context: AssetExecutionContext, config: TokenConfig, cleaned_dataset: Path
) -> Iterator[Output[Path]]:
    _begin(context)
    given = extras.tokenizer_of(config.tokenizer) if config.tokenizer else None
    decides = cleaned_dataset.name, config.model_dump(), TOKEN_CODE
    with _work("tokenized_dataset", *decides) as work:
        about = stages.tokenized(
            cleaned_dataset,
            work,
            max_seq_length=config.max_seq_length,
            vocabulary=config.vocabulary,
            tokenizer=given[0] if given else None,
            end=given[1] if given else tokens.END,
            say=_say(context),
        )
        yield from _stored(context, work, about, work)


# Splits


class SplitConfig(Config):
    val_split_ratio: float = Field(_SETTINGS["train_val_splits"]["val_split_ratio"], description="share for validation")
    seed: int = _SETTINGS["train_val_splits"]["seed"]


@asset(
    group_name=PROCESSING,
    metadata={"table": "recipes.train_val_splits"},
    io_manager_key="artifact_io_manager",
    code_version=SPLIT_CODE,
    description="train/ and val/ as flat files of tokens; similar texts lie on one side.",
    compute_kind="numpy",
)
def train_val_splits(
    context: AssetExecutionContext, config: SplitConfig, tokenized_dataset: Path
) -> Iterator[Output[Path]]:
    _begin(context)
    with _work("train_val_splits", tokenized_dataset.name, config.model_dump()) as work:
        about = stages.split(tokenized_dataset, work, ratio=config.val_split_ratio, seed=config.seed)
        yield from _stored(context, work, about | {"output_dir": "recipes.train_val_splits"}, work)


# The model


class TrainConfig(Config):
    size: str = Field(
        _SETTINGS["trained_model"]["size"], description="the one dial: tiny, mini, small, medium, large, xl"
    )
    model: str = Field(
        _SETTINGS["trained_model"]["model"], description="a model to adapt with LoRA; none: from scratch"
    )
    qlora: bool = Field(_SETTINGS["trained_model"]["qlora"], description="in 4 bits; CUDA only")
    epochs: int = _SETTINGS["trained_model"]["epochs"]
    batch_tokens: int = Field(_SETTINGS["trained_model"]["batch_tokens"], description="0: what the dial says")
    learning_rate: float = Field(_SETTINGS["trained_model"]["learning_rate"], description="0: what the dial says")
    device: str = Field(_SETTINGS["trained_model"]["device"], description="auto, cpu, mps, cuda")
    precision: str = Field(_SETTINGS["trained_model"]["precision"], description="auto, float32, bfloat16")
    compile: str = Field(_SETTINGS["trained_model"]["compile"], description="auto, on, off")
    processes: int = Field(_SETTINGS["trained_model"]["processes"], description="more than one: torchrun")
    checkpoint_every_s: float = _SETTINGS["trained_model"]["checkpoint_every_s"]
    seed: int = _SETTINGS["trained_model"]["seed"]


@asset(
    group_name=TRAINING,
    metadata={"table": "recipes.trained_model"},
    io_manager_key="artifact_io_manager",
    code_version=TRAINING_CODE,
    description="A language model, its tokenizer, its card, its losses beside a bigram's, and what it writes.",
    compute_kind="torch",
)
def trained_model(
    context: AssetExecutionContext, config: TrainConfig, train_val_splits: Path
) -> Iterator[Output[Path]]:
    _begin(context)
    from . import learn

    wish = config.model_dump()
    # How often it is saved, and by how many it is done, decides nothing of the result: another launcher may go on.
    decides = {name: value for name, value in wish.items() if name not in ("checkpoint_every_s", "processes")}
    with _work("trained_model", train_val_splits.name, decides, TRAINING_CODE) as work:
        try:
            about, picture = learn.learn(train_val_splits, work, wish, _say(context))
        except learn.ModelError as error:
            raise Failure(description=f"{error}\ntrained_model\nNext: {error.cure}", allow_retries=False) from error
        context.add_output_metadata(
            {"curve": MetadataValue.md(f"![losses](data:image/png;base64,{b64encode(picture).decode()})")}
        )
        plain = {name: value for name, value in about.items() if name != "curve"}
        yield from _stored(context, work / "result", plain, work)
