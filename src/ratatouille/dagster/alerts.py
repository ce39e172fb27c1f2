"""Who is told when a run fails: a sensor for run failures, and apprise to carry the message anywhere.

Addresses are apprise URLs (`slack://...`, `mailto://...`, `json://...`), one or several separated by blanks or commas,
in an environment variable: they hold secrets, so they never stand in code, and never reach a log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import dagster as dg

VARIABLE = "RATATOUILLE_ALERTS"
INSTALL = "pip install 'ratatouille-lakehouse[alerts]'"
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
        addresses = _addresses(variable)
        if not addresses:
            return dg.SkipReason(f"Nobody to tell: {variable} is not set.")
        run = context.dagster_run
        title, body = _message(run, context.failure_event.message or "", _steps(context))
        _send(addresses, title, body)
        context.log.info(f"Told {len(addresses)} of {title}")
        return None

    return tell


def _addresses(variable: str) -> list[str]:
    return [one for one in re.split(r"[\s,]+", os.environ.get(variable, "")) if one]


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
    try:
        from apprise import Apprise
    except ImportError as error:
        raise dg.Failure(description=f"apprise is not installed.\n{INSTALL}") from error
    messenger = Apprise()
    unreadable = sum(1 for address in addresses if not messenger.add(address))
    if unreadable:
        raise dg.Failure(description=f"{unreadable} of {len(addresses)} addresses cannot be read by apprise.")
    if not messenger.notify(title=title, body=body):
        raise dg.Failure(
            description=f"The message '{title}' could not be delivered to all of {len(addresses)} addresses."
        )
