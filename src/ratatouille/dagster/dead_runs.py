"""Runs that Dagster believes to be running, and whose process is gone.

Dagster's own launcher starts a run as a process of the code server and asks nobody afterwards whether it still lives:
after a power cut, or a kill of everything, such a run is STARTED for ever, cannot be re-executed from its failure, and
counts against the limit of concurrent runs. Here the process of each run is looked up, and a run without one is marked
failed, so that a retry goes on from the assets that were not finished.

process   the one that wrote the run's first engine event with a process number. A step may be a child of it: a run
          whose own process is gone is dead although an orphaned step still works. What that step publishes, it
          publishes under its lease, so it and its replacement cannot publish both
gone      no process has that number, or it is a zombie, or it began after the event was written (the number was given
          out again, as happens at once in a container that was restarted). The last is told by the clock: one that is
          set forward by more than CLOCK_SLACK_S while a run works makes it look gone
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import closing
from pathlib import Path

import dagster as dg
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.storage.runs import InMemoryRunStorage, SqliteRunStorage
from dagster._core.storage.tags import GRPC_INFO_TAG

CHECK_EVERY_S = 30
CLOCK_SLACK_S = 2.0
SENSOR = "dead_runs"
_FIRST_EVENTS = 50  # engine events that are looked at; a run worker reports its process number before anything else
_CONNECT_TIMEOUT_S = 2.0
_IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def dead_runs_sensor() -> dg.SensorDefinition:
    """A sensor that marks the dead runs of its own code location every CHECK_EVERY_S seconds; on by default.

    A sensor is evaluated by the code server: on the machine, or in the container, where the runs are processes.
    """

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=CHECK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Marks runs whose process is gone as failed, so that they can go on from where they were.",
    )
    def look_for_dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        here = context.code_location_origin
        dead = mark_dead_runs(context.instance, None if here is None else here.location_name)
        return dg.SkipReason(f"Marked as failed: {', '.join(dead)}" if dead else "Every run in progress has a process.")

    return look_for_dead_runs


def mark_dead_runs(instance: dg.DagsterInstance, location: str | None = None) -> list[str]:
    """Mark each run whose process is gone as failed (as canceled, where somebody had asked for that); their ids.

    `location`: only runs of this code location. Runs that another launcher started (Kubernetes, Docker) are left to
    it, and so are runs of other machines that share a history on PostgreSQL.
    """
    if not isinstance(instance.run_launcher, dg.DefaultRunLauncher) or not Path("/proc/self/stat").exists():
        return []
    dead = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS)):
        if location not in (None, _location_of(run)) or not _is_of_this_machine(instance, run):
            continue
        reason = _why_dead(instance, run)
        if reason and _mark(instance, run.run_id, reason):
            dead.append(run.run_id)
    return dead


def _location_of(run: dg.DagsterRun) -> str:
    origin = run.remote_job_origin
    return origin.location_name if origin else ""


def _is_of_this_machine(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    # SQLite files are used by one machine.
    if isinstance(instance.run_storage, SqliteRunStorage | InMemoryRunStorage):
        return True
    return bool(_server_of(run).get("host") == socket.gethostname())


def _why_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Why the run cannot be alive; '' when it may be."""
    found = _process_of(instance, run.run_id)
    if found is not None:
        pid, seen_at = found
        if _lives(pid, seen_at):
            return ""
        return f"The process of this run (number {pid}) is gone: it was killed, or the machine was restarted."
    # Given to a code server, but no process of its own yet: that comes, if the code server is there.
    server = _server_of(run)
    if not server or _answers(server):
        return ""
    return "The code server that this run was given to is gone, and had not started a process for it."


def _mark(instance: dg.DagsterInstance, run_id: str, reason: str) -> bool:
    # It may have ended a moment ago: a process that is done is gone too.
    run = instance.get_run_by_id(run_id)
    if run is None or run.status not in _IN_PROGRESS:
        return False
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, reason)
        return True
    step = "What it had published stands. A re-execution from failure goes on from there."
    # This reason is what `run_retries` tells apart from an asset that failed.
    instance.report_run_failed(run, f"{reason} {step}", JobFailureData(None, RunFailureReason.UNEXPECTED_TERMINATION))
    return True


def _process_of(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """The process number of the run, and when that was written (Unix time)."""
    first = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, limit=_FIRST_EVENTS)
    for record in first.records:
        entry = record.event_log_entry
        event = entry.dagster_event
        # Events of a step may come from a process of its own.
        if event is None or event.step_key is not None:
            continue
        pid = event.engine_event_data.metadata.get("pid")
        if isinstance(pid, dg.TextMetadataValue) and (pid.text or "").isdigit():
            return int(pid.text or ""), entry.timestamp
    return None


def _lives(pid: int, seen_at: float) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    if fields[0] in "ZX":
        return False
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    started_at = booted_at + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return started_at <= seen_at + CLOCK_SLACK_S


def _server_of(run: dg.DagsterRun) -> dict[str, object]:
    """Where the code server of the run listens, as the launcher noted it: host, and port or socket."""
    noted = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    return noted if isinstance(noted, dict) else {}


def _answers(server: dict[str, object]) -> bool:
    path, host, port = server.get("socket"), server.get("host"), server.get("port")
    kind = socket.AF_UNIX if path else socket.AF_INET
    address = str(path) if path else (str(host), int(str(port)))
    with closing(socket.socket(kind, socket.SOCK_STREAM)) as link:
        link.settimeout(_CONNECT_TIMEOUT_S)
        try:
            link.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # not an answer, not a refusal: better to wait than to be wrong
    return True
