"""A real lakeFS for the tests: blocks and keys in a folder, on loopback, a port of its own; and one that misbehaves."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

KEY, SECRET = "AKIATESTSOFTHEKITCHEN", "a secret of no use elsewhere"
STARTS_WITHIN_S = 60


@contextmanager
def found_lakefs(need_tool: Callable[[str, str], str], folder: Path) -> Iterator[str]:
    """`lakefs`, of the program that `make lakefs-server` has built; the test is skipped where there is none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(__file__).resolve().parents[2] / ".tools" / "bin"), prepend=":")
        program = need_tool("lakefs", "make lakefs-server")
    with lakefs(program, folder) as address:
        yield address


@contextmanager
def lakefs(program: str, folder: Path) -> Iterator[str]:
    """Its address, once it answers. It is stopped, and waited for, at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "lakefs.yaml"
    settings.write_text(
        f"listen_address: 127.0.0.1:{port}\n"
        f"database: {{type: local, local: {{path: {folder / 'keys'}}}}}\n"
        f"blockstore: {{type: local, local: {{path: {folder / 'blocks'}}}}}\n"
        "auth: {encrypt: {secret_key: only for tests}}\n"
        "stats: {enabled: false}\n"
        f"installation: {{user_name: tester, access_key_id: {KEY}, secret_access_key: {SECRET}}}\n"
        "logging: {level: WARN}\n"
    )
    with (folder / "lakefs.log").open("wb") as log:
        running = subprocess.Popen([program, "run", "--config", str(settings)], stdout=log, stderr=log, cwd=folder)
        try:
            address = f"http://127.0.0.1:{port}"
            _until_it_answers(address, running, folder)
            yield address
        finally:
            running.terminate()
            running.wait(20)


def _until_it_answers(address: str, running: subprocess.Popen[bytes], folder: Path) -> None:
    began = time.monotonic()
    while time.monotonic() - began < STARTS_WITHIN_S:
        try:
            with urlopen(f"{address}/_health", timeout=2):  # noqa: S310  our own server
                return
        except (URLError, OSError):
            assert running.poll() is None, (folder / "lakefs.log").read_text(errors="replace")[-2000:]
            time.sleep(0.05)
    raise AssertionError("lakeFS did not start")


class Repository:
    """A repository of the server, as whoever puts telemetry there sees it."""

    def __init__(self, address: str, name: str) -> None:
        import lakefs_sdk
        from lakefs_sdk.client import LakeFSClient
        from pipelines.forklift.lakefs import LakeFS, Settings

        self.settings = Settings(address, name, access_key=KEY, secret_key=SECRET, attempts=2, wait_s=0.01)
        configuration = lakefs_sdk.Configuration(host=f"{address}/api/v1", username=KEY, password=SECRET)
        self.sdk, self.name, self.client = LakeFSClient(configuration), name, LakeFS(self.settings)
        self.sdk.repositories_api.create_repository(
            lakefs_sdk.RepositoryCreation(name=name, storage_namespace=f"local://{name}", default_branch="main")
        )

    def commit(self, put: dict[str, bytes], delete: tuple[str, ...] = (), branch: str = "main", **said: str) -> str:
        import lakefs_sdk

        for path, content in put.items():
            self.sdk.objects_api.upload_object(self.name, branch, path, content=content)
        for path in delete:
            self.sdk.objects_api.delete_object(self.name, branch, path)
        creation = lakefs_sdk.CommitCreation(message=f"put {len(put)}", metadata=said, allow_empty=True)
        return str(self.sdk.commits_api.commit(self.name, branch, creation).id)

    def read(self, path: str) -> bytes:
        return bytes(self.sdk.objects_api.get_object(self.name, "main", path))

    def branches(self) -> list[str]:
        return [ref.id for ref in self.sdk.branches_api.list_branches(self.name).results]


class Between:
    """A server between a client and lakeFS that passes everything on, but for what `spoil` answers by itself.

    `spoil(method, path)` gives None, or (status, body): 0 for hanging up, -1 for handing on half of the body.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.spoil: Callable[[str, str], tuple[int, bytes] | None] = lambda method, path: None
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def count(self, word: str) -> int:
        return sum(word in line for line in self.asked)


@contextmanager
def between(upstream: str) -> Iterator[tuple[str, Between]]:
    """Its address, and what it does."""
    how = Between(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with how.lock:
                how.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}")
                spoiled = how.spoil(self.command, self.path)
            if spoiled is not None and spoiled[0] > 0:
                self._answer(spoiled[0], {"Content-Type": "application/json"}, spoiled[1])
            elif spoiled is not None and spoiled[0] == 0:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                status, headers, body = self._upstream()
                if spoiled is None:
                    self._answer(status, headers, body)
                else:  # says how much there is, gives half of it, and hangs up
                    self._answer(status, headers, body, len(body) // 2)
                    self.close_connection = True

        def _upstream(self) -> tuple[int, Mapping[str, str], bytes]:
            wanted = {k: v for k, v in self.headers.items() if k.lower() in ("authorization", "range", "accept")}
            try:
                with urlopen(Request(how.upstream + self.path, headers=wanted), timeout=20) as answer:  # noqa: S310
                    return answer.status, dict(answer.headers), answer.read()
            except URLError as error:
                status = getattr(error, "code", 502)
                return status, {"Content-Type": "application/json"}, error.read() if hasattr(error, "read") else b"{}"

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes, only: int | None = None) -> None:
            self.send_response(status)
            for name in ("Content-Type", "Content-Range", "Etag"):
                if name in headers:
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:only])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", how
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
