"""How good probabilities are: figures for a frame of windows, for each machine, and for how far two samples are apart.

A figure that the labels do not define (a ranking among windows of one class, say) is None, never a made-up number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

BINS = 10
LITTLE, MUCH = 0.1, 0.25  # of the population stability index: what banks call stable, and shifted


def scores(truth: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, Any]:
    """Figures of probabilities against what was so. `truth` and `probability` have one value for each window."""
    from sklearn import metrics as m

    truth, said = np.asarray(truth, bool), probability >= threshold
    n, positives = len(truth), int(truth.sum())
    found: dict[str, Any] = {"windows": n, "carrying": positives, "threshold": float(threshold)}
    if n == 0:
        return found
    tp, fp, fn = int((truth & said).sum()), int((~truth & said).sum()), int((truth & ~said).sum())
    tn, both = n - tp - fp - fn, 0 < positives < n
    found |= {"confusion": {"tn": tn, "fp": fp, "fn": fn, "tp": tp}, "accuracy": (tp + tn) / n}
    found |= {"precision": _share(tp, tp + fp), "recall": _share(tp, tp + fn), "specificity": _share(tn, tn + fp)}
    found["f1"] = _share(2 * tp, 2 * tp + fp + fn)
    found["balanced_accuracy"] = (found["recall"] + found["specificity"]) / 2 if both else None
    found["average_precision"] = float(m.average_precision_score(truth, probability)) if both else None
    found["roc_auc"] = float(m.roc_auc_score(truth, probability)) if both else None
    found["log_loss"] = float(m.log_loss(truth, np.clip(probability, 1e-6, 1 - 1e-6), labels=[False, True]))
    found["brier"] = float(np.mean((probability - truth) ** 2))
    curve = reliability(truth, probability)
    found["calibration_error"] = sum(abs(bin_["said"] - bin_["was"]) * bin_["windows"] for bin_ in curve) / n
    return found


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def by_machine(windows: pl.DataFrame, probability: np.ndarray, threshold: float) -> list[dict[str, Any]]:
    """The same figures for each machine. `windows`: machine, carrying."""
    found = []
    for (machine,), rows in windows.with_row_index("_row").group_by("machine", maintain_order=True):
        chosen = rows["_row"].to_numpy()
        found.append({"machine": machine, **scores(rows["carrying"].to_numpy(), probability[chosen], threshold)})
    return sorted(found, key=lambda one: one["machine"])


def reliability(truth: np.ndarray, probability: np.ndarray) -> list[dict[str, Any]]:
    """Of windows of about one probability, how many were carrying: a point for each tenth that has windows."""
    tenth = np.minimum((probability * BINS).astype(int), BINS - 1)
    return [
        {"said": float(probability[here].mean()), "was": float(truth[here].mean()), "windows": int(here.sum())}
        for here in (tenth == number for number in range(BINS))
        if here.any()
    ]


def best_threshold(truth: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the highest F1, the lowest of equals; 0.5 where all windows are of one class."""
    from sklearn.metrics import precision_recall_curve

    if not 0 < truth.sum() < len(truth):
        return 0.5
    precision, recall, at = precision_recall_curve(truth, probability)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
    return float(at[int(np.argmax(f1))])


# How far apart


def reference(frame: pl.DataFrame, features: tuple[str, ...]) -> dict[str, Any]:
    """What a later model is compared with: for each feature its inner deciles, and the shares between them."""
    found = {}
    for name in features:
        values = frame[name].to_numpy()
        edges = np.unique(np.quantile(values, np.linspace(0.1, 0.9, BINS - 1)))
        found[name] = {"edges": edges.tolist(), "shares": _shares(values, edges).tolist()}
    return found


def drift(before: dict[str, Any], frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The population stability index of each feature against a `reference`, largest first.

    Below 0.1 is stable, above 0.25 the feature is not what the earlier model was trained on.
    """
    found = []
    for name, was in before.items():
        if name not in frame.columns:
            continue
        old, new = np.asarray(was["shares"]), _shares(frame[name].to_numpy(), np.asarray(was["edges"]))
        old, new = np.clip(old, 1e-4, None), np.clip(new, 1e-4, None)
        index = float(np.sum((new - old) * np.log(new / old)))
        says = "stable" if index < LITTLE else "moved" if index < MUCH else "shifted"
        found.append({"feature": name, "index": index, "says": says})
    return sorted(found, key=lambda one: (-one["index"], one["feature"]))


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return counts / max(1, len(values))
