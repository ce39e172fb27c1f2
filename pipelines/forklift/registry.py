"""Which model is served. A model is a version of forklift.trained_model; the served one, of forklift.production_model.

candidate    trained, its checks have passed, never served
production   the one that `predict` uses: the current version of forklift.production_model
archived     was served, and is not any more

A candidate is promoted when it is not worse than the model in production, both asked about the same held-out windows.
`rat rollback forklift.production_model --to N` brings an earlier one back, and holds it until `rat release`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

CANDIDATE, PRODUCTION, ARCHIVED = "candidate", "production", "archived"
MEASURE = "average_precision"  # how well it ranks; neither a threshold nor a calibration can improve it


@dataclass(frozen=True)
class Decision:
    """Whether a candidate is promoted, and why. `margin` is the candidate's figure less that of production."""

    promote: bool
    why: str
    measure: str = MEASURE
    candidate: float | None = None
    production: float | None = None
    margin: float | None = None
    held_out: str = ""  # a hash of the windows that both were asked about
    candidate_run: str = ""
    production_run: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def decide(
    candidate: dict[str, Any],
    production: dict[str, Any] | None,
    *,
    held_out: str,
    candidate_run: str,
    production_run: str = "",
    tolerance: float = 0.0,
) -> Decision:
    """Compare the scores of two models on the same windows, whose hash is `held_out`. None: nothing is served yet."""
    new = candidate.get(MEASURE)
    old = production.get(MEASURE) if production else None
    margin = new - old if new is not None and old is not None else None
    if new is None:
        promote, why = False, "the held-out windows are of one class: nothing can be said of it"
    elif production is None:
        promote, why = True, "nothing was served before"
    elif margin is None:
        promote, why = True, "the model in production has no score on these windows"
    elif candidate_run == production_run:
        promote, why = False, "it is in production already"
    elif margin < -tolerance:
        promote, why = False, f"it is worse: {MEASURE} {new:.4f} where production has {old:.4f}"
    else:
        promote, why = True, f"it is not worse: {MEASURE} {new:.4f} where production has {old:.4f}"
    return Decision(promote, why, MEASURE, new, old, margin, held_out, candidate_run, production_run)


def stages(trained: Sequence[dict[str, Any]], served: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each model with its stage, newest first.

    `trained`: version, run_id, published_at; `served`: version, model_run (of the model that this version serves),
    published_at. Both newest first, as the lake's history gives them.
    """
    current = served[0]["model_run"] if served else None
    ever = {one["model_run"]: one["version"] for one in reversed(served)}
    listed = []
    for one in trained:
        run = one["run_id"]
        stage = PRODUCTION if run == current else ARCHIVED if run in ever else CANDIDATE
        listed.append({**one, "stage": stage, "served_as": ever.get(run)})
    return listed
