"""Pictures of a session, from frames to PNG: how lap times are spread, and how the field comes apart."""

from typing import Any

import altair as alt
import polars
import vl_convert

WIDTH, HEIGHT = 760, 420


def lap_times(laps: Any, title: str) -> bytes:
    """A box for each driver, fastest median first. `laps`: name_acronym, team_colour, lap_duration in seconds."""
    order = laps.group_by("name_acronym").agg(polars.col("lap_duration").median()).sort("lap_duration")
    chart = (
        alt.Chart(laps, title=title)
        .mark_boxplot(size=14)
        .encode(
            x=alt.X("name_acronym:N", sort=order["name_acronym"].to_list(), title=None),
            y=alt.Y("lap_duration:Q", scale=alt.Scale(zero=False), title="lap time (s)"),
            color=_team_colours(laps),
        )
    )
    return _png(chart)


def gaps(laps: Any, title: str) -> bytes:
    """The gap to the first at the start of each lap. `laps`: name_acronym, team_colour, lap_number, gap in seconds."""
    chart = (
        alt.Chart(laps, title=title)
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X("lap_number:Q", title="lap"),
            y=alt.Y("gap:Q", scale=alt.Scale(reverse=True), title="behind the first (s)"),
            color=_team_colours(laps),
            detail="name_acronym:N",
        )
    )
    return _png(chart)


def _team_colours(laps: Any) -> Any:
    """Each driver in the colour of the team."""
    drivers = laps.select("name_acronym", "team_colour").unique(maintain_order=True)
    colours = [f"#{colour}" for colour in drivers["team_colour"].to_list()]
    scale = alt.Scale(domain=drivers["name_acronym"].to_list(), range=colours)
    return alt.Color("name_acronym:N", scale=scale, legend=alt.Legend(title=None, columns=1))


def _png(chart: Any) -> bytes:
    return bytes(vl_convert.vegalite_to_png(chart.properties(width=WIDTH, height=HEIGHT).to_json(), scale=1.0))
