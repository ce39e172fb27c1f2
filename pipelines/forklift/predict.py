"""Whether a forklift carries, from a new file or from rows as they come in. No label and no load signal is asked.

    python -m pipelines.forklift.predict landing/forklift/real_data/FL-0001.csv --out carried.parquet
    tail -f FL-0001.csv | python -m pipelines.forklift.predict --stream --machine FL-0001

Files are as the machines send them: no header, semicolons, eight columns. An answer is for a step of five seconds, from
the minutes before it. Beside it stands whether the model says yes: the probability reaches the model's threshold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from .features import LONG_S, LONGEST_S, STEP_S, steps, windows
from .models import Fitted, ModelError, load

COLUMNS = ("fffid", "height", "load", "on_duty", "timestamp", "latitude", "longitude", "speed")
TALLEST_M, RANGE_AT = 6.7, 0.995
ANSWER = ("machine", "at", "probability", "carrying")
LINES = 50  # of a stream, read together at most


def predict(rows: pl.DataFrame, model: Fitted) -> pl.DataFrame:
    """ANSWER for each step of `rows` (as features.steps wants them, but that load may be missing)."""
    given = rows if "load" in rows.columns else rows.with_columns(load=pl.lit(0.0))
    return _answers(windows(steps(given), every_s=STEP_S), model)


def _answers(made: pl.DataFrame, model: Fitted) -> pl.DataFrame:
    said = model.probability(made)
    answers = made.select("machine", pl.col("window_end").alias("at")).with_columns(probability=pl.Series(said))
    return answers.with_columns(carrying=pl.col("probability") >= model.threshold).select(ANSWER)


class Stream:
    """Predictions for rows as they come: the same as for all of them at once, as long as none is late.

    Of each machine the last 35 minutes are kept. A step is answered when the first row after it comes. A row that comes
    after its step was answered changes no answer; `late` counts them.
    """

    def __init__(self, model: Fitted) -> None:
        self._model = model
        self._recent: pl.DataFrame | None = None
        self._answered: dict[str, Any] = {}  # machine -> the newest step that was answered
        self.late = 0

    def feed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Answers that these rows (as `predict` takes them) make possible."""
        given = rows if "load" in rows.columns else rows.with_columns(load=pl.lit(0.0))
        self._recent = given if self._recent is None else pl.concat([self._recent, given], how="diagonal_relaxed")
        return self._answer(given, pl.col("window_end") < pl.col("_newest"))

    def close(self) -> pl.DataFrame:
        """Answers for the steps that no later row has ended."""
        return self._answer(None, pl.lit(value=True)) if self._recent is not None else pl.DataFrame(schema=list(ANSWER))

    def _answer(self, given: pl.DataFrame | None, ripe: pl.Expr) -> pl.DataFrame:
        assert self._recent is not None  # noqa: S101 - callers have seen to it
        before = pl.DataFrame(
            {"machine": list(self._answered), "_answered": list(self._answered.values())},
            schema={"machine": pl.String, "_answered": pl.Datetime("us")},
        )
        step = pl.col("ts").dt.truncate(f"{STEP_S}s")
        if given is not None:
            seen = given.join(before, on="machine", how="left")
            self.late += seen.filter(step <= pl.col("_answered")).height
        newest = self._recent.group_by("machine").agg(step.max().cast(pl.Datetime("us")).alias("_newest"))
        made = windows(steps(self._recent), every_s=STEP_S)
        made = made.join(newest, on="machine").join(before, on="machine", how="left")
        fresh = made.filter(ripe & (pl.col("window_end") > pl.col("_answered")).fill_null(value=True))
        for machine, at in fresh.group_by("machine").agg(pl.col("window_end").max()).iter_rows():
            self._answered[machine] = at
        keep = timedelta(seconds=LONGEST_S + LONG_S + STEP_S)
        self._recent = (
            self._recent.join(newest, on="machine").filter(pl.col("ts") >= pl.col("_newest") - keep).drop("_newest")
        )
        return _answers(fresh, self._model)


