"""Findings: what is unusual about a step, compared with earlier steps of the same asset.

point        the short row that the journal keeps of each finished step (lake/journal/points.py)
comparable   a point of the same asset, mode and profile, that was built
regression   slower for as many rows, more memory, lower quality
anomaly      rows, nulls, different values or extremes that its own history does not explain
pressure     memory or disk near its end
level        suspect (seen once, nobody is told) | warn | fail

Everything comes from what runs wrote down. Nothing here reads a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from ratatouille.lake import Journal
from ratatouille.observe import baseline
from ratatouille.project.records import Limits, Observe

# Differences that nobody would notice.
FLOOR_S = 0.5
FLOOR_BYTES = 64_000_000
_STAGES = ("render", "build", "gate", "seal", "publish")  # not wait: it is for others
# So many steps that were found too slow, or strange, are no part of what is usual. One more, and they are what is usual.
_MEMORY = {"regression": 10, "anomaly": 3}
Flagged = Mapping[tuple[str, str], str]  # (run, figure) -> level of what was found
# A distribution is strange when its extremes leave the range of before by so many times its width.
_OUTSIDE = 2.0
# Beyond these the limits in workspace.yaml are asked.
_CALM_SHARE, _ROOMY_BYTES = 0.5, 10**10
_MANY = Limits(2.0, 0.0)  # different values, or bytes per row: three times as many, or as few

Point = Mapping[str, Any]
_NOTHING: Mapping[tuple[str, str], str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Finding:
    """`value` and `usual` are in the unit of the figure: seconds, bytes, rows, or a share."""

    asset: str
    run_id: str
    kind: str  # regression | anomaly | pressure
    figure: str  # seconds, seconds of gate, memory, quality, rows, nulls of email, ...
    level: str  # suspect | warn | fail
    value: float
    usual: float
    said: str


def examine(journal: Journal, settings: Observe, assets: Sequence[str], run_id: str = "") -> list[Finding]:
    """What is unusual about the newest step of each asset; of a run, about its last attempt at each.

    A few queries by index for each asset, and nothing else. The findings are kept for who looks at the run.
    """
    found: list[Finding] = []
    for asset in assets:
        newest = journal.last_points(asset, 3)
        mine = next((one for one in newest if run_id in ("", one["run_id"])), None)
        if mine is not None:
            found += examine_point(journal, settings, mine, newest)
    return found


def examine_point(journal: Journal, settings: Observe, point: Point, newest: Sequence[Point] = ()) -> list[Finding]:
    """What is unusual about one point. `newest` are some of its asset, where they are known already."""
    near = newest or journal.last_points(point["asset"], 3, point["at"] + 1e-6)
    before = next((one for one in near if one["at"] < point["at"] and _is_comparable(one, point)), None)
    if before is not None and _is_plain(point, before):
        return []
    earlier = journal.last_points(point["asset"], settings.window + settings.confirm + 5, point["at"])
    found = of_point(point, earlier, settings, flagged(journal, point["asset"]))
    keep(journal, found)
    return found


def _is_plain(now: Point, before: Point) -> bool:
    """A small step that is like the one before it: nothing could be found, and most of a thousand tables are so."""
    measured = now["measured"]
    return (
        now["status"] == "built"
        and now["seconds"] < FLOOR_S
        and now["rows_written"] == before["rows_written"]
        and not now["rows_kept_out"]
        and not measured.get("columns")
        and now["peak_memory_bytes"] - before["peak_memory_bytes"] <= FLOOR_BYTES
        and not any(check[3] is not None for check in now["checks"].values())
        and (measured.get("memory_share") or 0.0) < _CALM_SHARE
        and (measured.get("disk_left_bytes") or _ROOMY_BYTES) >= _ROOMY_BYTES
    )


def flagged(journal: Journal, asset: str) -> Flagged:
    """What was found about the last steps of an asset."""
    rows = journal.do("select run_id, figure, level from findings where asset = ? order by at desc limit 300", [asset])
    return {(run_id, figure): level for run_id, figure, level in rows}


def of_point(now: Point, earlier: Sequence[Point], settings: Observe, known: Flagged = _NOTHING) -> list[Finding]:
    """What is unusual about `now`; `earlier` points of its asset, newest first, and what is `known` about them."""
    found = list(_pressure(now, settings))
    if now["status"] == "built":
        same = [one for one in earlier if _is_comparable(one, now)][: settings.window + settings.confirm - 1]
        found += _regressions(now, same, settings, known)
        found += _quality(now, same, settings, known)
        found += _anomalies(now, same, settings, known)
    return found


def _usual_ones(points: Sequence[Point], kind: str, figure: str, known: Flagged, skip: int = 0) -> list[Point]:
    """Without the streak that goes on: the newest points, as far back as all of them were found too slow, or strange.

    Otherwise the second slow step would be as usual as the first. What came and went stays: it happens now and then, and
    is no news. A streak of more than _MEMORY is the new usual. `points` newest first; the first `skip` are left out.
    """
    streak = next(
        (place for place, point in enumerate(points) if not known.get((point["run_id"], figure))), len(points)
    )
    return list(points[max(skip, streak) if streak <= _MEMORY[kind] else skip :])


def _is_comparable(one: Point, now: Point) -> bool:
    return one["status"] == "built" and (one["mode"], one["profile"]) == (now["mode"], now["profile"])


# Regressions


def _regressions(now: Point, same: Sequence[Point], settings: Observe, known: Flagged) -> Iterator[Finding]:
    """Slower, or with more memory. The newest `confirm` points are each compared with those before all of them."""
    recent = [now, *same[: settings.confirm - 1]][::-1]
    if len(recent) < settings.confirm:
        return
    before = _usual_ones(same, "regression", "seconds", known, settings.confirm - 1)
    if len(before) >= settings.at_least:
        whole = _slower("seconds", busy_seconds, recent, before, settings)
        if whole is not None:
            yield whole
            for stage in _STAGES:
                found = _slower(f"seconds of {stage}", _stage(stage), recent, before, settings)
                if found is not None:
                    yield found
    before = _usual_ones(same, "regression", "memory", known, settings.confirm - 1)
    if len(before) < settings.at_least:
        return
    memory = [float(one["peak_memory_bytes"]) for one in before]
    usually = baseline.usual(memory)
    levels = [usually.level(float(one["peak_memory_bytes"]), settings.memory, FLOOR_BYTES) for one in recent]
    if level := baseline.confirmed(levels):
        value = float(now["peak_memory_bytes"])
        said = f"{_size(value)} of memory, usually {_size(usually.median)} ({_more(value, usually.median)})"
        yield _finding(now, "regression", "memory", level, value, usually.median, said + _cause(now, before))


def _slower(
    figure: str,
    seconds_of: Callable[[Point], float],
    recent: Sequence[Point],
    before: Sequence[Point],
    settings: Observe,
) -> Finding | None:
    """Each point's seconds against what so many rows should take."""
    now = recent[-1]
    if seconds_of(now) < FLOOR_S:
        return None
    usually = baseline.pace([_rows(one) for one in before], [seconds_of(one) for one in before])
    ratios = baseline.usual([seconds_of(one) / max(usually.expected(_rows(one)), 1e-9) for one in before])
    levels = []
    for one in recent:
        expected = max(usually.expected(_rows(one)), 1e-9)
        levels.append(ratios.level(seconds_of(one) / expected, settings.time, FLOOR_S / expected))
    level = baseline.confirmed(levels)
    if not level:
        return None
    value, expected = seconds_of(now), usually.expected(_rows(now)) * ratios.median
    for_rows = (
        f" for {_rows(now):,.0f} rows" if abs(_rows(now) - usually.rows) > baseline.SAME_ROWS * usually.rows else ""
    )
    said = f"{value:.1f} s{_of(figure)}, usually {expected:.1f} s{for_rows} ({_more(value, expected)})"
    return _finding(now, "regression", figure, level, value, expected, said + _cause(now, before))


