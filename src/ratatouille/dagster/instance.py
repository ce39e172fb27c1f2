"""The Dagster home of `rat dev`: the folder with Dagster's history, logs and settings.

home       `.rat/dagster/` of the workspace, private to its owner; history survives a restart
settings   `dagster.yaml` in it. Ours as long as nobody has edited it: its first line carries a checksum of the rest.
           What a person has changed stays as it is, whatever a newer version would write

A team's settings, with PostgreSQL below them, are in `deploy/`. This module imports no Dagster: a home can be made, and
a missing package reported, before Dagster's two seconds of imports.
"""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

from ratatouille.errors import LakeError, RequestError

HOME = Path(".rat") / "dagster"
SETTINGS = "dagster.yaml"
INSTALL = "pip install 'ratatouille-lakehouse[dagster]'"
_PACKAGES = ("dagster", "dagster_webserver")
_MARK = "# Written by rat dev, checksum "

SETTINGS_TEXT = """\
# Edit this file freely: rat dev replaces it only while the checksum above fits the rest.
# Every key: https://docs.dagster.io/deployment/oss/dagster-yaml

# Nothing is sent anywhere, and nothing asks to.
telemetry:
  enabled: false
nux:
  enabled: false

# Neither `storage` nor `compute_logs` is set: Dagster keeps both in this folder then, as SQLite and text files.
# They move with it. For PostgreSQL take deploy/dagster.yaml.

# A run worker that does not start, or does not stop, is given up after a minute or two, not after three.
# Runs whose process is gone are found by rat: when rat dev starts, and by the sensor dead_runs every 30 seconds.
run_monitoring:
  enabled: true
  start_timeout_seconds: 120
  cancel_timeout_seconds: 60
  poll_interval_seconds: 15

# A run that was killed goes on by itself, from the assets that were not finished. A run in which an asset failed
# does not: a gate that has refused rows refuses them again. An asset that talks to a network has `retries` of its own
# for that. Two and no more, for a run that kills its worker each time (out of memory).
# Another number for one job: its tag dagster/max_retries.
run_retries:
  enabled: true
  max_retries: 2
  retry_on_asset_or_op_failure: false

concurrency:
  # A run is a process of a few hundred megabytes before it reads a row; more runs wait in the queue.
  runs:
    max_concurrent_runs: 4
  # No limit for writers is needed: publishing takes turns by itself, also with a `rat run` in a shell, which no pool
  # can see. Pools are for what is scarce outside: `pool: an_api` on assets, and `dagster instance concurrency set
  # an_api 1`. They count assets, not whole runs.
  pools:
    granularity: op

# Days. Ticks that did nothing are most of the history, and the least of its use. -1 keeps for ever.
retention:
  schedule:
    purge_after_days: {skipped: 7, started: 30, failure: 90, success: 90}
  sensor:
    purge_after_days: {skipped: 2, started: 7, failure: 30, success: 90}
  auto_materialize:
    purge_after_days: {skipped: 2, started: 7, failure: 30, success: 90}

# One slow sensor or schedule does not make the others wait.
sensors:
  use_threads: true
  num_workers: 4
schedules:
  use_threads: true
  num_workers: 4

code_servers:
  local_startup_timeout: 300
  reload_timeout: 300
"""


def need_dagster() -> None:
    """RequestError with the command that helps where Dagster or its web server is not installed."""
    missing = [package.replace("_", "-") for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise RequestError(
            f"rat dev needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            where="Everything else of rat works without.",
            next=INSTALL,
        )


def home_of(root: Path, chosen: Path | None = None) -> Path:
    """The Dagster home of the workspace at `root`, absolute; `chosen` is another place for it."""
    return Path(os.path.abspath(chosen)) if chosen else root / HOME


def prepare_home(home: Path) -> Path:
    """Make the folder if it is not there, for its owner alone, and its settings if they are missing or outdated.

    The folder, as given. LakeError when it cannot be written.
    """
    try:
        home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.mkdir(exist_ok=True, mode=0o700)
        if home.stat().st_mode & 0o077 and home.parts[-2:] == HOME.parts:
            home.chmod(0o700)  # a place that somebody chose keeps the mode that they gave it
        _write_settings(home / SETTINGS)
    except OSError as error:
        raise LakeError(
            f"The Dagster home cannot be written: {error.strerror}",
            where=str(error.filename or home),
            state="Dagster was not started.",
            next="rat dev --home PATH, with a folder that you may write to",
        ) from error
    return home


def _write_settings(path: Path) -> None:
    wanted = _MARK + _checksum(SETTINGS_TEXT) + "\n" + SETTINGS_TEXT
    if path.exists():
        found = path.read_text(encoding="utf-8")
        if found == wanted or not _is_ours(found):
            return
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    beside.write_text(wanted, encoding="utf-8")
    beside.rename(path)


def _is_ours(text: str) -> bool:
    first, _, rest = text.partition("\n")
    return first == _MARK + _checksum(rest)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