def read(source: str | Path | StringIO, machine: str) -> pl.DataFrame:
    """Rows of one machine's file, sorted by time and each once. ModelError where it is no such file."""
    try:
        rows = pl.read_csv(source, separator=";", has_header=False)
        if len(rows.columns) != len(COLUMNS):
            raise ModelError(f"{source} has {len(rows.columns)} columns, not eight", f"write {';'.join(COLUMNS)}")
        rows.columns = list(COLUMNS)
        numbers = [pl.col(name).cast(pl.Float64) for name in ("height", "load", "latitude", "longitude", "speed")]
        return (
            rows.select(
                pl.lit(machine).alias("machine"),
                pl.col("timestamp").cast(pl.String).str.to_datetime(time_unit="us"),
                (pl.col("on_duty") != 0).alias("on_duty"),
                *numbers,
            )
            .rename({"timestamp": "ts"})
            .unique("ts", keep="last")
            .sort("ts")
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ModelError(f"{source} cannot be read: {str(error).splitlines()[0]}", "look at its first line") from error


def believable(rows: pl.DataFrame) -> pl.DataFrame:
    """Heights between 0 and 6.7 m: a sensor with a longer range is mapped onto that one, single spikes are clipped."""
    top = rows["height"].quantile(RANGE_AT) or 0.0
    low = min(0.0, float(rows["height"].quantile(1 - RANGE_AT) or 0.0))
    height = pl.col("height")
    if top > TALLEST_M or low < 0:
        height = (height.clip(low, top) - low) / (top - low) * TALLEST_M
    return rows.with_columns(height.clip(0.0, TALLEST_M).alias("height"))


def served(folder: Path | None = None) -> Fitted:
    """The model in a folder, else the one in production. ModelError where there is none."""
    if folder is not None:
        return load(folder)
    from ratatouille import RatError, workspace

    try:
        return load(workspace(__file__).artifact("forklift.production_model"))
    except RatError as error:
        raise ModelError(error.what, "rat run forklift.production_model") from error


def streamed(lines: TextIO, machine: str, model: Fitted) -> Iterator[pl.DataFrame]:
    """Answers to lines of one machine, as soon as they can be given."""
    stream = Stream(model)
    for some in _batches(lines):
        # The range of the sensor is not known yet, so what is too high is clipped.
        rows = read(StringIO("".join(some)), machine).with_columns(pl.col("height").clip(0.0, TALLEST_M))
        yield stream.feed(rows)
    yield stream.close()


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines of one step together, up to LINES: an answer is never later than the first line after its step."""
    some: list[str] = []
    for line in lines:
        if not line.strip():
            continue
        some.append(line)
        if len(some) >= LINES or (len(some) > 1 and _step_of(some[-1]) != _step_of(some[0])):
            yield some
            some = []
    if some:
        yield some


def _step_of(line: str) -> str:
    """Which five seconds a line is of: its timestamp up to the tens of seconds, and which half of them."""
    at = (line.split(";") + [""] * 5)[4]
    return f"{at[:18]}{int(at[18:19] or 0) // STEP_S if at[18:19].isdigit() else ''}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="a machine's file")
    parser.add_argument("--stream", action="store_true", help="read lines from standard input, answer in JSON lines")
    parser.add_argument("--machine", default="", help="its name (default: the file's)")
    parser.add_argument(
        "--out", type=Path, help="write answers to this .parquet or .csv (default: CSV to standard output)"
    )
    parser.add_argument("--model", type=Path, help="a model's folder (default: the one in production)")
    asked = parser.parse_args(arguments)
    try:
        model = served(asked.model)
        if asked.stream:
            for answers in streamed(sys.stdin, asked.machine or "machine", model):
                print(answers.write_ndjson(), end="", flush=True)
            return 0
        if asked.file is None:
            raise ModelError("there is no file to read", "python -m pipelines.forklift.predict --help")
        answers = predict(believable(read(asked.file, asked.machine or asked.file.stem)), model)
        _written(answers, asked.out)
    except ModelError as error:
        print(f"{error}\nNothing was written.\nNext: {error.cure}", file=sys.stderr)
        return 2
    return 0


def _written(answers: pl.DataFrame, out: Path | None) -> None:
    if out is None:
        print(answers.write_csv(), end="")
    elif out.suffix == ".parquet":
        answers.write_parquet(out)
    else:
        answers.write_csv(out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
