"""Dagster's web server and daemon on one workspace, started together and stopped together.

`dagster dev` does the work, as a process with a group of its own; what it starts (web server, daemon, code servers,
runs) stays in that group, so that nothing is left when this ends, however it ends: Ctrl-C, a signal, kill -9.
This module imports no Dagster until Dagster is on its way up.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ratatouille.dagster.instance import home_of, need_dagster, prepare_home
from ratatouille.errors import RatError, RequestError
from ratatouille.handle import VARIABLE

PORT = 3030
HOST = "127.0.0.1"
MODULE = "ratatouille.definitions"
LOCK = "rat-dev.lock"
LOOK_EVERY_S = 0.2
STOP_S = 15.0  # for the web server and the daemon to end what they are at
LEAVE_S = 3.0  # for code servers, which end when they notice that nobody needs them
TERMINATE_S = 10.0  # for runs in progress to say that they were interrupted
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to look, when it listens everywhere


@dataclass(frozen=True, slots=True)
class Served:
    """A Dagster that answers. `dead_runs`: runs of before that were found dead and marked as failed."""

    address: str
    home: Path
    root: Path
    dead_runs: tuple[str, ...] = ()


def serve(
    root: Path,
    ready: Callable[[Served], None],
    *,
    host: str = HOST,
    port: int = PORT,
    home: Path | None = None,
    verbose: bool = False,
) -> None:
    """Run Dagster on the workspace at `root` until Ctrl-C or SIGTERM; `ready` is called once, when it answers.

    `port` 0 takes any free one. RequestError: no Dagster installed, a busy port, another `rat dev` on the same home.
    """
    need_dagster()
    port = _free_port(host, port)
    folder = prepare_home(home_of(root, home))
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with _alone_in(folder, address), _signals_as_interrupts() as asked:
        had_history = (folder / "history").is_dir()
        process = _start(root, folder, host, port, verbose)
        try:
            dead = _mark_dead_runs(folder) if had_history else ()
            _wait_until(lambda: _answers(host, port), process, asked)
            ready(Served(address, folder, root, dead))
            _wait_until(lambda: False, process, asked)
        except KeyboardInterrupt:
            pass
        finally:
            _stop(process)


def _free_port(host: str, port: int) -> int:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            what, then = f"Port {port} is in use by another program.", f"rat dev --port {port + 1}"
        elif error.errno == errno.EACCES:
            what, then = f"Port {port} needs more rights than you have.", f"rat dev --port {PORT}"
        else:
            what, then = f"{host} is not an address of this machine: {error.strerror}", f"rat dev --host {HOST}"
        raise RequestError(what, where=f"{host}:{port}", state="Dagster was not started.", next=then) from error


@contextmanager
def _alone_in(home: Path, address: str) -> Iterator[None]:
    """Two daemons on one history would both start what a schedule asks for."""
    with (home / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise RequestError(
                "rat dev is running on this workspace already.",
                where=file.read().strip() or str(home),
                state="It goes on; nothing was started.",
                next="Open that address, or take another home: rat dev --home PATH --port N",
            ) from error
        file.truncate(0)
        file.write(f"{address} (process {os.getpid()})\n")
        file.flush()
        yield


@contextmanager
def _signals_as_interrupts() -> Iterator[list[int]]:
    """SIGTERM and a closed terminal end it as Ctrl-C does; what nohup has switched off stays off.

    Gives the signals that came. Python drops an exception that is raised while it clears an object away, and with it
    the Ctrl-C; so whoever waits looks at the list, too.
    """
    asked: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    # A thread that starts a program may have held signals back, and then the program would never hear of them.
    held = signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield asked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(root: Path, home: Path, host: str, port: int, verbose: bool) -> subprocess.Popen[bytes]:
    level = "info" if verbose else "error"
    words = [
        *(sys.executable, "-W", "ignore:Function `dev_command` is superseded", "-m", "dagster", "dev"),
        *("-m", MODULE, "-d", str(root), "--host", host, "--port", str(port)),
        *("--log-level", level, "--code-server-log-level", level),
    ]
    env = {**os.environ, VARIABLE: str(root), "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}
    return subprocess.Popen(
        words,
        cwd=root,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=2,  # what is said there is for a person; standard output is for `--json`
        start_new_session=True,
        preexec_fn=_end_when_asked_and_with_the_parent,
    )


def _end_when_asked_and_with_the_parent() -> None:
    # A shell that starts something in the background switches SIGINT off, and Dagster would take SIGTERM for the same.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT))


def _mark_dead_runs(home: Path) -> tuple[str, ...]:
    from dagster import DagsterInstance

    from ratatouille.dagster.dead_runs import mark_dead_runs

    with DagsterInstance.from_config(str(home)) as instance:
        return tuple(mark_dead_runs(instance))


def _wait_until(there: Callable[[], bool], process: subprocess.Popen[bytes], asked: Sequence[int]) -> None:
    """Until it is `there`. KeyboardInterrupt when it was asked to end; RatError when Dagster ends by itself."""
    while not there():
        if asked:
            raise KeyboardInterrupt
        try:
            code = process.wait(LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            continue
        raise RatError(
            f"Dagster ended by itself, with exit code {code}.",
            where="Its own messages are above.",
            state="What was published before stands.",
            next="rat dev --verbose",
        )


def _answers(host: str, port: int) -> bool:
    link = http.client.HTTPConnection(_EVERY_ADDRESS.get(host, host), port, timeout=5)
    try:
        link.request("GET", "/server_info")
        return "dagster_version" in json.loads(link.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        link.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: asked first, told then, killed when it must be. A second Ctrl-C kills at once."""
    group = process.pid
    try:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        if not _is_empty(group, LEAVE_S):
            _signal_group(group, signal.SIGTERM)
            _is_empty(group, TERMINATE_S)
    except KeyboardInterrupt:
        pass
    finally:
        _signal_group(group, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # an interrupt may have left its lock taken
            process.wait(LEAVE_S)
        _is_empty(group, LEAVE_S)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _is_empty(group: int, within_s: float) -> bool:
    """Whether no process of the group is left, at the latest after `within_s` seconds."""
    until = time.monotonic() + within_s
    while members := living_members(group):
        if time.monotonic() > until:
            return False
        time.sleep(min(LOOK_EVERY_S, 0.05 * len(members)))
    return True


def living_members(group: int) -> list[int]:
    """The processes of a group that live; one that only waits to be asked how it ended does not."""
    members = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, found, *_ = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(found) == group and state not in "ZX":
                members.append(int(entry.parent.name))
    return members
