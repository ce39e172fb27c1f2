"""Messages: what a person reads when a rule has something to tell. Templates run in a sandbox, secrets are hidden.

A template may use
    workspace  its name          rule   the rule's name
    problems   what is wrong     recovered   what works again
each of these is a list of: subject, about, level, said, run_id, next, since (UTC), silent, owners, tags
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ratatouille.errors import redact
from ratatouille.observe.states import Told
from ratatouille.project.records import AlertRule, Project

LONGEST_TITLE, LONGEST_BODY = 200, 4000
_LISTED = 20
WORDS = {
    "run_failed": "failed",
    "gate_failed": "was stopped by a gate",
    "gate_warned": "has a warning",
    "quarantine": "kept rows out",
    "regression": "got slower, larger or worse",
    "anomaly": "is unusual",
    "stale": "is stale",
    "memory_pressure": "was short of memory",
    "disk_low": "was short of disk",
    "overdue": "takes far longer than ever",
}


def message(project: Project, rule: AlertRule, lines: Sequence[Told]) -> tuple[str, str]:
    """(title, body). A template that fails is said, and the plain text takes its place: nothing is lost by it."""
    facts = _facts(project, rule, lines)
    title, body, wrong = _plain_title(facts), _plain_body(facts), ""
    if rule.title or rule.message:
        try:
            title = _rendered(rule.title, facts) if rule.title else title
            body = _rendered(rule.message, facts) if rule.message else body
        except Exception as error:  # whatever a person's template may do
            wrong = f"\n\nThe template of the rule {rule.name} failed: {type(error).__name__}: {error}"
    title = " ".join(redact(title).split())[:LONGEST_TITLE]
    return title, redact(body + wrong)[:LONGEST_BODY]


def _facts(project: Project, rule: AlertRule, lines: Sequence[Told]) -> dict[str, Any]:
    told = [(one.recovered, _fact(project, one)) for one in lines]
    return {
        "workspace": project.workspace.name,
        "rule": rule.name,
        "problems": [fact for recovered, fact in told if not recovered],
        "recovered": [fact for recovered, fact in told if recovered],
    }


def _fact(project: Project, one: Told) -> dict[str, Any]:
    asset = project.assets.get(one.subject)
    return {
        "subject": one.subject,
        "about": one.about,
        "level": one.level,
        "said": one.said,
        "run_id": one.run_id,
        "next": one.next,
        "since": datetime.fromtimestamp(one.since, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "silent": one.silent,
        "owners": list(asset.owners) if asset else [],
        "tags": list(asset.tags) if asset else [],
    }


def _rendered(template: str, facts: Mapping[str, Any]) -> str:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(autoescape=False, undefined=StrictUndefined)
    return made.from_string(template).render(facts)


def _plain_title(facts: Mapping[str, Any]) -> str:
    wrong, again = facts["problems"], facts["recovered"]
    first = (wrong or again)[0]
    if len(wrong or again) == 1:
        what = WORDS.get(first["about"], first["about"]) if wrong else f"works again ({_past(first['about'])})"
        return f"{facts['workspace']}: {first['subject']} {what}"
    if wrong:
        return f"{facts['workspace']}: {len(wrong)} problems, first: {first['subject']} {WORDS.get(first['about'], '')}"
    return f"{facts['workspace']}: {len(again)} work again, first: {first['subject']}"


def _past(about: str) -> str:
    return about.replace("_", " ")


def _plain_body(facts: Mapping[str, Any]) -> str:
    parts = []
    for one in facts["problems"][:_LISTED]:
        often = f" ({one['silent']} more times since it was last told)" if one["silent"] else ""
        lines = [f"{one['subject']} {WORDS.get(one['about'], one['about'])}{often}", one["said"]]
        lines += [f"Next: {one['next']}" if one["next"] else "", f"Run {one['run_id']}" if one["run_id"] else ""]
        lines += [f"Owners: {', '.join(one['owners'])}" if one["owners"] else ""]
        parts.append("\n".join(line for line in lines if line))
    for one in facts["recovered"][:_LISTED]:
        parts.append(f"{one['subject']} works again: {_past(one['about'])} since {one['since']}\nIt was: {one['said']}")
    more = len(facts["problems"]) + len(facts["recovered"]) - len(parts)
    return "\n\n".join([*parts, *([f"... and {more} more"] if more else [])])