def busy_seconds(point: Point) -> float:
    """What the step worked, without what it waited for others; of a point without stages all of it."""
    stages = point["measured"].get("stages") or {}
    return float(sum(stages.get(name, 0.0) for name in _STAGES)) or float(point["seconds"])


def _stage(name: str) -> Callable[[Point], float]:
    return lambda point: float((point["measured"].get("stages") or {}).get(name, 0.0))


def _rows(point: Point) -> float:
    """How much there was to do."""
    return float(max(point["rows_in"], point["rows_written"]))


def _of(figure: str) -> str:
    stage = figure.partition(" of ")[2]
    return f" in {stage}" if stage else ""


def _cause(now: Point, before: Sequence[Point]) -> str:
    """What changed since the points before: what a person would look at first."""
    changed = [
        word
        for word in ("code", "config")
        if now["measured"].get(word) and now["measured"][word] != before[0]["measured"].get(word)
    ]
    return f"; its {' and '.join(changed)} changed since" if changed and before[0]["measured"].get("code") else ""


# Quality


def _quality(now: Point, same: Sequence[Point], settings: Observe, flags: Flagged) -> Iterator[Finding]:
    for figure, of in (("quality", _passing_share), *((f"check {n}", _score(n)) for n in now["checks"])):
        before = _usual_ones(same[: settings.window], "regression", figure, flags)
        value, known = of(now), [one for one in (of(point) for point in before) if one is not None]
        if value is None or len(known) < settings.at_least:
            continue
        level, usually = baseline.moved(value, known, settings.quality), baseline.median(known)
        if level and value < usually:
            what = "of the rows passed" if figure == "quality" else "in the check " + figure.removeprefix("check ")
            said = f"{value:.1%} {what}, usually {usually:.1%} ({100 * (value - usually):+.1f} points)"
            yield _finding(now, "regression", figure, level, value, usually, said + _cause(now, before))


