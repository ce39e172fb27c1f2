"""A trained classifier of the areas, for whoever has labels: one yes or no for each area, by the words of a text.

    python -m pipelines.sbir.cet.model labels.csv --to models/cet     # columns title, abstract, label; blank: no area

train    texts and the area that each was given -> a Classifier. For each area with enough labels: TF-IDF of one to
         three words, the words that tell most (chi squared), logistic regression, probabilities calibrated by three folds
save     as skops writes it: data, no code. `load` refuses a file with any type that is not on its list

The labels decide what it learns: trained on what rules said, it repeats the rules. It needs the extra `cet`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from pipelines.sbir.cet import rules
from pipelines.sbir.cet.taxonomy import Taxonomy

SEED, FOLDS, LEAST = 42, 3, 3  # LEAST: texts of an area, below which it is not learned
METHOD = "model"
THRESHOLD = 40.0  # of 100, from which an area is given
_TRUSTED = (
    "numpy.dtype",
    "scipy.sparse._csr.csr_matrix",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.feature_selection._univariate_selection.chi2",
)


class ModelError(ValueError):
    """A model that cannot be trained or used; the message says why and what to do."""


@dataclass(frozen=True)
class Parameters:
    """Of every area's classifier; `small` trains in a tenth of the time."""

    longest: int = 3  # words of a feature
    features: int = 50_000
    chosen: int = 20_000
    iterations: int = 500

    @classmethod
    def small(cls) -> Parameters:
        return cls(longest=2, features=5_000, chosen=3_000, iterations=1_000)


@dataclass(frozen=True)
class Classifier:
    """`areas`: one fitted pipeline for each area that had labels enough. `mark` names it by its bytes."""

    areas: dict[str, Any] = field(repr=False)
    taxonomy_version: str
    mark: str

    def classify(self, texts: pl.DataFrame, taxonomy: Taxonomy, scoring: rules.Scoring | None = None) -> pl.DataFrame:
        """The same columns as the rules give; an area's score is its probability times 100. Evidence is the rules'."""
        how, said = scoring or rules.Scoring(), _said(texts)
        parts = [
            pl.DataFrame({"key": texts["key"], "area": area, "score": 100 * pipeline.predict_proba(said)[:, 1]})
            for area, pipeline in self.areas.items()
        ]
        if not parts or not texts.height:
            return pl.DataFrame(schema=rules.SCHEMA)
        ranked = (
            pl.concat(parts)
            .filter(pl.col("score") >= THRESHOLD)
            .sort(["key", "score", "area"], descending=[False, True, False])
            .with_columns(rank=pl.int_range(pl.len()).over("key"))
            .filter(pl.col("rank") <= how.supporting)
        )
        shown = rules.evidence(texts, taxonomy, how)
        return ranked.join(shown, on=["key", "area"], how="left", maintain_order="left").select(
            "key",
            cet_id="area",
            score=pl.col("score").round(1),
            classification=rules.classification(pl.col("score"), how),
            is_primary=pl.col("rank") == 0,
            evidence=pl.col("evidence").fill_null("[]"),
            taxonomy_version=pl.lit(taxonomy.version),
            method=pl.lit(METHOD),
        )


