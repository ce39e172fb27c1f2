"""The command of the document: sessions of OpenF1 into files.

    python -m pipelines.f1.extract_sessions                                  # the newest finished session
    python -m pipelines.f1.extract_sessions --mode latest --num-sessions 3
    python -m pipelines.f1.extract_sessions --mode year --year 2024 --refresh
    python -m pipelines.f1.extract_sessions --mode manual --session-key 9531 --entities laps,pit,stints
    python -m pipelines.f1.extract_sessions --naming document                # into local_test_data/

Addresses and secrets come from the environment: F1_API_URL, OPENF1_TOKEN, OPENF1_USERNAME and OPENF1_PASSWORD.
Exit codes: 0 done, 1 the API or the disk failed, 2 the request is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from .extract import MODES, Extraction, extract_sessions
from .fetching import ENTITIES, Step
from .openf1 import BadRequest, OpenF1, OpenF1Error, Settings, tell_of_retries

FOLDERS = {"session": Path("landing/f1"), "document": Path("local_test_data")}
SAID_EVERY_S = 1.0


class _Parser(argparse.ArgumentParser):
    """An error of four lines instead of the usage."""

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"The command is wrong: {message}.", where=self.prog, next=f"{self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    found = _Parser(
        prog="python -m pipelines.f1.extract_sessions", description="Extract sessions of OpenF1 into files."
    )
    found.add_argument("--mode", choices=MODES, default="latest")
    found.add_argument("--num-sessions", type=int, default=1, help="for latest and oldest (default 1)")
    found.add_argument("--year", type=int, help="for the mode year; limits latest and oldest if given")
    found.add_argument(
        "--session-key", type=int, action="append", default=[], help="for the mode manual, again for more"
    )
    found.add_argument("--entities", help=f"separated by commas: {','.join(ENTITIES)}")
    found.add_argument("--folder", type=Path, help="where to (default landing/f1, or local_test_data)")
    found.add_argument("--naming", choices=tuple(FOLDERS), default="session", help="document: one flat folder")
    found.add_argument("--gzip", action="store_true", help="write .json.gz")
    found.add_argument("--refresh", action="store_true", help="read again what is there, and report corrections")
    found.add_argument("--settle-hours", type=float, default=24, help="re-read sessions that ended less long ago")
    found.add_argument("--workers", type=int, default=3, help="requests at the same time (default 3)")
    found.add_argument("--api-url", help="instead of F1_API_URL")
    found.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    tell_of_retries(lambda said: sys.stderr.write(f"{said}\n"))
    try:
        asked = parser().parse_args(arguments)
        entities = asked.entities.split(",") if asked.entities else None
        with OpenF1(Settings.from_environment(base_url=asked.api_url)) as client:
            done = extract_sessions(
                client,
                asked.folder or FOLDERS[asked.naming],
                mode=asked.mode,
                sessions=asked.num_sessions,
                year=asked.year,
                session_keys=asked.session_key,
                entities=entities,
                naming=asked.naming,
                compressed=asked.gzip,
                refresh=asked.refresh,
                settle=timedelta(hours=asked.settle_hours),
                workers=asked.workers,
                progress=progress_on_stderr(),
            )
    except OpenF1Error as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(
            "Stopped by hand.\nthe session that was being fetched\nWhat came stays aside.\nRun the same command again to go on.\n"
        )
        return 1
    sys.stdout.write(_as_json(done) if asked.json else _as_text(done))
    return 0


def progress_on_stderr(every_s: float = SAID_EVERY_S) -> Callable[[Step], None]:
    """Lines worth keeping always, a window's progress now and then."""
    last = 0.0

    def say(step: Step) -> None:
        nonlocal last
        if step.final or time.monotonic() - last >= every_s:
            last = time.monotonic()
            sys.stderr.write(f"{step}\n")

    return say


def _as_json(done: Extraction) -> str:
    return json.dumps(asdict(done), ensure_ascii=False, indent=2) + "\n"


def _as_text(done: Extraction) -> str:
    windows = done.windows
    return (
        f"{done.sessions_extracted} sessions extracted, {done.files_count} files, {sum(done.rows.values()):,} rows"
        f" ({done.requests} requests, {done.retries} retries, {windows.fetched} windows with rows,"
        f" {windows.empty} empty, {windows.split} halved)\n"
    )


if __name__ == "__main__":
    sys.exit(main())
