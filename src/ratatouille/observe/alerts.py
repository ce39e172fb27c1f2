"""Alerts: look at what happened since the last look, decide what is told, and tell it.

Everything that may be told stands in journal and ledger, so it does not matter who looks: a run at its end, cron, a
systemd timer, a Dagster sensor, or several of them. What was decided is written in one transaction; what was decided
and not delivered is delivered by the next look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial

from ratatouille import project as files
from ratatouille.engine import look as engine_look
from ratatouille.engine.workbench import journal_path
from ratatouille.errors import RatError, RequestError, near_miss
from ratatouille.lake import Entry, Journal, ledger, open_journal
from ratatouille.lake.journal.books import Do
from ratatouille.observe import findings, messages, outbox, states
from ratatouille.observe.channels import addresses_in, send
from ratatouille.observe.during import of_running
from ratatouille.observe.events import GATE_FAILED, RECOVERED, RUN_FAILED, Event, of_freshness, of_runs, of_step
from ratatouille.observe.states import State, Told
from ratatouille.project.records import AlertRule, Project

# Steps of other processes may be written a moment after the time that they carry.
OVERLAP_S = 120.0
# A run that was killed ended at its last heartbeat; it is found when somebody looks.
DEAD_SINCE_S = 86_400.0
_LOOKED, _BEGAN = "looked", "began"


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look came to. `told` by rule; `problems` are rules that cannot be followed."""

    events: int = 0
    told: tuple[tuple[str, tuple[Told, ...]], ...] = ()
    delivered: outbox.Delivered = field(default_factory=outbox.Delivered)
    dead_runs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def tick(project: Project, *, now: float | None = None, budget_s: float = 30.0) -> Looked:
    """A look from outside of any run: dead runs and stale tables too."""
    workspace = project.workspace
    if not workspace.alerts.rules and not journal_path(workspace).exists():
        return Looked()
    with open_journal(journal_path(workspace)) as journal:
        dead = journal.reap()
        heads = _heads(project) if workspace.alerts.rules else {}
        looked = look(project, journal, heads=heads, now=now, budget_s=budget_s)
    return Looked(looked.events, looked.told, looked.delivered, tuple(dead), looked.problems)


def _heads(project: Project) -> Mapping[str, Entry]:
    """The current versions of assets that say how old one may be."""
    watched = [name for name, asset in project.assets.items() if asset.freshness]
    if not watched:
        return {}
    with engine_look.reading_lake(project.workspace) as lake:
        if lake is None:
            return {}
        with lake.session("looking at how old tables are") as session:
            return ledger.heads(session, watched)


def look(
    project: Project,
    journal: Journal,
    *,
    heads: Mapping[str, Entry] | None = None,
    since: float | None = None,
    now: float | None = None,
    budget_s: float = 10.0,
) -> Looked:
    """Decide and tell. `since`: where the very first look begins, instead of now: what was before is not told."""
    rules = project.workspace.alerts.rules
    if not rules:
        return Looked()
    moment = journal.now() if now is None else now
    events = list(_events(project, journal, heads or {}, moment if since is None else since, moment))
    chosen, problems = _chosen(project, rules, {event.subject for event in events})
    told = journal.alone(partial(_decide, project, events, chosen, moment))
    delivered = outbox.deliver(journal, project.workspace.alerts.channels, now=moment, budget_s=budget_s, sender=send)
    return Looked(len(events), tuple(told.items()), delivered, problems=tuple(problems))


def _events(
    project: Project, journal: Journal, heads: Mapping[str, Entry], first: float, now: float
) -> Iterator[Event]:
    marks = {name: float(at) for name, at in journal.do("select name, at from alert_marks")}
    began = marks.get(_BEGAN, first)
    since = max(marks.get(_LOOKED, first) - OVERLAP_S, began - 1e-3)
    for point in journal.points_since(since):
        error = _error_of(journal, point) if point["status"] == "failed" else {}
        asset = project.assets.get(point["asset"])
        if asset is not None and error.get("error") == "TransientError" and point["attempt"] <= asset.retries.max:
            continue  # it is tried again
        yield from of_step(point, findings.examine_point(journal, project.workspace.observe, point), error)
    yield from of_running(journal, project.workspace.observe, now)
    yield from of_runs(journal, max(since - DEAD_SINCE_S, began - OVERLAP_S))
    for name, head in heads.items():
        yield of_freshness(project.assets[name], head, now)


def _error_of(journal: Journal, point: findings.Point) -> Mapping[str, str]:
    found = journal.do(
        "select record from steps where run_id = ? and asset = ? and attempt = ?",
        (point["run_id"], point["asset"], point["attempt"]),
    )
    return (json.loads(found[0][0] or "{}").get("error") or {}) if found else {}