def _passing_share(point: Point) -> float | None:
    seen = point["rows_in"] or (point["rows_written"] + point["rows_kept_out"])
    return max(0.0, 1 - point["rows_kept_out"] / seen) if seen else None


def _score(name: str) -> Callable[[Point], float | None]:
    """The value of a check that measures a share, as completeness and success rates do."""

    def score(point: Point) -> float | None:
        value = (point["checks"].get(name) or [None] * 4)[3]
        return float(value) if value is not None and 0 <= value <= 1 else None

    return score


# Anomalies


def _anomalies(now: Point, same: Sequence[Point], settings: Observe, known: Flagged) -> Iterator[Finding]:
    before = _usual_ones(same[: settings.window], "anomaly", "rows", known)
    if len(before) < settings.at_least:
        return
    rows = [float(one["rows_written"]) for one in before]
    value = float(now["rows_written"])
    if level := baseline.strange(value, rows, settings.rows):
        usually = baseline.median(rows)
        said = f"{value:,.0f} rows written, usually {usually:,.0f} ({_more(value, usually)})"
        yield _finding(now, "anomaly", "rows", level, value, usually, said)
    columns: Mapping[str, Mapping[str, float]] = now["measured"].get("columns") or {}
    for name, facts in columns.items():
        past = [one for one in (point["measured"].get("columns", {}).get(name) for point in before) if one]
        if len(past) >= settings.at_least:
            yield from _column(now, name, facts, past, settings)


def _column(
    now: Point, name: str, facts: Mapping[str, float], past: Sequence[Mapping[str, float]], settings: Observe
) -> Iterator[Finding]:
    shares = [one["nulls"] / one["rows"] for one in past if one.get("rows")]
    if facts.get("rows") and len(shares) >= settings.at_least:
        share, usually = facts["nulls"] / facts["rows"], baseline.median(shares)
        if level := baseline.moved(share, shares, settings.nulls):
            said = f"{share:.1%} of {name} is null, usually {usually:.1%}"
            yield _finding(now, "anomaly", f"nulls of {name}", level, share, usually, said)
    for figure, word, of in (
        ("distinct", "different values", _distinct),
        ("bytes per row", "bytes for each row", _bytes_per_row),
    ):
        value, known = of(facts), [one for one in (of(p) for p in past) if one is not None]
        if value is None or len(known) < settings.at_least:
            continue
        if level := baseline.strange(float(value), [float(one) for one in known], _MANY):
            usually = baseline.median(known)
            said = f"{value:,.4g} {word} of {name}, usually {usually:,.4g}"
            yield _finding(now, "anomaly", f"{figure} of {name}", level, float(value), float(usually), said)
    yield from _extremes(now, name, facts, past)


