"""trained_model, model_performance_report and production_model. The work is in learning.py, report.py and registry.py."""

import ast
import hashlib
import shutil
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import polars as pl
from dagster import AssetCheckResult, AssetExecutionContext, AssetIn, Config, Failure, MetadataValue, Output, asset
from dagster import asset_check as dagster_check
from pydantic import Field

from ratatouille import RatError, workspace

from .. import learning, registry, report
from ..learning import KINDS, TEST, Wish
from ..models import (
    CARD,
    MADE_FROM,
    METRICS,
    MODEL,
    SETS,
    WITHOUT,
    Fitted,
    ModelError,
    load,
    read_json,
    rows_sha256,
    save,
    write_json,
)
from .training import KEYS, TRAINING, training_dataset

MODELS, SERVED = "forklift.trained_model", "forklift.production_model"
EXTRAS = "make setup EXTRAS=forklift   (or: pip install 'ratatouille-lakehouse[forklift]')"


def _code(*modules: str) -> str:
    """A hash of the modules that do a step's work: a changed rule makes the step stale, a changed comment does not."""
    trees = [ast.dump(ast.parse((Path(__file__).parents[1] / f"{name}.py").read_text())) for name in modules]
    return hashlib.sha256("".join(trees).encode()).hexdigest()[:16]


@contextmanager
def aside(name: str) -> Iterator[Path]:
    """A folder of this step's own, gone afterwards; what goes wrong with a model is told in four lines."""
    folder = Path(mkdtemp(prefix=f"forklift-{name}-"))
    try:
        yield folder
    except ModelError as error:
        said = f"{error}\n{name}\nWhat was current stays current.\nNext: {error.cure}"
        raise Failure(description=said, allow_retries=False) from error
    except ModuleNotFoundError as error:
        said = f"{name} needs {error.name}, which is not installed\n{name}\nNothing was built.\nNext: {EXTRAS}"
        raise Failure(description=said, allow_retries=False) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class TrainConfig(Config):
    """How to train. The same rows and random_state give the same predictions."""

    random_state: int = 42
    kinds: list[str] = Field(list(KINDS), description="which kinds of models are compared: logistic, boosting")
    rounds: int = Field(150, gt=0, description="trees of the boosting")
    threads: int = Field(1, gt=0, description="more than one pays where nothing else runs")


@asset(
    group_name="ml",
    metadata={"table": MODELS},
    io_manager_key="forklift_artifacts",
    code_version=_code("learning", "models", "scoring", "features"),
    description="The best of several classifiers, calibrated, with and without the load signal; its card and its figures.",
    compute_kind="scikitlearn",
)
def trained_model(
    context: AssetExecutionContext, config: TrainConfig, training_dataset: pl.DataFrame
) -> Iterator[Output[Path]]:
    with aside("trained_model") as folder:
        learned = learning.learn(
            training_dataset, Wish(**{**config.model_dump(), "kinds": tuple(config.kinds)}), context.log.info
        )
        made_from = _made_from(training_dataset)
        about = {"run_id": context.run_id, "wish": config.model_dump(), "made_from": made_from, **learned.about}
        versions = {name: version(name) for name in ("scikit-learn", "skops", "numpy", "polars")}
        said = save(folder, learned.fitted, {"run_id": context.run_id, "made_with": versions})
        write_json(folder / METRICS, about)
        write_json(folder / MADE_FROM, made_from)
        (folder / CARD).write_text(report.card(about), encoding="utf-8")
        chosen, scores = said["models"][WITHOUT], about["scores"][WITHOUT]
        shown = {name: scores[name] for name in ("average_precision", "f1", "log_loss") if scores.get(name) is not None}
        context.add_output_metadata(
            {
                "model": f"{context.run_id}.skops",
                "kind": chosen["kind"],
                "sha256": chosen["sha256"],
                "threshold": chosen["threshold"],
                **shown,
                "commits": MetadataValue.json(made_from["commits"]),
                "card": MetadataValue.md(report.card(about)),
            }
        )
        yield Output(folder)


