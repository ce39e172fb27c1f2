"""Who is told: the faces that `observe/alerts.py` has in Dagster.

alerts_sensor      follows the rules under `alerts:` in workspace.yaml, for whatever is in journal and ledger. It comes by
                   itself where there are rules
alert_on_failure   for jobs of plain Dagster, of which the lake knows nothing: tells each failed run once

Addresses are apprise URLs (`slack://...`, `mailto://...`, `json://...`), one or several separated by blanks or commas,
in an environment variable: they hold secrets, so they never stand in code, and never reach a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from ratatouille import project as files
from ratatouille.dagster.keys import Prefix, word
from ratatouille.errors import RatError, redact
from ratatouille.observe.alerts import tick
from ratatouille.observe.channels import addresses_in, send
from ratatouille.project.records import Project

VARIABLE = "RATATOUILLE_ALERTS"
LOOK_EVERY_S = 60
_LONGEST = 1500  # characters of an error; a message is no log


def alert_on_failure(
    *,
    name: str = "alert_on_failure",
    variable: str = VARIABLE,
    jobs: Sequence[Any] | None = None,
    status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """A sensor that sends a message for each failed run of `jobs` (none: all of this code location).

    Each failure is told once. Without addresses in the environment the sensor skips and says so; a message that cannot
    be delivered is an error of the tick, and does not touch the run.
    """

    @dg.run_failure_sensor(
        name=name,
        monitored_jobs=list(jobs) if jobs is not None else None,
        default_status=status,
        description=f"Sends a message when a run fails, to the addresses in {variable}.",
    )
    def tell(context: dg.RunFailureSensorContext) -> Any:
        addresses = addresses_in(variable)
        if not addresses:
            return dg.SkipReason(f"Nobody to tell: {variable} is not set.")
        run = context.dagster_run
        title, body = _message(run, context.failure_event.message or "", _steps(context))
        _send(addresses, title, body)
        context.log.info(f"Told {len(addresses)} of {title}")
        return None

    return tell


def _steps(context: dg.RunFailureSensorContext) -> list[tuple[str, str]]:
    """(step, what it said) of each that failed."""
    found = []
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        said = getattr(data.user_failure_data, "description", None) or (data.error.message if data.error else "")
        found.append((str(event.step_key), str(said)))
    return found


def _message(run: Any, said: str, steps: Sequence[tuple[str, str]]) -> tuple[str, str]:
    title = f"{run.job_name} failed"
    lines = [f"{step}: {text}" for step, text in steps] or [said]
    return title, "\n\n".join([*lines, f"Run {run.run_id}"])[:_LONGEST]


def _send(addresses: Sequence[str], title: str, body: str) -> None:
    error = send(addresses, title, redact(body))
    if error:
        raise dg.Failure(description=f"The message '{title}' was not delivered: {error}")


def alerts_sensor(root: Path, project: Project, prefix: Prefix = ()) -> dg.SensorDefinition:
    """The sensor `<workspace>_alerts`: follows the rules of workspace.yaml, as `rat alerts tick` does. On by default."""

    @dg.sensor(
        name=word("_".join([*(prefix or (project.workspace.name,)), "alerts"])),
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the channels of workspace.yaml what its rules are about: dead runs and stale tables too.",
    )
    def tell(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            looked = tick(files.load(root))
        except RatError as error:
            return dg.SkipReason(f"Nothing could be looked at: {error.what}")
        for name, why in looked.delivered.failed:
            context.log.warning(f"The channel {name} was not told, and is tried again: {why}")
        told = sum(len(lines) for _, lines in looked.told)
        return dg.SkipReason(
            f"Told {told} things in {len(looked.delivered.sent)} messages." if told else "Nothing to tell."
        )

    return tell
