"""From telemetry to windows: what a model may see of a machine's recent past, and what it is asked.

step      five seconds of one machine, its rows brought together; the raster of everything here
window    the minute (and the five minutes) BEFORE a step. Nothing of the step itself is in it, so the rule that
          labels an instant (load, height, speed) never meets the values that it was computed from
target    whether the machine carries at the end of the step, 0 to 5 s after the window has ended

The features come in two sets. FEATURES know speed, height and motion, and not the load signal: they work where the load
sensor is broken, which is what the model is for. LOAD_FEATURES know the load signal of the window too, and are there to
show what it is worth. The same functions serve training, a new file, and rows as they come in.
"""

from __future__ import annotations

from typing import Any

import polars as pl

STEP_S, SHORT_S, LONG_S = 5, 60, 300
STRIDE_S = 15  # one window in so many seconds is kept: neighbours say nearly the same
RAISED_M, MOVING_KMH = 0.35, 1.0
LIFT_M = 0.1  # a fork that moves so far from one step to the next was moved on purpose; less is jitter
LONGEST_S = 1800.0  # "long ago", for times since something happened
# A window with fewer steps than this share of its short half says too little about it: after a pause, or in a gap.
COVERED = 0.5

FEATURES = (
    *("speed_last", "speed_mean_60", "speed_max_60", "speed_std_60", "moving_60", "speed_mean_300", "moving_300"),
    *("height_last", "height_mean_60", "height_min_60", "height_max_60", "height_std_60", "raised_60"),
    *("height_mean_300", "height_max_300", "raised_300", "height_change_60"),
    *("lifts_60", "lowers_60", "lifts_300", "lowers_300", "since_lift", "since_lower"),
    *("metres_60", "turn_60", "metres_300", "stopped_since"),
)
LOAD_FEATURES = ("with_load_last", "with_load_60", "with_load_300", "with_load_toggles_60", "with_load_toggles_300")
OPTIONAL = ("carrying", "sensor_broken", "commit_id")
KEYS = ("machine", "window_start", "window_end", "target_at")
_OF = ("machine", "day")  # windows never look across midnight (UTC): days can be computed apart


