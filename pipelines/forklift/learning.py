"""Training: from windows with a split to two models, their scores, and what they were made from. Plain values in and out.

baseline   what a model must beat: always the commoner answer (`majority`), and the label's own rule asked of the last
           complete step, without the load signal (`rule`) or with it (`rule_with_load`)
held out   machines that no model is trained on, later than all training (split `test`). Nothing is chosen by it

Which kind of model, how its probabilities are calibrated, and from which probability on it says yes is decided on the
validation windows: known machines, later. The same frame and seed give the same predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from . import scoring
from .features import FEATURES, LOAD_FEATURES, RAISED_M
from .models import WITH, WITHOUT, Fitted, ModelError, calibrated, log_odds, on_threads

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
SLOW_KMH = 7.2
KINDS = ("logistic", "boosting")
LABEL = "carrying"
IMPORTANCE_ROWS, IMPORTANCE_REPEATS = 4000, 3


@dataclass(frozen=True)
class Wish:
    """How to train. `threads` is 1 because threads of several programs on few cores wait for each other."""

    random_state: int = 42
    kinds: tuple[str, ...] = KINDS
    rounds: int = 150
    threads: int = 1


@dataclass(frozen=True)
class Learned:
    """Two models (for each of models.SETS) and everything to be said of them; `about` is JSON."""

    fitted: dict[str, Fitted]
    about: dict[str, Any]


def learn(windows: pl.DataFrame, wish: Wish, say: Callable[[str], None] = lambda line: None) -> Learned:
    """Train on `windows`: machine, split, carrying and all features. ModelError where they cannot be learned from."""
    parts = {split: windows.filter(pl.col("split") == split) for split in SPLITS}
    _refuse_too_little(parts)
    with on_threads(wish.threads):
        without, tried = _best(parts, FEATURES, wish, say)
        with_load, tried_with = _best(parts, (*FEATURES, *LOAD_FEATURES), wish, say)
        fitted = {WITHOUT: without, WITH: with_load}
        about = {
            "splits": {split: _described(rows) for split, rows in parts.items()},
            "tried": {WITHOUT: tried, WITH: tried_with},
            "baselines": baselines(parts[TRAIN], parts[TEST]),
            **evaluate(fitted, parts[TEST]),
            "importance": _importance(without, parts[VALIDATION], wish),
            "reference": scoring.reference(parts[TRAIN], FEATURES),
        }
    return Learned(fitted, about)


def evaluate(fitted: dict[str, Fitted], held_out: pl.DataFrame) -> dict[str, Any]:
    """What models score on windows: `scores`, `machines` and `calibration` of each."""
    found: dict[str, Any] = {"scores": {}, "machines": {}, "calibration": {}}
    truth = held_out[LABEL].to_numpy()
    for name, one in fitted.items():
        said = one.probability(held_out)
        found["scores"][name] = scoring.scores(truth, said, one.threshold)
        found["machines"][name] = scoring.by_machine(held_out, said, one.threshold)
        found["calibration"][name] = scoring.reliability(truth, said)
    return found


def baselines(train: pl.DataFrame, held_out: pl.DataFrame) -> dict[str, Any]:
    """What needs no model, on the same windows. A rule's probabilities are the shares that it meets in training."""
    truth, labels = held_out[LABEL].to_numpy(), train[LABEL].to_numpy()
    share = float(labels.mean())
    found = {"majority": scoring.scores(truth, np.full(len(truth), share), 0.5)}
    for name, rule in (("rule", rule_of(train)), ("rule_with_load", rule_of(train, with_load=True))):
        yes, no = (float(labels[rule == side].mean()) if (rule == side).any() else share for side in (True, False))
        asked = rule_of(held_out, with_load=name == "rule_with_load")
        # A rule says yes or no; which probability it stands for must not turn its answer round.
        found[name] = scoring.scores(truth, np.where(asked, yes, no), min(yes, max(no, yes)))
    return found


def rule_of(windows: pl.DataFrame, *, with_load: bool = False) -> np.ndarray:
    """The rule of the label at the last complete step: raised and slow, and loaded if the load signal may be asked."""
    rule = (pl.col("height_last") > RAISED_M) & (pl.col("speed_last") <= SLOW_KMH)
    asked = rule & (pl.col("with_load_last") >= 0.5) if with_load else rule
    return windows.select(asked.alias("rule"))["rule"].to_numpy()


