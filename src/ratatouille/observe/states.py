"""States: what is wrong now as far as each rule is concerned, and what of it was told.

open       something is wrong; it is told when it begins, when it gets worse, and once in `repeat` while it lasts
cool-down  for so long after it was told the same thing of the same asset is not told again, also if it ended meanwhile
recovered  it is over; told if its beginning was, and the rule asks for it

Pure but for the two statements at the ends: read what is known, write what has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields, replace

from ratatouille.lake.journal.books import Do
from ratatouille.observe.events import QUARANTINE, RECOVERED, Event
from ratatouille.project.records import AlertRule

_TABLE = "alert_states"
_WITH_LEVELS = ("regression", "anomaly", "stale", "memory_pressure", "disk_low", "overdue")
_LASTS_BY_ITSELF = ("stale", "overdue")  # nothing new happens while it lasts


@dataclass(frozen=True, slots=True)
class State:
    rule: str
    about: str
    subject: str
    level: str = ""
    said: str = ""
    since: float = 0.0
    seen_at: float = 0.0  # the newest event that was counted
    told_at: float = 0.0
    silent: int = 0  # events since then that were not told
    is_open: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """One line of a message."""

    about: str
    subject: str
    level: str
    said: str
    run_id: str
    next: str
    since: float
    recovered: bool = False
    silent: int = 0  # times that it happened since it was told last


def read(do: Do, rules: Iterable[AlertRule]) -> dict[tuple[str, str, str], State]:
    names = [rule.name for rule in rules]
    columns = ", ".join(one.name for one in fields(State))
    marks = ", ".join("?" * len(names))
    rows = do(f"select {columns} from {_TABLE} where rule in ({marks})", names) if names else []
    return {(row[0], row[1], row[2]): State(*row) for row in rows}


def write(do: Do, states: Iterable[State]) -> None:
    names = [one.name for one in fields(State)]
    changed = ", ".join(f"{name} = excluded.{name}" for name in names[3:])
    for state in states:
        do(
            f"insert into {_TABLE} ({', '.join(names)}) values ({', '.join('?' * len(names))})"
            f" on conflict (rule, about, subject) do update set {changed}",
            astuple(state),
        )


def concerns(rule: AlertRule, about: str) -> bool:
    """`recovered` alone is about everything."""
    others = [one for one in rule.when if one != RECOVERED]
    return about in others or not others


def tells_of_the_beginning(rule: AlertRule) -> bool:
    return any(one != RECOVERED for one in rule.when)


def is_wrong(rule: AlertRule, event: Event) -> bool:
    if event.about == QUARANTINE:
        return event.share > rule.over
    return event.reaches(rule.level) if event.about in _WITH_LEVELS else bool(event.level)


def after(state: State, rule: AlertRule, event: Event, now: float) -> tuple[State, Told | None]:
    """The state after an event, and what is to be told of it."""
    wrong = is_wrong(rule, event)
    if event.at < state.seen_at or (event.at == state.seen_at and wrong == bool(state.is_open)):
        if not (wrong and state.is_open and event.about in _LASTS_BY_ITSELF):
            return state, None
        return _lasting(state, rule, event, now, new=False)
    state = replace(state, seen_at=event.at)
    if not wrong:
        return _ended(state, rule, event, now) if state.is_open else (state, None)
    if state.is_open:
        return _lasting(state, rule, event, now, new=True)
    begun = replace(state, is_open=1, since=event.at, level=event.level, said=event.said)
    if not tells_of_the_beginning(rule):
        return replace(begun, told_at=now), None
    if state.told_at and now - state.told_at < rule.cooldown_s:
        return replace(begun, silent=state.silent + 1), None
    return replace(begun, told_at=now, silent=0), _line(begun, event, state.silent)


def _lasting(state: State, rule: AlertRule, event: Event, now: float, *, new: bool) -> tuple[State, Told | None]:
    worse = event.level == "fail" and state.level == "warn"
    known = replace(state, level=event.level, said=event.said, silent=state.silent + int(new))
    due = rule.repeat_s and now - state.told_at >= max(rule.repeat_s, rule.cooldown_s)
    if tells_of_the_beginning(rule) and (worse or due):
        return replace(known, told_at=now, silent=0), _line(known, event, known.silent)
    return known, None


def _ended(state: State, rule: AlertRule, event: Event, now: float) -> tuple[State, Told | None]:
    closed = replace(state, is_open=0, level="")
    was_told = state.told_at >= state.since or not tells_of_the_beginning(rule)
    if RECOVERED not in rule.when or not was_told:
        return closed, None
    return replace(closed, silent=0), Told(
        state.about, state.subject, "", state.said, event.run_id, "", state.since, recovered=True, silent=state.silent
    )


def _line(state: State, event: Event, silent: int) -> Told:
    return Told(
        event.about, event.subject, event.level, event.said, event.run_id, event.next, state.since, silent=silent
    )


def without_doubles(lines: Sequence[Told]) -> list[Told]:
    """A gate that fails fails its run as well: a rule about both says it once."""
    by_gate = {(one.subject, one.recovered) for one in lines if one.about == "gate_failed"}
    return [one for one in lines if one.about != "run_failed" or (one.subject, one.recovered) not in by_gate]
