"""What the model in production says against what truly happened, which only a simulation knows.

    python -m pipelines.forklift.scores --truth .rat/forklift_truth

Two groups of machines, none of which any model was trained on: those that were held back, later than all training; and
those without labels, whose load signal never changes or whose height sensor is broken. The second are what it is for.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ratatouille import RatError, workspace

from . import learning, scoring
from .models import MADE_FROM, SETS, ModelError, load, read_json
from .report import NAMES

SHOWN = ("average_precision", "f1", "precision", "recall", "log_loss")
LABEL = "the label: sensors at that moment, debounced"


def against_truth(
    rows: pl.DataFrame, truth: pl.DataFrame, fitted: dict[str, Any], train: pl.DataFrame
) -> dict[str, Any]:
    """Figures of models, baselines and the label itself. `rows`: windows with their label; `truth`: machine, ts, carrying."""
    happened = truth.select(
        "machine", pl.col("ts").cast(pl.Datetime("us")).alias("target_at"), pl.col("carrying").alias("_was")
    )
    known = rows.join(happened, on=["machine", "target_at"], how="inner")
    judged = known.with_columns(carrying=pl.col("_was"))
    found = learning.evaluate(fitted, judged)["scores"] | learning.baselines(train, judged)
    label = known["carrying"].to_numpy()
    return {**found, "label": scoring.scores(judged["carrying"].to_numpy(), np.where(label, 0.99, 0.01), 0.5)}


def groups(here: Any, truth: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """The figures of each group of machines, with `machines`. RatError or ModelError where there is no model."""
    folder = here.artifact("forklift.production_model")
    made = read_json(folder / MADE_FROM)
    fitted = {name: load(folder, name) for name in SETS}
    rows = here.query(f"select * from {made['table']}", at=made["version"])  # noqa: S608 - our own table
    train = rows.filter(pl.col("split") == learning.TRAIN)
    unlabelled = here.query(
        f"select * from gold.forklift_windows where machine not in (select machine from {made['table']})"  # noqa: S608
    )
    broken = pl.col("sensor_broken")
    parts = {
        "held back, later than all training": rows.filter(pl.col("split") == learning.TEST),
        "load sensor dead": unlabelled.filter(~broken),
        "height sensor broken": unlabelled.filter(broken),
    }
    return {
        name: {"machines": sorted(part["machine"].unique()), **against_truth(part, truth, fitted, train)}
        for name, part in parts.items()
        if part.height
    }


def table(name: str, found: dict[str, Any]) -> str:
    """One group as Markdown."""
    head = f"**{name}**: {', '.join(found['machines'])}; {found['label']['windows']:,} windows, {found['label']['carrying']:,} carrying"
    lines = [
        head,
        "",
        "| | " + " | ".join(name.replace("_", " ") for name in SHOWN) + " |",
        "|---|" + "---:|" * len(SHOWN),
    ]
    for one in (*SETS, "rule", "rule_with_load", "majority", "label"):
        figures = ["–" if found[one].get(c) is None else f"{found[one][c]:.3f}" for c in SHOWN]
        lines.append(f"| {NAMES.get(one, LABEL)} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, required=True, help="the folder that simulate --truth has written")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    try:
        truth = pl.read_parquet(asked.truth / "*.parquet")
        found = groups(workspace(), truth)
    except (ModelError, RatError, OSError, pl.exceptions.PolarsError) as error:
        said = error.what if isinstance(error, RatError) else str(error).splitlines()[0]
        print(
            f"{said}\nNext: python -m pipelines.forklift.simulate --help, then run forklift_training_job",
            file=sys.stderr,
        )
        return 2
    print(json.dumps(found, indent=1) if asked.json else "\n\n".join(table(*one) for one in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
