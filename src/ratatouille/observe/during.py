"""During a run: what can be told before it ends. Whoever looks sees it: a run itself (watch.py), and `rat alerts tick`.

overdue    a step goes on for twice as long as the longest of those that its asset is compared with, and a minute more
pressure   a sample of the run is beyond `memory_used` or `disk_left`, as of its steps at their end

Each happened at one moment, when the line was crossed, so many looks say it once. It is over when the step has ended
well; what the step says at its end is the same thing, and not told again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratatouille.lake import Journal
from ratatouille.observe.events import DISK, MEMORY, OVERDUE, Event, in_words
from ratatouille.project.records import Observe

# Longer than the longest by so many times, and by so many seconds: nobody is woken for a step of a second that took five.
_WARN, _FAIL, _FLOOR_S = 2.0, 4.0, 60.0


def of_running(journal: Journal, settings: Observe, now: float) -> Iterator[Event]:
    """What is wrong with steps that are being built; nothing of those that are well: their end says so."""
    rows = journal.do(
        "select s.run_id, s.asset, s.started_at from runs r join steps s on s.run_id = r.run_id"
        " where r.status = 'running' and s.status = 'running'"
    )
    for run_id, asset, started_at in rows:
        yield from _overdue(journal, settings, run_id, asset, float(started_at), now)
        yield from _pressure(journal, settings, run_id, asset, float(started_at))


def lines_of(longest: float) -> list[tuple[str, float]]:
    """(level, seconds after which a step is overdue) where the longest before took so many."""
    both = (("warn", _WARN), ("fail", _FAIL))
    return [(level, max(longest * times, longest + _FLOOR_S * times / _WARN)) for level, times in both]


def _overdue(
    journal: Journal, settings: Observe, run_id: str, asset: str, started_at: float, now: float
) -> Iterator[Event]:
    built = [p["seconds"] for p in journal.last_points(asset, settings.window, now) if p["status"] == "built"]
    if len(built) < settings.at_least:
        return
    longest = max(built)
    for level, line in reversed(lines_of(longest)):
        if now - started_at > line:
            said = f"it has been built for {in_words(now - started_at)}; the longest of {len(built)} before took {in_words(longest)}"
            yield Event(OVERDUE, asset, started_at + line, level, said, run_id, next=f"rat runs {run_id}")
            return


def _pressure(journal: Journal, settings: Observe, run_id: str, asset: str, started_at: float) -> Iterator[Event]:
    for about, limits, crossed, said in (
        (MEMORY, settings.memory_used, "memory_share >= ?", "memory is at {0:.0%} of the profile's, and it goes on"),
        (DISK, settings.disk_left, "disk_left_bytes < ?", "{1:,.0f} MB are left on the disk, and it goes on"),
    ):
        for level, limit in (("fail", limits.fail), ("warn", limits.warn)):
            first = _first(journal, run_id, started_at, crossed, limit) if limit else None
            if first is not None:
                words = said.format(first["memory_share"] or 0.0, (first["disk_left_bytes"] or 0) / 1e6)
                yield Event(about, asset, float(first["at"]), level, words, run_id, next=f"rat runs {run_id}")
                break


def _first(journal: Journal, run_id: str, since: float, crossed: str, limit: float) -> Mapping[str, Any] | None:
    """The first sample since then that is beyond the limit."""
    names = ("at", "memory_share", "disk_left_bytes")
    found = journal.do(
        f"select {', '.join(names)} from samples where run_id = ? and at >= ? and {crossed} order by at limit 1",
        (run_id, since, limit),
    )
    return dict(zip(names, found[0], strict=True)) if found else None
