"""Run a command and say what it cost.

wall_s     seconds from start to exit, start-up of the interpreter included: what a person waits for
cpu_s      user + system seconds of the process and of the children it waited for
rss_bytes  peak resident memory: the largest single process of the command

The runner imports nothing big, because a child's peak starts at the size of the process that forked it.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 1800


@dataclass(frozen=True, slots=True)
class Command:
    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    wall_s: float
    cpu_s: float
    rss_bytes: int
    output: str  # stdout and stderr together


class CommandFailed(Exception):
    """A measured command did not exit with 0: nothing it did may count."""


def measure(command: Command, log: Path) -> Measured:
    """Run `command` with its output in `log`. Raises CommandFailed with the end of the output."""
    os.sync()  # dirty pages of the run before must not be written during this one
    with log.open("wb") as sink:
        started = time.perf_counter()
        process = subprocess.Popen(
            list(command.argv),
            cwd=command.cwd,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        alarm = threading.Timer(TIMEOUT_S, process.kill)
        alarm.start()
        # `Popen.wait` would throw the resource usage of exactly this child away.
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        alarm.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    output = log.read_text(errors="replace")
    if process.returncode != 0:
        raise CommandFailed(f"{' '.join(command.argv)}\nexit {process.returncode}\n{output[-3000:]}")
    return Measured(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)
