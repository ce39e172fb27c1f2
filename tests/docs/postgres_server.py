"""A real PostgreSQL for a test: a cluster of its own in a temporary folder, on a free loopback port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

INSTALL = "apt-get install postgresql"
UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL refuses to run as root
UP_WITHIN_S = 60


@dataclass(frozen=True)
class Postgres:
    port: int
    restart: Callable[[signal.Signals], None]  # ends the server by this signal, and starts it again
    user: str = "dagster"
    password: str = "not a secret: it lives for one test"
    database: str = "postgres"
    host: str = "127.0.0.1"


def with_debian_binaries(path: str) -> str:
    """`PATH` with the folders where Debian keeps the server's programs, the newest first."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    return os.pathsep.join([path, *map(str, folders)])


@contextmanager
def a_postgres(need_tool: Callable[[str, str], str]) -> Iterator[Postgres]:
    programs = {name: need_tool(name, INSTALL) for name in ("initdb", "postgres")}
    # Not below pytest's own folder, into which an unprivileged user may not look.
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    as_user = _somebody_unprivileged(folder)
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        before = (folder / "log").stat().st_size if (folder / "log").exists() else 0
        with (folder / "log").open("ab") as log:
            server = subprocess.Popen(
                [programs["postgres"], "-D", str(data), "-p", str(made.port), "-h", made.host, "-k", str(folder), "-F"],
                stdout=log, stderr=log, cwd=folder, **as_user,
            )  # fmt: skip
        running[:] = [server]
        _wait_until_it_answers(server, folder / "log", before)

    def restart(by: signal.Signals) -> None:
        running[0].send_signal(by)
        running[0].wait(30)
        until = time.monotonic() + UP_WITHIN_S
        while True:  # what it has forked may need a moment to see that it is gone, and no second one starts before
            try:
                return start()
            except AssertionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    made = Postgres(_free_port(), restart)
    data, secret = folder / "data", folder / "password"
    secret.write_text(made.password)
    try:
        subprocess.run(
            [programs["initdb"], "-D", str(data), "-U", made.user, "-A", "scram-sha-256", "--pwfile", str(secret)],
            check=True, capture_output=True, cwd=folder, timeout=120, **as_user,
        )  # fmt: skip
        try:
            start()
            yield made
        finally:
            running[0].send_signal(signal.SIGINT)  # at once, whoever is still connected
            running[0].wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _somebody_unprivileged(folder: Path) -> dict[str, str]:
    if os.getuid() != 0:
        return {}
    name = next(name for name in UNPRIVILEGED if _exists(name))
    shutil.chown(folder, name)
    return {"user": name}


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(server: subprocess.Popen[bytes], log: Path, before: int) -> None:
    """Until it says so after the first `before` bytes of its log."""
    until = time.monotonic() + UP_WITHIN_S
    while "ready to accept connections" not in (said := log.read_bytes()[before:].decode(errors="replace")):
        assert server.poll() is None and time.monotonic() < until, said
        time.sleep(0.1)
