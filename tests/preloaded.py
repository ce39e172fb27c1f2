"""dbt that has been imported once: a server that forks a process for each dbt command of the product.

Importing dbt takes 1.5 s of CPU, and tests call it a hundred times. The command, its environment, its folder and its
pipe are what the product gave; the process is a fork instead of a new Python. Tests of how that Python is started and
ended (children of this process, kills, secrets through a pipe) do without.

    WarmDbt      the server, seen from the tests; `popen` takes the place of subprocess.Popen
    main         the server itself: one connection for each command, which gets the process number and the exit code
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_MESSAGE_BYTES = 1 << 20


class WarmDbt:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        # No "dbt" in its command line: a test looks for dbt among the children of this process.
        self._address = str(Path(self._folder.name) / "commands")
        environment = {**os.environ, "PYTHONSAFEPATH": "1", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
        self._server = subprocess.Popen(
            [sys.executable, __file__, self._address], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def popen(
        self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], pass_fds: Sequence[int], **options: Any
    ) -> Warm:
        assert list(words[:2]) == [sys.executable, "-c"] and options.pop("start_new_session") and not pass_fds
        assert (options.pop("stdin"), options.pop("stdout")) == (subprocess.DEVNULL, subprocess.PIPE)
        assert options.pop("stderr") == subprocess.STDOUT and options == {"text": True, "errors": "replace"}
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.connect(self._address)
        reader, writer = os.pipe()
        order = {"code": words[2], "words": list(words[3:]), "cwd": str(cwd), "env": dict(env)}
        socket.send_fds(link, [json.dumps(order).encode()], [writer])
        os.close(writer)
        return Warm(link, reader)

    def close(self) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()
        self._folder.cleanup()


class Warm:
    """What process._run needs of a Popen."""

    def __init__(self, link: socket.socket, reader: int) -> None:
        self._link, self.stdout = link, os.fdopen(reader, encoding="utf-8", errors="replace")
        self.pid, self._code = int(link.recv(100)), None

    def wait(self) -> int:
        if self._code is None:
            self._code = int(self._link.recv(100))
            self._link.close()
        return self._code

    def poll(self) -> int | None:
        if self._code is None and not select.select([self._link], [], [], 0)[0]:
            return None
        return self.wait()


def main(address: str) -> None:
    import dbt.adapters.duckdb
    import dbt.cli.main  # noqa: F401  # loaded is what they are for

    import ratatouille.lake.dbt_plugin  # noqa: F401

    asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asked.bind(address)
    asked.listen()
    ended, at_end = socket.socketpair()
    ended.setblocking(False)
    at_end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(at_end.fileno())
    running: dict[int, socket.socket] = {}
    os.write(1, b"ready\n")
    while True:
        readable = select.select([0, asked, ended], [], [])[0]
        if 0 in readable:
            return
        if asked in readable:
            link = asked.accept()[0]
            message, (writer,), _, _ = socket.recv_fds(link, _MESSAGE_BYTES, 1)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os._exit(_work(json.loads(message), writer))
            os.close(writer)
            running[pid] = link
            link.send(str(pid).encode())
        if ended in readable:
            ended.recv(1000)
            while running and (found := os.waitpid(-1, os.WNOHANG))[0]:
                link = running.pop(found[0])
                link.send(str(os.waitstatus_to_exitcode(found[1])).encode())
                link.close()


def _work(order: dict[str, Any], writer: int) -> int:
    """The forked process: as the product's own one would be, to its end."""
    os.setsid()
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    sys.argv = ["-c", *order["words"]]
    code = 0
    try:
        exec(compile(order["code"], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102  # as `python -c` does
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main(sys.argv[1])