def _refuse_too_little(parts: dict[str, pl.DataFrame]) -> None:
    for split, rows in parts.items():
        if rows.is_empty():
            raise ModelError(
                f"there are no windows to {'train on' if split == TRAIN else f'use for {split}'}",
                "bring telemetry of two forklifts at least, over a longer time",
            )
        if split != TEST and rows[LABEL].n_unique() < 2:
            raise ModelError(
                f"all {rows.height:,} windows for {split} say {'carrying' if rows[LABEL][0] else 'not carrying'}",
                "bring telemetry with both; look at gold.forklift_load_sensor",
            )


def _best(
    parts: dict[str, pl.DataFrame], features: tuple[str, ...], wish: Wish, say: Callable[[str], None]
) -> tuple[Fitted, list[dict[str, Any]]]:
    """The kind with the lowest log loss on the validation windows, calibrated and with its threshold; what each scored."""
    train, validation = parts[TRAIN], parts[VALIDATION]
    truth = validation[LABEL].to_numpy()
    made, tried = [], []
    for kind in wish.kinds:
        estimator = _estimator(kind, wish)
        estimator.fit(train.select(features).to_numpy(), train[LABEL].to_numpy())
        raw = estimator.predict_proba(validation.select(features).to_numpy())[:, 1]
        slope, offset = platt(raw, truth)
        said = calibrated(raw, slope, offset)
        one = Fitted(kind, estimator, features, slope, offset, scoring.best_threshold(truth, said))
        figures = scoring.scores(truth, said, one.threshold)
        say(f"{kind} on {len(features)} features: log loss {figures['log_loss']:.4f} on validation")
        made.append(one)
        uncalibrated = scoring.scores(truth, raw, 0.5)["log_loss"]
        tried.append({"kind": kind, "features": len(features), "log_loss_before_calibration": uncalibrated, **figures})
    best = min(range(len(made)), key=lambda number: tried[number]["log_loss"])
    return made[best], tried


def _estimator(kind: str, wish: Wish) -> Any:
    if kind == "logistic":
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=wish.random_state))
    if kind == "boosting":
        from sklearn.ensemble import HistGradientBoostingClassifier

        # Its own early stopping would split rows at random, neighbours on both sides.
        return HistGradientBoostingClassifier(
            max_iter=wish.rounds,
            learning_rate=0.08,
            max_leaf_nodes=15,
            min_samples_leaf=40,
            l2_regularization=1.0,
            early_stopping=False,  # pyright: ignore[reportArgumentType] - it is told by its default, 'auto'
            random_state=wish.random_state,
        )
    raise ModelError(f"there is no kind of model called {kind}", f"choose of {', '.join(KINDS)}")


def platt(raw: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """(slope, offset) that make probabilities honest. Two numbers cannot overfit as steps of an isotonic curve do."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=1e6, max_iter=1000).fit(log_odds(raw).reshape(-1, 1), truth)
    slope, offset = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    return (slope, offset) if slope > 0 else (1.0, 0.0)


def _described(rows: pl.DataFrame) -> dict[str, Any]:
    return {
        "windows": rows.height,
        "carrying": int(rows[LABEL].sum()),
        "machines": sorted(rows["machine"].unique().to_list()),
        "from": str(rows["window_start"].min()),
        "to": str(rows["window_end"].max()),
    }


def _importance(one: Fitted, validation: pl.DataFrame, wish: Wish) -> list[dict[str, Any]]:
    """How much average precision a model loses on validation when the values of a feature change places; most first."""
    from sklearn.inspection import permutation_importance

    rows = validation.sample(min(IMPORTANCE_ROWS, validation.height), seed=wish.random_state)
    found: Any = permutation_importance(
        one.estimator,
        rows.select(one.features).to_numpy(),
        rows[LABEL].to_numpy(),
        scoring="average_precision",
        n_repeats=IMPORTANCE_REPEATS,
        random_state=wish.random_state,
    )
    listed = [
        {"feature": name, "loss": float(mean), "spread": float(spread)}
        for name, mean, spread in zip(one.features, found.importances_mean, found.importances_std, strict=True)
    ]
    return sorted(listed, key=lambda each: (-each["loss"], each["feature"]))
