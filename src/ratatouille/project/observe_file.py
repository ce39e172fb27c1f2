"""`observe:` and `alerts:` of workspace.yaml as records, and what is wrong with them that no schema can say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from ratatouille.errors import near_miss
from ratatouille.project.records import AlertRule, Alerts, Limits, Observe
from ratatouille.project.units import variable_named


def observed(settings: Mapping[str, Any]) -> Observe:
    """What is said, and the defaults for what is not."""
    default, said = Observe(), dict[str, Any]()
    for one in fields(Observe):
        usual = getattr(default, one.name)
        given = settings[one.name.removesuffix("_s")]
        if isinstance(usual, Limits):
            both = {name: getattr(usual, name) if given[name] is None else given[name] for name in ("warn", "fail")}
            said[one.name] = Limits(**both)
        else:
            said[one.name] = usual if given is None else given
    return Observe(**said)


def alerted(settings: Mapping[str, Any]) -> Alerts:
    rules = tuple(
        AlertRule(
            name=name,
            when=tuple(rule["when"]),
            to=tuple(rule["to"]),
            assets=rule["assets"],
            level=rule["level"],
            over=rule["over"],
            cooldown_s=rule["cooldown"],
            repeat_s=rule["repeat"],
            title=rule["title"],
            message=rule["message"],
        )
        for name, rule in settings["rules"].items()
    )
    return Alerts({name: variable_named(said) for name, said in settings["channels"].items()}, rules)


def wrong_alerts(settings: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(where, what) of each mistake."""
    for name, said in settings["channels"].items():
        if not variable_named(said):
            where = ("alerts", "channels", name)
            yield (
                where,
                "an address holds secrets, so it does not belong into a file: name its variable, like ${TEAM_CHANNEL}",
            )
    for name, rule in settings["rules"].items():
        at = ("alerts", "rules", name)
        if not rule["when"]:
            yield (*at, "when"), "a rule needs at least one condition"
        if not rule["to"]:
            yield (*at, "to"), "a rule tells somebody: name a channel"
        for channel in rule["to"]:
            if channel not in settings["channels"]:
                yield (*at, "to"), f"there is no channel called '{channel}'.{near_miss(channel, settings['channels'])}"
        for key in ("title", "message"):
            if problem := _wrong_template(rule[key]):
                yield (*at, key), f"the template cannot be read: {problem}"


def _wrong_template(text: str) -> str:
    if not text:
        return ""
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        ImmutableSandboxedEnvironment(autoescape=False).parse(text)
    except TemplateSyntaxError as error:
        return f"{error.message} (line {error.lineno})"
    return ""
