"""A journal with steps as a test says them, a clock, and places that take messages: an HTTP server, an SMTP server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ratatouille import project as files
from ratatouille.lake import Journal, open_journal
from ratatouille.observe import alerts
from ratatouille.project.records import Project


class Inbox:
    """A real HTTP server that keeps what it takes; the first `refuse` messages it refuses."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.refuse = 0
        self.asked = 0
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                inbox.asked += 1
                refused = inbox.refuse >= inbox.asked
                if not refused:
                    inbox.messages.append(body)
                self.send_response(503 if refused else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://user:hunter2-secret@127.0.0.1:{self.server.server_port}/inbox-path-token"


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@contextmanager
def a_mail_server() -> Iterator[tuple[int, list[str]]]:
    """A small SMTP server: its port, and the mails that it took."""
    mails: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            word = line.split(None, 1)[0].upper() if line.strip() else b""
            if word == b"DATA":
                writer.write(b"354 go on\r\n")
                text = b""
                while not text.endswith(b"\r\n.\r\n"):
                    text += await reader.readline()
                mails.append(text.decode())
                writer.write(b"250 taken\r\n")
            elif word == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 here\r\n" if word != b"EHLO" else b"250-here\r\n250 8BITMIME\r\n")
        writer.close()
        await writer.wait_closed()

    loop, ready, ports = asyncio.new_event_loop(), threading.Event(), []

    async def serve() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            await stop.wait()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield ports[0], mails
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@dataclass
class Kitchen:
    """A workspace whose steps are told to the journal, at a time that the test chooses."""

    root: Path
    clock: float = 1_800_000_000.0
    n: int = 0
    told: list[tuple[str, str, str]] = field(default_factory=list)  # channel, title, body

    @property
    def project(self) -> Project:
        return files.load(self.root)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        with open_journal(self.root / ".rat" / "journal.sqlite") as journal:
            journal.now = lambda: self.clock  # type: ignore[method-assign]
            yield journal

    def step(self, asset: str, status: str = "built", **said: Any) -> str:
        """One finished step of a run of its own, a minute after the last one."""
        self.clock += 60
        self.n += 1
        run_id = f"run-{self.n:04}"
        seconds = said.pop("seconds", 1.0)
        measured = {"stages": {"build": seconds}, "profile": "p", "code": "c", **said.pop("measured", {})}
        rows = said.pop("rows", 1000)
        record = {"mode": "full", "seconds": seconds, "rows_in": rows, "rows_written": rows, "rows_total": rows}
        if status == "failed":
            record["error"] = {"what": f"{asset}: it broke", "next": f"rat run {asset}"}
        with self.journal() as journal:
            journal.record_step(run_id, asset, 1, status, {**record, "measured": measured, **said})
        return run_id

    def look(self, **options: Any) -> alerts.Looked:
        self.clock += 1
        with self.journal() as journal:
            return alerts.look(self.project, journal, now=self.clock, **options)


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kitchen:
    made = Kitchen(tmp_path)

    def send(addresses: list[str], title: str, body: str) -> str:
        made.told.append((" ".join(addresses), title, body))
        return ""

    monkeypatch.setattr(alerts, "send", send)
    monkeypatch.setenv("TEAM_CHANNEL", "json://team")
    monkeypatch.setenv("MAIL_CHANNEL", "json://mail")
    return made


@pytest.fixture
def mail_server() -> Callable[[], Any]:
    return a_mail_server