def _distinct(facts: Mapping[str, float]) -> float | None:
    return facts.get("distinct")


def _bytes_per_row(facts: Mapping[str, float]) -> float | None:
    return facts["bytes"] / facts["rows"] if facts.get("rows") else None


def _extremes(
    now: Point, name: str, facts: Mapping[str, float], past: Sequence[Mapping[str, float]]
) -> Iterator[Finding]:
    """A smallest or largest value far outside of all that was: a unit that changed, a date of 2099, a sentinel."""
    if "min" not in facts or any("min" not in one for one in past):
        return
    low, high = min(one["min"] for one in past), max(one["max"] for one in past)
    room = _OUTSIDE * max(high - low, abs(high), abs(low))
    for figure, value, edge, outside in (
        ("smallest", facts["min"], low, facts["min"] < low - room),
        ("largest", facts["max"], high, facts["max"] > high + room),
    ):
        if outside:
            said = f"the {figure} {name} is {value:,.6g}, and was {edge:,.6g} at most" if figure == "largest" else ""
            said = said or f"the {figure} {name} is {value:,.6g}, and was {edge:,.6g} at least"
            yield _finding(now, "anomaly", f"{figure} of {name}", "warn", value, edge, said)


# Pressure


def _pressure(now: Point, settings: Observe) -> Iterator[Finding]:
    share = float(now["measured"].get("memory_share") or 0.0)
    if level := over(share, settings.memory_used):
        said = f"memory was at {share:.0%} of the profile's: chunks were halved, and steps waited for each other"
        yield _finding(now, "pressure", "memory used", level, share, settings.memory_used.warn, said)
    left = now["measured"].get("disk_left_bytes") or 0
    if left and (level := below(left, settings.disk_left)):
        spilled = now["measured"].get("spill_bytes") or 0
        also = f", {_size(spilled)} were spilled" if spilled else ""
        said = f"{_size(left)} were left on the disk{also}"
        yield _finding(now, "pressure", "disk left", level, left, settings.disk_left.warn, said)


def over(value: float, limits: Limits) -> str:
    return next((n for n, share in (("fail", limits.fail), ("warn", limits.warn)) if share and value >= share), "")


def below(value: float, limits: Limits) -> str:
    return next((n for n, least in (("fail", limits.fail), ("warn", limits.warn)) if value < least), "")


# Keeping them


def keep(journal: Journal, found: Sequence[Finding]) -> None:
    for one in found:
        row = asdict(one)
        names = ", ".join(row)
        journal.do(
            f"insert into findings ({names}, at) values ({', '.join('?' * len(row))}, ?)"
            " on conflict (asset, run_id, figure) do update set level = excluded.level, said = excluded.said,"
            " value = excluded.value, usual = excluded.usual",
            [*row.values(), journal.now()],
        )


def kept(journal: Journal, run_id: str) -> list[Finding]:
    """What was found about a run."""
    names = ("asset", "run_id", "kind", "figure", "level", "value", "usual", "said")
    rows = journal.do(f"select {', '.join(names)} from findings where run_id = ? order by asset, figure", [run_id])
    return [Finding(*row) for row in rows]


def _finding(now: Point, kind: str, figure: str, level: str, value: float, usually: float, said: str) -> Finding:
    return Finding(now["asset"], now["run_id"], kind, figure, level, float(value), float(usually), said)


def _more(value: float, usually: float) -> str:
    if not usually:
        return "there were none"
    ratio = value / usually
    return f"{ratio - 1:+.0%}" if ratio < 10 else f"{ratio:,.0f} times as much"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
