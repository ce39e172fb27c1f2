"""Faults for the crash tests: processes that are killed, and system calls that fail, at a chosen moment.

child    a forked process that runs one function of crash_worker.py; it waits until it is told to go
point    the n-th call of one kind by one thread, counted from `go`, that touches the workspace
fault    what strace does at a point: SIGKILL, EIO, ENOSPC

RATATOUILLE_TRIALS=N asks for about N times the trials of the everyday suite; every test prints what it did.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crash_worker
import pytest

WORKER = Path(__file__).with_name("crash_worker.py")
# Every call by which a file comes to be, changes, becomes durable, moves or goes.
CALLS = (
    "openat,write,pwrite64,pwritev,writev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,"
    "mkdirat,ftruncate,fallocate,chmod,fchmod,fchmodat,flock,close"
)
# strace replaces the failing call, so a "failed" close would leave the file open, which Linux never does.
NEVER_FAIL = ("close", "flock")
_LINE = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<rest>.*)$")


@dataclass(frozen=True)
class Point:
    call: str
    number: int | str  # `5+`: the fifth and all that follow
    rest: str  # the arguments, as strace shows them

    def __str__(self) -> str:
        return f"{self.call} #{self.number}: {self.rest[:120]}"


@dataclass
class Child:
    nursery: Nursery
    pid: int
    result: Path
    log: Path
    tracer: subprocess.Popen[str] | None = None

    def go(self) -> Child:
        self.nursery.ask(do="go", pid=self.pid)
        return self

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> dict[str, Any]:
        """What the function gave: {ok}, {error: four lines}, {crash: traceback} or {killed: signal}."""
        status = self.nursery.ask(do="wait", pid=self.pid)["status"]
        if self.tracer is not None:
            self.tracer.wait(timeout=30)
            if self.tracer.stderr is not None:
                self.tracer.stderr.close()
        if self.result.exists() and (text := self.result.read_text(encoding="utf-8")):
            return dict(json.loads(text))
        return {"killed": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"crash": self.log.read_text()}


@dataclass
class Nursery:
    """Children of one warm process: a trial costs tens of milliseconds instead of a Python start."""

    folder: Path
    server: subprocess.Popen[str]
    born: int = 0

    def ask(self, **said: Any) -> dict[str, Any]:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(said) + "\n")
        self.server.stdin.flush()
        return dict(json.loads(self.server.stdout.readline()))

    def spawn(self, call: str, *args: Any) -> Child:
        self.born += 1
        result, log = self.folder / f"{self.born}.json", self.folder / f"{self.born}.log"
        plain = [str(a) if isinstance(a, Path) else a for a in args]
        pid = self.ask(do="spawn", result=str(result), log=str(log), call=call, args=plain)["pid"]
        return Child(self, pid, result, log)

    def do(self, call: str, *args: Any) -> dict[str, Any]:
        return self.spawn(call, *args).go().wait()


@dataclass
class Lab:
    """One test's folder and its faults."""

    folder: Path
    nursery: Nursery
    figure: Callable[..., None]

    def copy(self, base: Path, name: str = "trial") -> Path:
        trial = self.folder / name
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(base, trial, symlinks=True)
        # A catalog that was moved is rewritten when it is opened; that is not what is measured here.
        crash_worker.settle(trial)
        return trial

    def trace(self, child: Child, *options: str) -> Path:
        """Attach strace to a waiting child; returns where its log goes."""
        log = self.folder / "strace.log"
        log.unlink(missing_ok=True)
        command = ["strace", "-f", "-y", "-s", "0", "-o", str(log), "-e", "signal=none", *options, "-p", str(child.pid)]
        child.tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert child.tracer.stderr is not None
        said = child.tracer.stderr.readline()
        if "attached" not in said:
            child.kill()
            pytest.skip(f"strace may not attach here: {said.strip()}. Allow it with: sysctl kernel.yama.ptrace_scope=0")
        return log

    def points(self, root: Path, call: str, *args: Any) -> list[Point]:
        """Every system call of a faultless trial that touches the workspace, in order."""
        child = self.nursery.spawn(call, root, *args)
        log = self.trace(child, "-e", f"trace={CALLS}")
        answer = child.go().wait()
        assert "ok" in answer, answer
        return read_calls(log, root)

    def with_fault(self, root: Path, fault: str, point: Point, call: str, *args: Any) -> tuple[dict[str, Any], bool]:
        """Run `call` with `fault` at `point`; returns its answer and whether the fault hit the workspace."""
        child = self.nursery.spawn(call, root, *args)
        inject = f"inject={point.call}:{fault}:when={point.number}"
        log = self.trace(child, "-e", f"trace={CALLS}", "-e", inject)
        answer = child.go().wait()
        hit = [line for line in log.read_text(errors="replace").splitlines() if "(INJECTED)" in line]
        if "killed" in answer:
            return answer, True
        return answer, any(str(root) in line for line in hit)


def read_calls(log: Path, root: Path) -> list[Point]:
    """Every traced call that names something below `root`, of all threads, in the order in which they began."""
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        counts[match["pid"], match["call"]] += 1
        if str(root) in match["rest"]:
            number = counts[match["pid"], match["call"]]
            found.append(Point(match["call"], number, match["rest"].replace(str(root), "")))
    return found


def some_of(points: Sequence[Point], wanted: int, seed: int) -> list[Point]:
    """About `wanted` of the points, spread evenly; the seed moves the grid."""
    step = max(1.0, len(points) / wanted)
    start = (seed * 0.618) % step
    return [points[int(start + i * step)] for i in range(int((len(points) - start - 1e-9) / step) + 1)]


def trials(everyday: int) -> int:
    """How many trials: RATATOUILLE_TRIALS times those of every day."""
    return everyday * int(os.environ.get("RATATOUILLE_TRIALS", "1"))
