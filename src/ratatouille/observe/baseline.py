"""What is usual: the middle of what was, and how far from it is far.

usual     the median of the figures before
spread    1.4826 times the median distance from it, as a share of it: the standard deviation of calm noise, whatever the
          outliers are
far       beyond the threshold, beyond SPREADS spreads, and beyond all but the worst of the figures before. So a threshold
          of 10 % on a machine that differs by 20 % from one minute to the next says nothing, and what has happened
          before, now and then, is not news

Plain numbers in, plain numbers out; how often this is wrong is measured by scripts/false_alarms.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from ratatouille.project.records import Limits

SPREADS = 4.0
_TO_SIGMA = 1.4826  # of calm noise the median distance is 0.6745 standard deviations
_FORGIVE_WORST_FROM = 10  # with so many figures the worst of them may be an accident
_AS_BEFORE = 0.05  # so much above the worst of before is as bad as before
# Rows that differ by less than this are as many rows.
SAME_ROWS = 0.10


@dataclass(frozen=True, slots=True)
class Usual:
    median: float
    spread: float  # as a share of the median
    low: float  # all but the lowest are above it
    high: float

    def level(self, now: float, limits: Limits, floor: float) -> str:
        """'' | warn | fail: how far `now` is above. `floor`: a difference that is too small to matter."""
        if now - self.median <= floor or now <= self.high * (1 + _AS_BEFORE):
            return ""
        for level, share in (("fail", limits.fail), ("warn", limits.warn)):
            if share and now > self.median * (1 + max(share, SPREADS * self.spread)):
                return level
        return ""


def usual(before: Sequence[float]) -> Usual:
    """Of at least one figure."""
    middle = median(before)
    spread = _TO_SIGMA * median([abs(one - middle) for one in before]) / middle if middle else 0.0
    ordered = sorted(before)
    worst = 1 if len(ordered) >= _FORGIVE_WORST_FROM else 0
    return Usual(middle, spread, ordered[worst], ordered[len(ordered) - 1 - worst])


def median(values: Sequence[float]) -> float:
    # Not of `statistics`: importing that costs more than a thousand of these.
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def confirmed(levels: Sequence[str]) -> str:
    """The level that every one of the newest steps has reached; suspect if only the last one has."""
    if not levels or not levels[-1]:
        return ""
    if not all(levels):
        return "suspect"
    return "fail" if all(level == "fail" for level in levels) else "warn"


# Time for rows


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that so many rows should take: fixed + slope * rows, learnt where the figures before had differing rows."""

    rows: float  # the median of before
    seconds: float
    fixed: float = 0.0
    slope: float = 0.0

    def expected(self, rows: float) -> float:
        if self.slope:
            return max(self.fixed + self.slope * rows, 1e-9)
        if self.rows and rows > self.rows * (1 + SAME_ROWS):
            return self.seconds * rows / self.rows
        return self.seconds  # fewer rows: how much of the time is fixed is not known, so nothing is expected of them


def pace(rows: Sequence[float], seconds: Sequence[float]) -> Pace:
    """By the median of the slopes between all pairs (Theil and Sen): an outlier does not turn the line."""
    middle, usually = median(rows), median(seconds)
    ordered = sorted(rows)
    quarter = len(ordered) // 4
    if not middle or ordered[len(ordered) - 1 - quarter] - ordered[quarter] < 2 * SAME_ROWS * middle:
        return Pace(middle, usually)
    pairs = list(zip(rows, seconds, strict=True))
    slopes = [(t - s) / (n - r) for i, (r, s) in enumerate(pairs) for n, t in pairs[i + 1 :] if n != r]
    slope = median(slopes)
    if slope <= 0:
        return Pace(middle, usually)
    return Pace(middle, usually, max(0.0, median([s - slope * r for r, s in pairs])), slope)


# Figures that may be too low as well as too high


def strange(now: float, before: Sequence[float], limits: Limits) -> str:
    """'' | warn | fail: whether a count is far from every one of those before.

    The nearest counts, so neither a table that grows nor one that has few rows at weekends is strange.
    """
    away = min(_distance(now, one) for one in before)
    noise = SPREADS * usual(before).spread
    for level, share in (("fail", limits.fail), ("warn", limits.warn)):
        if share and away > log(1 + max(share, noise)):
            return level
    return ""


def _distance(one: float, other: float) -> float:
    """How many times larger or smaller, as a logarithm; of counts, so none is as far from two as two from eight."""
    return abs(log((max(one, 0.0) + 1) / (max(other, 0.0) + 1)))


def moved(now: float, before: Sequence[float], limits: Limits) -> str:
    """'' | warn | fail: whether a share (0 to 1) is so many points from what it was."""
    usually = median(before)
    noise = SPREADS * _TO_SIGMA * median([abs(one - usually) for one in before])
    if min(before) <= now <= max(before):
        return ""
    for level, points in (("fail", limits.fail), ("warn", limits.warn)):
        if points and abs(now - usually) >= max(points, noise) - 1e-9:
            return level
    return ""