def steps(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of telemetry as steps of five seconds.

    `rows`: machine, ts, height (m), load, on_duty, latitude, longitude, speed (km/h), and those of OPTIONAL that are
    known. In any order. A step has at least one row; gaps stay gaps. A value that is missing is the one before it.
    """
    last = [name for name in OPTIONAL if name in rows.columns]
    ordered = rows.sort("machine", "ts")
    return (
        ordered.with_columns(step_at=pl.col("ts").dt.truncate(f"{STEP_S}s"))
        .group_by("machine", "step_at", maintain_order=True)
        .agg(
            pl.col("ts").last().alias("target_at"),
            pl.col("speed").mean(),
            pl.col("height").mean(),
            pl.col("latitude").mean(),
            pl.col("longitude").mean(),
            pl.col("load").cast(pl.Float64).mean(),
            pl.col("on_duty").cast(pl.Boolean).last(),
            *(pl.col(name).last() for name in last),
        )
        .with_columns(day=pl.col("step_at").dt.date())
        .with_columns(pl.col("speed", "height", "latitude", "longitude", "load").forward_fill().over(*_OF))
    )


def windows(stepped: pl.DataFrame, *, every_s: int = STRIDE_S) -> pl.DataFrame:
    """Steps as windows: KEYS, the features of both sets, and carrying and commit_id of the step that follows each.

    Windows on duty with enough steps in them, one in `every_s` seconds.
    """
    made = _with_motion(stepped).with_columns(_events())
    made = made.with_columns(*_history(SHORT_S), *_history(LONG_S), *_latest()).with_columns(*_since())
    whole = (pl.col("_n_60") >= COVERED * SHORT_S / STEP_S) & pl.col("on_duty")
    chosen = pl.col("step_at").dt.epoch("s") % every_s == 0
    known = [name for name in OPTIONAL if name in made.columns]
    # A sensor that has not spoken yet on that day leaves nulls: such a window says nothing.
    spoken = pl.all_horizontal(pl.col(name).is_not_null() for name in (*FEATURES, *LOAD_FEATURES))
    return made.filter(whole & chosen & spoken).select(
        "machine",
        (pl.col("step_at") - pl.duration(seconds=SHORT_S)).alias("window_start"),
        pl.col("step_at").alias("window_end"),
        "target_at",
        *known,
        *(pl.col(name).cast(pl.Float32) for name in (*FEATURES, *LOAD_FEATURES)),
    )


def _with_motion(stepped: pl.DataFrame) -> pl.DataFrame:
    """Metres and degrees turned since the step before, from positions; none over a gap."""

    def before(column: str) -> pl.Expr:
        return pl.col(column).shift(1).over(*_OF)

    flat = stepped.sort("machine", "step_at").with_columns(
        _gap=(pl.col("step_at") - before("step_at")).dt.total_seconds() > 3 * STEP_S,
        # A warehouse is small: the plane that touches the globe there is good to a millimetre.
        _east=(pl.col("longitude") - before("longitude")) * 111_320 * pl.col("latitude").radians().cos(),
        _north=(pl.col("latitude") - before("latitude")) * 110_574,
        _rise=pl.col("height") - before("height"),
    )
    flat = flat.with_columns(
        _metres=pl.when(~pl.col("_gap")).then((pl.col("_east") ** 2 + pl.col("_north") ** 2).sqrt()).fill_null(0.0),
        _heading=pl.arctan2("_north", "_east").degrees(),
    )
    turned = (pl.col("_heading") - before("_heading") + 540) % 360 - 180
    # Standing still a position jitters, and so does the direction that it seems to take.
    return flat.with_columns(
        _turn=pl.when(pl.col("speed") > MOVING_KMH).then(turned.abs()).otherwise(0.0).fill_null(0.0)
    )


def _events() -> list[pl.Expr]:
    rise, before = pl.col("_rise").fill_null(0.0), pl.col("load").shift(1).over(*_OF)
    return [
        pl.lit(1.0).alias("_one"),
        (rise > LIFT_M).cast(pl.Float64).alias("_lift"),
        (rise < -LIFT_M).cast(pl.Float64).alias("_lower"),
        (pl.col("speed") > MOVING_KMH).cast(pl.Float64).alias("_moving"),
        (pl.col("height") > RAISED_M).cast(pl.Float64).alias("_raised"),
        ((pl.col("load") >= 0.5) != (before >= 0.5)).fill_null(value=False).cast(pl.Float64).alias("_toggle"),
    ]


def _history(seconds: int) -> list[pl.Expr]:
    """What happened in so many seconds before a step."""

    def over(column: str, verb: str) -> pl.Expr:
        rolled: pl.Expr = getattr(pl.col(column), f"rolling_{verb}_by")("step_at", f"{seconds}s", closed="left")
        return rolled.over(*_OF)

    every: dict[str, Any] = {
        f"speed_mean_{seconds}": over("speed", "mean"),
        f"moving_{seconds}": over("_moving", "mean"),
        f"height_mean_{seconds}": over("height", "mean"),
        f"height_max_{seconds}": over("height", "max"),
        f"raised_{seconds}": over("_raised", "mean"),
        f"lifts_{seconds}": over("_lift", "sum"),
        f"lowers_{seconds}": over("_lower", "sum"),
        f"metres_{seconds}": over("_metres", "sum"),
        f"with_load_{seconds}": over("load", "mean"),
        f"with_load_toggles_{seconds}": over("_toggle", "sum"),
    }
    if seconds == SHORT_S:
        every |= {
            "_n_60": over("_one", "sum"),
            "speed_max_60": over("speed", "max"),
            "speed_std_60": over("speed", "std"),
            "height_min_60": over("height", "min"),
            "height_std_60": over("height", "std"),
            "turn_60": over("_turn", "sum"),
        }
    return [expression.alias(name) for name, expression in every.items()]


def _latest() -> list[pl.Expr]:
    """The step before, and when things last happened."""

    def last(name: str, when: pl.Expr) -> pl.Expr:
        return pl.when(when).then(pl.col("step_at")).forward_fill().shift(1).over(*_OF).alias(name)

    return [
        pl.col("speed").shift(1).over(*_OF).alias("speed_last"),
        pl.col("height").shift(1).over(*_OF).alias("height_last"),
        pl.col("load").shift(1).over(*_OF).alias("with_load_last"),
        last("_lifted_at", pl.col("_lift") > 0),
        last("_lowered_at", pl.col("_lower") > 0),
        last("_moved_at", pl.col("_moving") > 0),
    ]


def _since() -> list[pl.Expr]:
    def since(name: str) -> pl.Expr:
        seconds = (pl.col("step_at") - pl.col(name)).dt.total_seconds().cast(pl.Float64)
        return seconds.clip(upper_bound=LONGEST_S).fill_null(LONGEST_S)

    return [
        since("_lifted_at").alias("since_lift"),
        since("_lowered_at").alias("since_lower"),
        since("_moved_at").alias("stopped_since"),
        (pl.col("height_last") - pl.col("height_mean_60")).alias("height_change_60"),
    ]