def _made_from(rows: pl.DataFrame) -> dict[str, Any]:
    """Which version of the table, which rows, from which commits."""
    newest = workspace(__file__).history(TRAINING, 1)[0]
    commits = (
        rows.group_by("commit_id")
        .agg(
            pl.len().alias("windows"),
            pl.col("machine").unique().sort().alias("machines"),
            pl.col("window_start").min().cast(pl.String).alias("from"),
            pl.col("target_at").max().cast(pl.String).alias("to"),
        )
        .sort("from", "commit_id")
    )
    return {
        "table": TRAINING,
        "version": newest["version"],
        "run_id": newest["run_id"],
        "inputs": newest["inputs"],
        "rows": rows.height,
        "rows_sha256": rows_sha256(rows, KEYS),
        "commits": commits.to_dicts(),
    }


@dagster_check(
    asset=trained_model,
    blocking=True,
    description="Its files are what they were written as, and load without running code.",
)
def trained_model_loads_safely_check(trained_model: Path) -> AssetCheckResult:
    try:
        kinds = [load(trained_model, name).kind for name in SETS]
    except ModelError as error:
        return AssetCheckResult(passed=False, description=str(error))
    return AssetCheckResult(passed=True, metadata={"kinds": MetadataValue.json(kinds)})


@dagster_check(
    asset=trained_model,
    blocking=True,
    description="It knows more than the commoner answer, on machines that it has never seen.",
)
def trained_model_beats_the_majority_check(trained_model: Path) -> AssetCheckResult:
    about = read_json(trained_model / METRICS)
    mine, theirs = about["scores"][WITHOUT], about["baselines"]["majority"]
    figures = {"log_loss": mine.get("log_loss", 99.0), "log_loss_of_majority": theirs.get("log_loss", 0.0)}
    defined = mine.get("average_precision") is not None
    figures["average_precision"] = mine["average_precision"] if defined else 0.0
    better = not defined or figures["log_loss"] < figures["log_loss_of_majority"]
    said = (
        ""
        if defined
        else "the held-out windows are of one class: nothing can be said of it, and it will not be promoted"
    )
    return AssetCheckResult(passed=better, metadata=figures, description=said)


# The report


@asset(
    group_name="ml",
    metadata={"table": "forklift.model_performance_report"},
    io_manager_key="forklift_artifacts",
    code_version=_code("report", "registry", "scoring", "learning"),
    description="Scores against baselines and against the model in production, with pictures; whether to promote it.",
    compute_kind="altair",
)
def model_performance_report(
    context: AssetExecutionContext, trained_model: Path, training_dataset: pl.DataFrame
) -> Iterator[Output[Path]]:
    with aside("model_performance_report") as folder:
        about = read_json(trained_model / METRICS)
        held_out = training_dataset.filter(pl.col("split") == TEST)
        served, served_run = _in_production()
        about |= _compared(trained_model, about, held_out, training_dataset, served, served_run)
        pictures = report.write(folder, about)
        scores, decision = about["scores"], about["promotion"]
        shown = {
            name: MetadataValue.md(f"![{name}](data:image/png;base64,{b64encode(png).decode()})")
            for name, png in pictures.items()
        }
        figures = {
            f"{name}_{column}": scores[name][column]
            for name in SETS
            for column in ("average_precision", "f1", "log_loss")
            if scores[name].get(column) is not None
        }
        context.add_output_metadata(
            {"promote": decision["promote"], "why": decision["why"], **figures, **shown, "page": report.PAGE}
        )
        yield Output(folder)


def _in_production() -> tuple[Path | None, str]:
    """The folder of the model in production and the run that trained it; None where nothing is served."""
    try:
        folder = workspace(__file__).artifact(SERVED)
    except RatError as error:
        if "no version that can be read" not in str(error.what):
            raise Failure(description=str(error), allow_retries=False) from error
        return None, ""
    return folder, str(read_json(folder / MODEL)["run_id"])