def train(
    texts: pl.DataFrame, labels: pl.Series, taxonomy: Taxonomy, parameters: Parameters | None = None
) -> Classifier:
    """A classifier from texts (key, title, topic_code, abstract) and the area of each; null for none of them.

    Raises ModelError for labels that are no areas and when no area has LEAST texts for and against it.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.feature_selection import SelectKBest, chi2
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    asked = parameters or Parameters()
    ids = [area.id for area in taxonomy.areas]
    if unknown := sorted(set(labels.drop_nulls()) - set(ids)):
        raise ModelError(f"labels that are no areas of {taxonomy.version}: {', '.join(unknown)}")
    said, fitted = _said(texts), {}
    for area in ids:
        is_so = (labels == area).fill_null(False).to_numpy()
        if min(is_so.sum(), (~is_so).sum()) < LEAST:
            continue
        words = TfidfVectorizer(
            ngram_range=(1, asked.longest),
            max_features=asked.features,
            min_df=2,
            max_df=0.95,
            sublinear_tf=True,
            norm="l2",
        )
        n_words = len(words.fit(said).vocabulary_)
        decide = LogisticRegression(
            class_weight="balanced", solver="lbfgs", max_iter=asked.iterations, random_state=SEED
        )
        steps = [("words", words), ("telling", SelectKBest(chi2, k=min(asked.chosen, n_words))), ("decide", decide)]
        fitted[area] = CalibratedClassifierCV(Pipeline(steps), method="sigmoid", cv=FOLDS).fit(said, is_so)
    if not fitted:
        raise ModelError(f"no area has {LEAST} texts for it and {LEAST} against it; label more texts")
    return Classifier(fitted, taxonomy.version, hashlib.sha256(repr((said[:100], asked)).encode()).hexdigest()[:16])


def save(classifier: Classifier, folder: Path) -> None:
    """One file for each area and a page that names them, written last."""
    from skops.io import dump

    folder.mkdir(parents=True, exist_ok=True)
    for area, pipeline in classifier.areas.items():
        dump(pipeline, folder / f"{area}.skops")
    page = {"taxonomy_version": classifier.taxonomy_version, "mark": classifier.mark, "areas": sorted(classifier.areas)}
    (folder / "model.json").write_text(json.dumps(page), encoding="utf-8")


def load(folder: str | Path, taxonomy: Taxonomy) -> Classifier:
    """The classifier in a folder. ModelError when there is none, when it knows another taxonomy, or is not only data."""
    folder = Path(folder)
    try:
        page = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"there is no model in {folder}; train one, or leave sbir.cet.trained_model empty") from error
    if page["taxonomy_version"] != taxonomy.version:
        raise ModelError(
            f"the model in {folder} knows {page['taxonomy_version']}, not {taxonomy.version}; train it again"
        )
    unknown = set(page["areas"]) - {area.id for area in taxonomy.areas}
    if unknown:
        raise ModelError(f"the model in {folder} has areas that the taxonomy has not: {', '.join(sorted(unknown))}")
    return Classifier({area: _read(folder / f"{area}.skops") for area in page["areas"]}, taxonomy.version, page["mark"])


def _read(path: Path) -> Any:
    from skops.io import get_untrusted_types
    from skops.io import load as read

    strange = sorted(set(get_untrusted_types(file=path)) - set(_TRUSTED))
    if strange:
        raise ModelError(f"{path} holds {', '.join(strange)}, which is no part of a classifier; it was not loaded")
    return read(path, trusted=list(_TRUSTED))


def _said(texts: pl.DataFrame) -> list[str]:
    """Each text as the words that the model sees; the title counts twice."""
    title, abstract = (texts[name].fill_null("") if name in texts.columns else "" for name in ("title", "abstract"))
    return [f"{t} {t} {a}" for t, a in zip(title, abstract, strict=True)]


def main(arguments: list[str] | None = None) -> str:
    """Train from a file of labels, and say what was learned."""
    import argparse

    from pipelines.sbir.cet import taxonomy

    ask = argparse.ArgumentParser(
        prog="python -m pipelines.sbir.cet.model", description="Train the classifier of areas."
    )
    ask.add_argument(
        "labels", type=Path, help="CSV with the columns title, abstract and label (the id of an area, or blank)"
    )
    ask.add_argument("--to", type=Path, required=True, help="the folder of the model")
    ask.add_argument("--small", action="store_true", help="fewer words: a tenth of the time")
    asked = ask.parse_args(arguments)
    said = pl.read_csv(asked.labels, infer_schema=False)
    if absent := {"title", "abstract", "label"} - set(said.columns):
        raise ModelError(f"{asked.labels} has no column {', '.join(sorted(absent))}")
    texts = said.select("title", "abstract", key=pl.int_range(pl.len()).cast(pl.String))
    labels = said["label"].str.strip_chars().replace("", None)
    learned = train(texts, labels, taxonomy.load(), Parameters.small() if asked.small else None)
    save(learned, asked.to)
    return f"{len(learned.areas)} areas learned from {said.height:,} texts: {', '.join(learned.areas)}"


if __name__ == "__main__":
    import sys

    try:
        sys.stdout.write(main() + "\n")
    except ModelError as error:
        sys.exit(str(error))
