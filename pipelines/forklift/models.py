"""A model in a folder: two estimators as skops files, and model.json, which says how to use them and what they hash to.

without_load.skops   the one that is served: it never sees the load signal
with_load.skops      the same kind of model with the load signal, to compare with

skops writes what an estimator is made of, not code; loading builds only the types listed here. A file that differs from
its hash in model.json is not loaded at all.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

MODEL, METRICS, MADE_FROM, CARD = "model.json", "metrics.json", "made_from.json", "README.md"
WITHOUT, WITH = "without_load", "with_load"
SETS = (WITHOUT, WITH)
# Beyond what skops trusts by itself: the trees of gradient boosting, which are arrays of numbers.
TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]


class ModelError(ValueError):
    """A model cannot be made or used; `cure` helps."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure


@dataclass(frozen=True)
class Fitted:
    """An estimator with what turns its output into a probability and a yes or no.

    `slope` and `offset` are Platt's: the probability is the logistic function of slope * log-odds + offset.
    """

    kind: str
    estimator: Any
    features: tuple[str, ...]
    slope: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5

    def probability(self, windows: pl.DataFrame) -> np.ndarray:
        """The probability of carrying for each window, as float64; ModelError where a feature is missing."""
        missing = [name for name in self.features if name not in windows.columns]
        if missing:
            raise ModelError(f"the windows lack {', '.join(missing[:3])}", "make them with features.windows")
        if windows.is_empty():
            return np.empty(0)
        with on_threads(1):
            raw = self.estimator.predict_proba(windows.select(self.features).to_numpy())[:, 1]
        return calibrated(raw, self.slope, self.offset)


def on_threads(count: int) -> AbstractContextManager[Any]:
    """Let the libraries below an estimator use so many threads.

    Threads that wait for each other spin: on two cores that others use too, a model took 69 s instead of 4.
    """
    limited: AbstractContextManager[Any] = _pools().limit(limits=count)
    return limited


@cache
def _pools() -> Any:
    """The libraries that start threads. Only those that are loaded can be told, so they are loaded first."""
    import sklearn.ensemble
    import sklearn.linear_model  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def log_odds(raw: np.ndarray) -> np.ndarray:
    clipped = np.clip(np.asarray(raw, np.float64), 1e-7, 1 - 1e-7)
    return np.log(clipped / (1 - clipped))


def calibrated(raw: np.ndarray, slope: float, offset: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(slope * log_odds(raw) + offset)))


def save(folder: Path, fitted: dict[str, Fitted], about: dict[str, Any]) -> dict[str, Any]:
    """Write the estimators and model.json; what model.json says. `fitted`: for each of SETS."""
    import skops.io

    folder.mkdir(parents=True, exist_ok=True)
    listed = {}
    for name, one in fitted.items():
        path = folder / f"{name}.skops"
        skops.io.dump(one.estimator, path)
        listed[name] = {
            "file": path.name,
            "sha256": sha256(path),
            "kind": one.kind,
            "features": list(one.features),
            "slope": one.slope,
            "offset": one.offset,
            "threshold": one.threshold,
        }
    said = {**about, "models": listed}
    write_json(folder / MODEL, said)
    return said


def load(folder: Path, name: str = WITHOUT) -> Fitted:
    """One of the estimators of a folder. ModelError where it is damaged, or made of something that is not trusted."""
    import skops.io

    try:
        one = read_json(folder / MODEL)["models"][name]
        path = folder / Path(one["file"]).name
        digest = sha256(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} holds no model of this pipeline", "rat run forklift.trained_model") from error
    if digest != one["sha256"]:
        raise ModelError(
            f"{path.name} is not the file that model.json was written with", "go back to a version that is whole"
        )
    foreign = [kind for kind in skops.io.get_untrusted_types(file=path) if kind not in TRUSTED]
    if foreign:
        raise ModelError(
            f"{path.name} is made of {', '.join(foreign[:3])}, which is not trusted", "train the model anew"
        )
    estimator = skops.io.load(path, trusted=TRUSTED)
    calibration = (float(one["slope"]), float(one["offset"]), float(one["threshold"]))
    return Fitted(one["kind"], estimator, tuple(one["features"]), *calibration)


def sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def rows_sha256(frame: pl.DataFrame, keys: tuple[str, ...]) -> str:
    """A hash of what is in a frame: names, and values column by column in the order of the keys."""
    ordered, digest = frame.sort(keys), hashlib.sha256()
    for name in sorted(ordered.columns):
        column = ordered[name]
        if column.dtype == pl.String:
            content = "\0".join(column.fill_null("\1").to_list()).encode()
        else:
            plain = column.to_physical() if column.dtype.is_temporal() else column
            content = plain.to_numpy().tobytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=str), encoding="utf-8")
