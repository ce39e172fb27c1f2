"""`rat alerts`: what is wrong, who was told, and a look for cron."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

if TYPE_CHECKING:
    from ratatouille.observe.alerts import Looked, Overview

EXAMPLES = """
rat alerts

rat alerts tick

rat alerts test

rat alerts test team --json
"""


class What(StrEnum):
    show = "show"
    tick = "tick"
    test = "test"


def alerts(
    ctx: typer.Context,
    what: Annotated[
        What,
        typer.Argument(
            metavar="WHAT",
            help="show: what is wrong now and which messages wait. tick: look now, for dead runs and stale tables too,"
            " and tell; for cron. test: send a message to each channel.",
        ),
    ] = What.show,
    channels: Annotated[
        list[str] | None, typer.Argument(metavar="CHANNELS", help="Of test: only these channels.")
    ] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> int:
    """Tell people what went wrong, and that it works again.

    The rules are under `alerts:` in workspace.yaml. A run tells by itself what it saw; `rat alerts tick` notices what no
    run can: runs that were killed, tables that nobody refreshes, messages that a channel did not take. Exit code 1: a
    channel did not take a message.
    """
    from ratatouille import project as files
    from ratatouille.engine import as_json as mapping
    from ratatouille.observe import alerts as observed

    project = files.load(options.root_of(ctx, workspace))
    if what is What.test:
        answers = observed.test(project, tuple(channels or ()))
        if as_json:
            p.print_json([{"channel": name, "error": error} for name, error in answers])
        else:
            _print_answers(answers)
        return 1 if any(error for _, error in answers) else 0
    if what is What.tick:
        looked = observed.tick(project)
        p.print_json(mapping(looked)) if as_json else _print_looked(looked)
        return 1 if looked.delivered.failed or looked.delivered.given_up else 0
    found = observed.overview(project)
    p.print_json(mapping(found)) if as_json else _print_overview(found)
    return 0


def _print_answers(answers: list[tuple[str, str]]) -> None:
    if not answers:
        p.say("No channel is declared. Add one: `alerts: {channels: {team: ${TEAM_CHANNEL}}}` in workspace.yaml")
        return
    rows = [[name, "failed" if error else "done", error] for name, error in answers]
    p.print_table(["channel", "status", "why"], rows, status="status", spare=["why"])


def _print_looked(looked: Looked) -> None:
    for run_id in looked.dead_runs:
        p.say(f"Run {run_id} is dead: its process is gone.")
    for problem in looked.problems:
        p.say(f"{p.paint('Warning:', 'yellow')} {p.printable(problem)}")
    for rule, lines in looked.told:
        for line in lines:
            what = "works again" if line.recovered else line.about.replace("_", " ")
            p.say(p.printable(f"{rule}: {line.subject}: {what}{': ' if line.said else ''}{line.said}"))
    for name, why in looked.delivered.failed:
        p.say(f"{p.paint('Warning:', 'yellow')} {p.printable(f'the channel {name} was not told: {why}')}")
    sent, waiting = len(looked.delivered.sent), looked.delivered.waiting
    if sent or waiting or looked.delivered.given_up:
        gone = f", {looked.delivered.given_up} given up" if looked.delivered.given_up else ""
        p.say(f"{p.plural(sent, 'message')} sent, {waiting} waiting{gone}.")
    elif not looked.told and not looked.dead_runs:
        p.say("Nothing to tell.")


def _print_overview(found: Overview) -> None:
    if not found.rules:
        p.say("No rule is declared: nobody is told of anything. See `alerts:` in docs/observe.md")
        return
    if found.wrong:
        p.print_table(
            ["asset", "rule", "about", "level", "since (UTC)", "told", "what"],
            [
                [one.subject, one.rule, one.about, one.level, p.when(one.since), p.when(one.told_at or None), one.said]
                for one in found.wrong
            ],
            spare=["told", "level"],
        )
    else:
        p.say(f"Nothing is wrong, as far as {p.plural(len(found.rules), 'rule')} can tell.")
    for problem in found.problems:
        p.say(f"{p.paint('Warning:', 'yellow')} {p.printable(problem)}")
    for one in found.waiting:
        p.say(
            p.printable(
                f"Waits for {one.channel}, after {p.plural(one.tries, 'try', 'tries')}: {one.title} ({one.error})"
            )
        )