def _compared(
    candidate: Path,
    about: dict[str, Any],
    held_out: pl.DataFrame,
    rows: pl.DataFrame,
    served: Path | None,
    served_run: str,
) -> dict[str, Any]:
    """Both models on the same held-out windows, the decision, and how far the data have moved since the other one."""
    found: dict[str, Any] = {"drift": [], "drift_against": served_run}
    mine = _scores(load(candidate), held_out)
    theirs = _scores(load(served), held_out) if served is not None else None
    if served is not None:
        found["drift"] = learning.scoring.drift(
            read_json(served / METRICS)["reference"], rows.filter(pl.col("split") == learning.TRAIN)
        )
        found["production_scores"] = theirs
    decision = registry.decide(
        mine,
        theirs,
        held_out=rows_sha256(held_out, KEYS),
        candidate_run=str(about["run_id"]),
        production_run=served_run,
    )
    return {
        **found,
        "candidate_sha256": read_json(candidate / MODEL)["models"][WITHOUT]["sha256"],
        "promotion": decision.as_json(),
    }


def _scores(one: Fitted, held_out: pl.DataFrame) -> dict[str, Any]:
    return learning.evaluate({WITHOUT: one}, held_out)["scores"][WITHOUT]


@dagster_check(
    asset=model_performance_report,
    additional_ins={"trained_model": AssetIn("trained_model")},
    blocking=True,
    description="The report is of this model, whole, and asks nothing of a network.",
)
def model_performance_report_is_whole_check(model_performance_report: Path, trained_model: Path) -> AssetCheckResult:
    about = read_json(model_performance_report / report.REPORT)
    page = (model_performance_report / report.PAGE).read_text(encoding="utf-8")
    same = about["candidate_sha256"] == read_json(trained_model / MODEL)["models"][WITHOUT]["sha256"]
    calls = page.count("<script") + page.count('src="http') + page.count("<link")
    pictures = page.count("<svg")
    return AssetCheckResult(
        passed=same and not calls and pictures >= 4,
        metadata={"of_this_model": same, "pictures": pictures, "asks_the_network": calls},
    )


# The registry


@asset(
    group_name="ml",
    metadata={"table": SERVED},
    io_manager_key="forklift_artifacts",
    code_version=_code("registry", "models"),
    output_required=False,
    description="The model that is served: the newest one that was not worse than the one before it.",
    compute_kind="scikitlearn",
)
def production_model(
    context: AssetExecutionContext, trained_model: Path, model_performance_report: Path
) -> Iterator[Output[Path | None]]:
    about = read_json(model_performance_report / report.REPORT)
    decision, (_, served_run) = about["promotion"], _in_production()
    if about["candidate_sha256"] != read_json(trained_model / MODEL)["models"][WITHOUT]["sha256"]:
        why = "the report is of another model; run model_performance_report"
    elif decision["production_run"] != served_run:
        why = "another model was promoted or brought back since the report; run model_performance_report"
    elif not decision["promote"]:
        why = decision["why"]
    else:
        with aside("production_model") as folder:
            shutil.copytree(trained_model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
            write_json(folder / "promotion.json", decision)
            context.add_output_metadata(
                {"stage": registry.PRODUCTION, "why": decision["why"], "model_run": about["run_id"]}
            )
            yield Output(folder)
        return
    if not served_run:
        said = f"Nothing is served yet, and this model is not promoted: {why}"
        cure = "bring telemetry of more machines, or of a longer time, and train anew"
        raise Failure(description=f"{said}\n{SERVED}\nThe candidate is kept.\nNext: {cure}", allow_retries=False)
    context.log.warning(f"Not promoted: {why}. What is served stays.")
    context.add_output_metadata({"status": "skipped", "stage": registry.CANDIDATE, "reason": why})
    yield Output(None)


@dagster_check(
    asset=production_model,
    blocking=True,
    description="What is served loads safely, and its decision was to promote it.",
)
def production_model_was_promoted_check(production_model: Path) -> AssetCheckResult:
    decision = read_json(production_model / "promotion.json")
    try:
        load(production_model)
    except ModelError as error:
        return AssetCheckResult(passed=False, description=str(error))
    return AssetCheckResult(passed=bool(decision["promote"]), metadata={"why": decision["why"]})


all_model_checks = [
    trained_model_loads_safely_check,
    trained_model_beats_the_majority_check,
    model_performance_report_is_whole_check,
    production_model_was_promoted_check,
]
__all__ = ["all_model_checks", "model_performance_report", "production_model", "trained_model", "training_dataset"]
