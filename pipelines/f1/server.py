"""An API of the shape of OpenF1 on this machine: a generated season or folders of real rows, and trouble on request.

    python -m pipelines.f1.server --port 0            # prints its address, serves the small season
    python -m pipelines.f1.server --rows some/folder  # serves <endpoint>_<session_key>.json[.gz] and .parquet

In tests, in the same process:

    with serve(generate(), troubles=[Trouble("500", "location", times=3)]) as server:
        OpenF1(Settings(base_url=server.address, requests_per_span=None))

trouble   what the server does wrong, to which endpoint, how often, after how many good answers
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .answers import Folders, Source, conditions_of, matching
from .season import generate

KINDS = ("429", "422", "500", "slow", "truncated", "cut", "live", "empty", "not_found", "garbage")
LIVE = {"detail": "Session in progress, access is restricted to authenticated users. Please try again later."}
TOO_LARGE = {"detail": "Too much data was requested. Please reduce the number of rows, for instance by a time window."}
TOKEN = "token-of-this-machine"  # noqa: S105  (opens nothing but this server)


@dataclass
class Trouble:
    """What goes wrong. `times` None means for ever; `after` good answers first; `endpoint` None means any.

    kinds: 429 (with Retry-After), 422, 500, slow (waits), truncated (JSON that breaks off), cut (the connection breaks
    off), live (the object that refuses), empty, not_found (404), garbage (no JSON). `wait_s`: Retry-After, or how slow.
    """

    kind: str
    endpoint: str | None = None
    times: int | None = 1
    after: int = 0
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no trouble is called {self.kind!r}: {', '.join(KINDS)}")


@dataclass
class Server:
    """What is served, how it misbehaves, and what was asked of it. Change it while it runs, as tests like."""

    source: Source
    troubles: list[Trouble] = field(default_factory=list)
    max_rows: int | None = 20_000  # of location and car_data; more is a 422
    requests_per_span: int | None = None  # more is a 429
    span_s: float = 10
    live: bool = False  # refuse whoever has no token
    password: str = "password"  # noqa: S105
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    address: str = ""
    requests: Counter[str] = field(default_factory=Counter)  # by endpoint, the troubled ones too
    queries: list[str] = field(default_factory=list)  # as they came, operators and all
    _recent: deque[float] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, endpoint: str, query: str, authorized: bool) -> tuple[int, Any, dict[str, str], str]:
        """(status, body, headers, kind of trouble). The body is bytes, or something for JSON."""
        with self._lock:
            self.requests[endpoint] += 1
            self.queries.append(f"{endpoint}?{query}")
            trouble = self._next_trouble(endpoint)
            too_many = self._too_many()
        if too_many:
            return 429, {"detail": "Too many requests"}, {"Retry-After": "1"}, ""
        if trouble and trouble.kind in ("429", "422", "500", "live", "empty", "not_found", "garbage"):
            return _wrong(trouble)
        if self.live and not authorized:
            return 200, LIVE, {}, ""
        status, body, headers = self._right(endpoint, query)
        if trouble and trouble.kind == "slow":
            headers["x-wait"] = str(trouble.wait_s)
        return status, body, headers, trouble.kind if trouble else ""

    def _right(self, endpoint: str, query: str) -> tuple[int, Any, dict[str, str]]:
        conditions = conditions_of(query)
        as_csv = ("csv", "=", "true") in conditions
        conditions = [one for one in conditions if one[0] != "csv"]
        found = matching(self.source, endpoint, conditions, now=self.now())
        if found is None:
            return 404, {"detail": "Not Found"}, {}
        rows, frame = found
        n_rows = len(rows) if frame is None else frame.height
        if self.max_rows is not None and endpoint in ("location", "car_data") and n_rows > self.max_rows:
            return 422, TOO_LARGE, {}
        if frame is not None:
            return 200, (frame.write_csv() if as_csv else frame.write_json()).encode(), {}
        return 200, _csv(rows) if as_csv else rows, {}

    def _next_trouble(self, endpoint: str) -> Trouble | None:
        for trouble in self.troubles:
            if trouble.endpoint in (None, endpoint) and trouble.times != 0:
                if trouble.after:
                    trouble.after -= 1
                    continue
                trouble.times = None if trouble.times is None else trouble.times - 1
                return trouble
        return None

    def _too_many(self) -> bool:
        if self.requests_per_span is None:
            return False
        now = time.monotonic()
        while self._recent and self._recent[0] <= now - self.span_s:
            self._recent.popleft()
        self._recent.append(now)
        return len(self._recent) > self.requests_per_span


def _wrong(trouble: Trouble) -> tuple[int, Any, dict[str, str], str]:
    answers: dict[str, tuple[int, Any]] = {
        "429": (429, {"detail": "Too many requests"}),
        "422": (422, TOO_LARGE),
        "500": (500, {"detail": "Internal Server Error"}),
        "live": (200, LIVE),
        "empty": (200, []),
        "not_found": (404, {"detail": "No results found."}),
        "garbage": (200, b"<html>This is not the API.</html>"),
    }
    headers = {"Retry-After": f"{trouble.wait_s:g}"} if trouble.kind == "429" else {}
    return (*answers[trouble.kind], headers, trouble.kind)


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue().encode()


def application(server: Server) -> Starlette:
    """The routes: /v1/<endpoint> and /token."""

    async def endpoint(request: Request) -> Response:
        query = request.scope["query_string"].decode("latin-1")
        authorized = request.headers.get("authorization") == f"Bearer {TOKEN}"
        name = request.path_params["endpoint"]
        # Filtering half a million points takes a while; other requests go on meanwhile.
        status, body, headers, trouble = await asyncio.to_thread(server.answer, name, query, authorized)
        await asyncio.sleep(float(headers.pop("x-wait", 0)))
        if not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode()
        if trouble == "truncated":
            body = body[: max(1, len(body) // 2)]
        if trouble == "cut":
            return StreamingResponse(_broken(body), headers={"content-length": str(len(body))})
        return Response(body, status, headers, media_type="application/json")

    async def token(request: Request) -> Response:
        form = parse_qs((await request.body()).decode())
        server.requests["token"] += 1
        if form.get("password") != [server.password]:
            return JSONResponse({"detail": "Incorrect username or password"}, 401)
        return JSONResponse({"access_token": TOKEN, "expires_in": "3600", "token_type": "bearer"})

    return Starlette(routes=[Route("/v1/{endpoint}", endpoint), Route("/token", token, methods=["POST"])])


async def _broken(body: bytes) -> Any:
    yield body[: len(body) // 2]
    raise ConnectionAbortedError("this answer was meant to break off")


@contextmanager
def serve(source: Source, *, port: int = 0, **wishes: Any) -> Iterator[Server]:
    """A running server on loopback (a free port for 0), stopped at the end. `wishes`: the fields of Server."""
    server = Server(source, **wishes)
    with socket.create_server(("127.0.0.1", port)) as listening:
        # asyncio sets this only where it sees the protocol; without it each answer waits 40 ms for the client's ACK.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        config = uvicorn.Config(
            application(server),
            log_level="critical",
            lifespan="off",
            ws="none",
            loop="asyncio",
            timeout_graceful_shutdown=1,
        )
        runner = uvicorn.Server(config)
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not runner.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield server
        finally:
            runner.should_exit = True
            thread.join(timeout=10)


def _trouble(text: str) -> Trouble:
    """`500:location:3` -> the location endpoint fails three times."""
    kind, _, rest = text.partition(":")
    endpoint, _, times = rest.partition(":")
    return Trouble(kind, endpoint or None, int(times) if times else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Prints the address as its first line, then serves until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.f1.server", description="A local OpenF1.")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default 8000)")
    parser.add_argument("--rows", type=Path, action="append", help="a folder of real rows instead of the season")
    parser.add_argument("--corrected", action="store_true", help="the season after its late corrections")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--drivers", type=int, default=8)
    parser.add_argument("--laps", type=int, default=12)
    parser.add_argument("--hertz", type=float, default=0.2, help="telemetry points per driver and second")
    parser.add_argument("--limit", type=int, help="answer 429 beyond so many requests in 10 s")
    parser.add_argument("--trouble", type=_trouble, action="append", default=[], help="KIND[:ENDPOINT[:TIMES]]")
    asked = parser.parse_args(arguments)
    if asked.rows:
        source: Source = Folders(asked.rows)
    else:
        size = {name: getattr(asked, name) for name in ("sessions", "drivers", "laps", "hertz")}
        try:
            season = generate(asked.seed, **size)
        except ValueError as error:
            parser.error(str(error))
        source = season.corrected() if asked.corrected else season
    stop = threading.Event()
    # Set here, because a shell's background job starts with the interrupt ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with serve(source, port=asked.port, troubles=asked.trouble, requests_per_span=asked.limit) as server:
        sys.stdout.write(f"{server.address}\n")
        sys.stdout.flush()
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