def _chosen(
    project: Project, rules: Sequence[AlertRule], subjects: set[str]
) -> tuple[list[tuple[AlertRule, set[str]]], list[str]]:
    """Each rule with the subjects that it is about, and what is wrong with rules."""
    found, problems = [], []
    for rule in rules:
        if not rule.assets:
            found.append((rule, subjects))
            continue
        mine = {one for one in subjects if one not in project.assets and fnmatchcase(one, rule.assets)}
        try:
            mine |= subjects & set(files.select(project, [rule.assets]))
        except RatError as error:
            if not mine:
                problems.append(f"the rule {rule.name} is about nothing: {error.what}")
        found.append((rule, mine))
    return found, problems


def _decide(
    project: Project, events: Sequence[Event], chosen: Sequence[tuple[AlertRule, set[str]]], now: float, do: Do
) -> dict[str, tuple[Told, ...]]:
    """What is told, by rule: written down as told, and into the outbox, at once."""
    known = states.read(do, [rule for rule, _ in chosen])
    found: dict[str, tuple[Told, ...]] = {}
    changed: dict[tuple[str, str, str], State] = {}
    for rule, subjects in chosen:
        lines: list[Told] = []
        for event in events:
            if event.subject not in subjects or not states.concerns(rule, event.about):
                continue
            key = (rule.name, event.about, event.subject)
            before = known.get(key)
            if before is None and not states.is_wrong(rule, event):
                continue
            after, line = states.after(before or State(*key), rule, event, now)
            if after != before:
                known[key] = changed[key] = after
            if line is not None:
                lines.append(line)
        if lines := _settled(lines):
            found[rule.name] = tuple(lines)
            title, body = messages.message(project, rule, lines)
            for channel in rule.to:
                outbox.put(do, rule.name, channel, title, body, now)
    states.write(do, changed.values())
    for name in (_BEGAN, _LOOKED):
        keep = "do nothing" if name == _BEGAN else "do update set at = excluded.at"
        do(f"insert into alert_marks (name, at) values (?, ?) on conflict (name) {keep}", (name, now))
    return found


def _settled(lines: Sequence[Told]) -> list[Told]:
    """Of each thing the last word: what began and ended between two looks is told as over."""
    last = {(one.about, one.subject): one for one in lines}
    return states.without_doubles(list(last.values()))


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that a channel has not taken yet; after outbox.TRIES tries it never will."""

    channel: str
    rule: str
    title: str
    tries: int
    error: str


@dataclass(frozen=True, slots=True)
class Overview:
    rules: tuple[AlertRule, ...]
    wrong: tuple[State, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    problems: tuple[str, ...] = ()  # rules that are about nothing


def overview(project: Project) -> Overview:
    """What is wrong now as far as each rule is concerned, and what could not be told."""
    rules = project.workspace.alerts.rules
    problems = tuple(_chosen(project, rules, {*project.assets, *project.natives})[1])
    with engine_look.reading_journal(project.workspace) as journal:
        if journal is None or not rules:
            return Overview(rules, problems=problems)
        known = states.read(journal.do, rules)
        rows = journal.do(
            "select channel, rule, title, tries, coalesce(error, '') from alert_outbox where sent_at is null"
            " order by made_at"
        )
    wrong = sorted((one for one in known.values() if one.is_open), key=lambda one: (-one.since, one.subject, one.rule))
    by_gate = {(one.rule, one.subject) for one in wrong if one.about == GATE_FAILED}
    wrong = [one for one in wrong if one.about != RUN_FAILED or (one.rule, one.subject) not in by_gate]
    return Overview(rules, tuple(wrong), tuple(Waiting(*row) for row in rows), problems)


def test(project: Project, channels: Sequence[str] = ()) -> list[tuple[str, str]]:
    """A message to each channel (all, or those named); (channel, '' or why it failed)."""
    known = project.workspace.alerts.channels
    for name in channels:
        if name not in known:
            raise RequestError(
                f"There is no channel called '{name}'.{near_miss(name, known)}",
                where="alerts.channels in workspace.yaml",
                next="rat alerts test",
            )
    found = []
    for name in channels or known:
        variable = known[name]
        title = f"{project.workspace.name}: a test of the channel {name}"
        error = send(addresses_in(variable), title, "Nothing has happened. This is what `rat alerts test` sends.")
        found.append((name, f"{variable} is not set" if error == "no address is set" else error))
    return found


__all__ = ["RECOVERED", "Looked", "look", "test", "tick"]
