"""A real S3 server for tests: versitygw on a folder, on a free loopback port; and a proxy that misbehaves on request."""

from __future__ import annotations

import os
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

INSTALL = "make s3-server"
TOOLS = Path(__file__).resolve().parents[2] / ".tools" / "bin"
BUCKET = "kitchen"
UP_WITHIN_S = 30


@dataclass(frozen=True)
class S3:
    port: int
    folder: Path  # of the bucket: its objects are files
    key: str = "rat-key-id"
    secret: str = "planted-canary-of-s3"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, endpoint: str = "") -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def an_s3(need_tool: Callable[[str, str], str]) -> Iterator[S3]:
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{TOOLS}{os.pathsep}{before}"
    try:
        program = need_tool("versitygw", INSTALL)
    finally:
        os.environ["PATH"] = before
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="s3-", dir=shm if shm.is_dir() else None))
    (folder / "data" / BUCKET).mkdir(parents=True)
    (folder / "sidecar").mkdir()
    made = S3(_free_port(), folder / "data" / BUCKET)
    # Metadata goes beside the objects: not every file system has attributes.
    server = subprocess.Popen(
        [program, "--quiet", "--port", f"127.0.0.1:{made.port}", "posix", "--sidecar", str(folder / "sidecar"),
         str(folder / "data")],
        env={"PATH": before, "ROOT_ACCESS_KEY": made.key, "ROOT_SECRET_KEY": made.secret},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + UP_WITHIN_S
        while True:
            with suppress(OSError), closing(socket.create_connection(("127.0.0.1", made.port), 1)):
                break
            assert server.poll() is None and time.monotonic() < until, "the S3 server did not start"
            time.sleep(0.05)
        yield made
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Proxy:
    """Between a client and the server. `fault` is what happens to requests whose first line `fits`.

    pass | hang (no answer) | 503, 403 (that answer) | cut (the connection ends after 1 KiB of the body)
    """

    target: int
    port: int = 0
    fault: str = "pass"
    fits: Callable[[str], bool] = lambda line: True
    left: int = 1 << 30  # so many requests are hurt, the others pass
    hurt: list[str] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, fault: str, fits: Callable[[str], bool] = lambda line: True, left: int = 1 << 30) -> None:
        with self.guard:
            self.fault, self.fits, self.left = fault, fits, left
            self.hurt.clear()

    def verdict(self, line: str) -> str:
        with self.guard:
            if self.fault == "pass" or self.left <= 0 or not self.fits(line):
                return "pass"
            self.left -= 1
            self.hurt.append(line)
            return self.fault


@contextmanager
def a_proxy(target: int) -> Iterator[Proxy]:
    made = Proxy(target)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError, ValueError):
                _serve(made, self.connection, self.rfile)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield made
        finally:
            server.shutdown()


def _serve(proxy: Proxy, client: socket.socket, reader) -> None:
    """One connection: requests one after the other, each on a connection of its own to the server."""
    while line := reader.readline():
        head, length = [line], 0
        while (header := reader.readline()) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            if name.lower() not in (b"connection", b"expect"):
                head.append(header)
            elif name.lower() == b"expect":
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        what = proxy.verdict(line.decode())
        if what == "hang":
            while client.recv(1 << 16):
                pass
            return
        with closing(socket.create_connection(("127.0.0.1", proxy.target), 10)) as server:
            if what == "cut":
                server.sendall(b"".join(head) + b"Connection: close\r\n\r\n" + reader.read(min(length, 1024)))
                return
            body = reader.read(length)
            if what != "pass":
                client.sendall(f"HTTP/1.1 {what} Fault\r\nContent-Length: 0\r\n\r\n".encode())
                continue
            server.sendall(b"".join(head) + b"Connection: close\r\n\r\n" + body)
            while chunk := server.recv(1 << 16):
                client.sendall(chunk)
        return  # the answer said that the connection closes
