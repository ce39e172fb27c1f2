"""Pictures of load sensors, anomalies and safety: frames in, Vega-Lite charts out."""

from __future__ import annotations

from typing import Any

import altair as alt

WIDTH, HEIGHT, MOST = 640, 300, 60  # of machines that a picture shows, the worst ones
VERDICTS = {"ok": "#4c8c4a", "flapping": "#d08a1d", "silent": "#a33b3b"}


def load_sensors(rows: Any) -> dict[str, Any]:
    """`rows`: machine, duty_cycle, toggles_per_h, short_share, verdict of gold.forklift_load_sensor."""
    shown = rows.sort("toggles_per_h", descending=True, nulls_last=True).head(MOST)
    colour = alt.Color("verdict:N", scale=alt.Scale(domain=list(VERDICTS), range=list(VERDICTS.values())), title=None)
    order = shown["machine"].to_list()
    return {
        "toggles": _bars(shown, order, "toggles_per_h", "changes of the load signal in an hour on duty", colour),
        "duty_cycle": _bars(shown, order, "duty_cycle", "share of the time on duty with a load", colour),
    }


def anomalies(counts: Any, hours: Any) -> dict[str, Any]:
    """`counts`: machine, n; `hours`: hour of the day (UTC), n; of gold.forklift_anomalies."""
    shown = counts.sort("n", descending=True).head(MOST)
    by_hour = (
        alt.Chart(hours)
        .mark_bar()
        .encode(x=alt.X("hour:O", title="hour (UTC)"), y=alt.Y("n:Q", title="load changes at speed"))
    )
    return {
        "by_machine": _bars(shown, shown["machine"].to_list(), "n", "load changes at speed", alt.value("#a33b3b")),
        "by_hour": by_hour.properties(width=WIDTH, height=HEIGHT),
    }


def safety(rows: Any) -> dict[str, Any]:
    """`rows`: machine, raised_fast_s, high_moving_s, oscillations_per_h of gold.forklift_safety."""
    found = {}
    for column, title in (
        ("raised_fast_s", "seconds with raised forks at speed"),
        ("high_moving_s", "seconds with high forks while moving"),
        ("oscillations_per_h", "changes of direction of the forks in an hour on duty"),
    ):
        shown = rows.sort(column, descending=True, nulls_last=True).head(MOST)
        colour = alt.Color("height_sensor_broken:N", title="height sensor broken")
        found[column] = _bars(shown, shown["machine"].to_list(), column, title, colour)
    return found


def _bars(rows: Any, order: list[str], column: str, title: str, colour: Any) -> Any:
    chart = (
        alt.Chart(rows)
        .mark_bar()
        .encode(x=alt.X("machine:N", sort=order, title=None), y=alt.Y(f"{column}:Q", title=title), color=colour)
    )
    return chart.properties(width=WIDTH, height=HEIGHT)
