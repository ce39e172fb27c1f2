"""A signed web request that starts a job: a small web application that writes down, and a sensor that starts.

    # hooks.py                                    uvicorn hooks:app --host 127.0.0.1 --port 8090
    from ratatouille.dagster.webhook import secrets_from, webhook_app
    app = webhook_app(".", {"sales": secrets_from("SALES_WEBHOOK_SECRETS")})

    # pipelines/sales/__init__.py
    from ratatouille.dagster.webhook import webhook_sensor
    all_sensors = [webhook_sensor(".", {"sales": sales_pipeline_job})]

`POST /hooks/sales` with the headers of standardwebhooks.com is accepted or refused in a few milliseconds:

webhook-id         the sender's name for the message, for all its attempts the same
webhook-timestamp  seconds since 1970, at most TOLERANCE_S from this machine's clock
webhook-signature  `v1,<base64>` of HMAC-SHA256 over `id.timestamp.body`; several with spaces between them

accepted   the id and the body are in `.rat/webhook.sqlite`, in one transaction that has reached the disk. Only then
           the sender hears 202; Dagster need not be up, and nothing that was accepted is lost or started twice
refused    401: the signature, the id or the time is wrong; 409: the id was accepted before; 413: the body is too large
           503: it could not be written down, so the sender shall try again
secrets    several at once while one replaces another; a hook takes only its own
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ratatouille.errors import RequestError
from ratatouille.handle import find_workspace

TOLERANCE_S = 300
LARGEST_BODY = 262_144  # bytes
BODY_WITHIN_S = 10.0
FEWEST_SECRET_BYTES = 24
KEPT_S = 30 * 86_400.0  # an id, after its run was started; many times longer than its signature is good for
MOST_WAITING = 10_000  # requests that Dagster has not started yet
STARTED_PER_TICK = 25
LOOK_EVERY_S = 5
_MOST_SIGNATURES = 10
_STORE = Path(".rat") / "webhook.sqlite"
# Without a dot an id cannot be read as another id and the start of a timestamp.
_ID = re.compile(r"[A-Za-z0-9_\-]{1,128}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_TABLE = """
create table if not exists requests (
    id text primary key, hook text not null, body blob not null, received_at real not null, started_at real)
"""

Secrets = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request whose signature was right."""

    id: str
    hook: str
    body: bytes
    received_at: float

    @property
    def payload(self) -> Any:
        """The body as JSON. ValueError if it is none."""
        return json.loads(self.body)


class _Refused(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def secrets_from(variable: str) -> tuple[bytes, ...]:
    """The secrets in an environment variable, with spaces or commas between them: base64, `whsec_` may stand before.

    RequestError when there is none, or one that is no secret; its text never holds one.
    """
    said = os.environ.get(variable, "").replace(",", " ").split()
    found = tuple(_decoded(one) for one in said)
    short = [number for number, one in enumerate(found, 1) if one is None or len(one) < FEWEST_SECRET_BYTES]
    if not found or short:
        raise RequestError(
            f"{variable} does not hold a secret for the webhook.",
            where=f"number {short[0]} of {len(found)} in it is too short or not base64" if found else "it is not set",
            state="No request is accepted.",
            next=f"Set {variable} to what this prints: head -c 32 /dev/urandom | base64",
        )
    return tuple(one for one in found if one is not None)


def _decoded(secret: str) -> bytes | None:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return None


def signature(secret: bytes, id: str, timestamp: int | str, body: bytes) -> str:
    """What a sender writes into webhook-signature."""
    signed = b".".join([id.encode(), str(timestamp).encode(), body])
    return f"v1,{base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()}"


# The web application


def webhook_app(root: Path | str, hooks: Mapping[str, Secrets], *, largest_body: int = LARGEST_BODY) -> Starlette:
    """An ASGI application that accepts `POST /hooks/<name>` for the names in `hooks`, each with its own secrets.

    `root` is the workspace, or a folder in it. RequestError when a hook has no secret or the workspace is none.
    """
    for name, secrets in hooks.items():
        if not secrets or not all(isinstance(one, bytes) and len(one) >= FEWEST_SECRET_BYTES for one in secrets):
            raise RequestError(
                f"The hook '{name}' has no secret of {FEWEST_SECRET_BYTES} bytes or more.",
                where="hooks",
                state="No request is accepted.",
                next='webhook_app(".", {"name": secrets_from("A_VARIABLE")})',
            )
    store = find_workspace(root) / _STORE

    async def receive(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            secrets = hooks.get(name)
            if secrets is None:
                raise _Refused(404, "there is no such hook")
            id, timestamp, signatures = _read_headers(request)
            body = await _read_body(request, largest_body)
            _check_signature(secrets, id, timestamp, body, signatures)
            await run_in_threadpool(_write_down, store, Accepted(id, name, body, time.time()))
        except _Refused as refused:
            return JSONResponse({"error": refused.why}, refused.status, _headers(refused.status))
        return JSONResponse({"accepted": id}, 202)

    return Starlette(routes=[Route("/hooks/{name}", receive, methods=["POST"])])


def _headers(status: int) -> dict[str, str]:
    # A body that nobody reads to its end must not be taken for the next request.
    return {"connection": "close"} | ({"retry-after": "30"} if status == 503 else {})


def _read_headers(request: Request) -> tuple[str, str, list[str]]:
    """Id, timestamp and signatures. Everything that is wrong here is refused with the same words."""
    found = [request.headers.getlist(f"webhook-{name}") for name in ("id", "timestamp", "signature")]
    if any(len(values) != 1 for values in found):
        raise _Refused(401, "refused")
    (id,), (timestamp,), (signatures,) = found
    if not _ID.fullmatch(id) or not _TIMESTAMP.fullmatch(timestamp):
        raise _Refused(401, "refused")
    _check_time(timestamp)
    return id, timestamp, signatures.split(" ")[:_MOST_SIGNATURES]


def _check_time(timestamp: str) -> None:
    if abs(time.time() - int(timestamp)) > TOLERANCE_S:
        raise _Refused(401, "refused")


async def _read_body(request: Request, largest: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > largest:
        raise _Refused(413, f"a body has at most {largest} bytes")
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for part in request.stream():
                size += len(part)
                if size > largest:
                    raise _Refused(413, f"a body has at most {largest} bytes")
                parts.append(part)
    except TimeoutError:
        raise _Refused(408, f"the body did not come within {BODY_WITHIN_S:.0f} seconds") from None
    except ClientDisconnect:
        raise _Refused(400, "the body did not come") from None
    return b"".join(parts)


def _check_signature(secrets: Secrets, id: str, timestamp: str, body: bytes, given: Sequence[str]) -> None:
    good = [signature(secret, id, timestamp, body).encode() for secret in secrets]
    # Every pair is compared, so that the time it takes says nothing about which one was near.
    matches = [hmac.compare_digest(one, other.encode()) for one in good for other in given]
    if not any(matches):
        raise _Refused(401, "refused")
    _check_time(timestamp)  # the body may have taken a while


# The store


@contextmanager
def _opened(store: Path) -> Iterator[sqlite3.Connection]:
    """A transaction on the store, which is made if it is not there."""
    store.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with closing(sqlite3.connect(store, timeout=5, isolation_level=None)) as connection:
        store.chmod(0o600)
        connection.execute("pragma synchronous = extra")  # the folder too: 202 is a promise
        connection.execute(_TABLE)
        connection.execute("begin immediate")
        try:
            yield connection
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise


def _write_down(store: Path, request: Accepted) -> None:
    """Keep a request for the sensor. Refused: an id that was there before, and what cannot be kept."""
    try:
        with _opened(store) as connection:
            connection.execute("delete from requests where started_at < ?", (time.time() - KEPT_S,))
            if connection.execute("select 1 from requests where id = ?", (request.id,)).fetchone():
                raise _Refused(409, "this id was accepted before")
            waiting = connection.execute("select count(*) from requests where started_at is null").fetchone()[0]
            if waiting >= MOST_WAITING:
                raise _Refused(503, "too many requests are waiting to be started")
            connection.execute(
                "insert into requests (id, hook, body, received_at) values (?, ?, ?, ?)",
                (request.id, request.hook, request.body, request.received_at),
            )
    except (sqlite3.Error, OSError):
        raise _Refused(503, "the request could not be written down") from None


def _waiting(store: Path, hooks: Sequence[str], most: int) -> list[Accepted]:
    """The oldest requests for `hooks` whose run has not been seen yet."""
    if not store.exists():
        return []
    # Not read-only: what a killed writer left half-done is undone by the next one that opens the file.
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=rw", uri=True, timeout=5)) as connection:
        rows = connection.execute(
            "select id, hook, body, received_at from requests where started_at is null"
            " and hook in (select value from json_each(?)) order by received_at, id limit ?",
            (json.dumps(hooks), most),
        )
        return [Accepted(*row) for row in rows]


def _note_started(store: Path, ids: Sequence[str]) -> None:
    """Their bodies are not needed any more; their ids are, against replays."""
    with _opened(store) as connection:
        rows = [(time.time(), id) for id in ids]
        connection.executemany("update requests set started_at = ?, body = x'' where id = ?", rows)


# The sensor


def webhook_sensor(
    root: Path | str,
    jobs: Mapping[str, Any],
    *,
    name: str = "webhook",
    run_request: Callable[[Accepted], dg.RunRequest] | None = None,
) -> dg.SensorDefinition:
    """A sensor that starts the job of a hook for each accepted request, exactly once; on by default.

    `jobs`: hook name -> job. `run_request` makes the request for a run out of an accepted one, for run config or tags
    from its payload; the job and the run key are set here. One that raises starts the job without them.
    """
    store = find_workspace(root) / _STORE

    @dg.sensor(
        name=name,
        jobs=list({job.name: job for job in jobs.values()}.values()),
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Starts what was asked for by signed web requests: {', '.join(jobs)}.",
    )
    def start(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            waiting = _waiting(store, list(jobs), STARTED_PER_TICK)
            started = [one.id for one in waiting if _is_started(context.instance, name, one.id)]
            if started:
                _note_started(store, started)
        except sqlite3.Error as error:
            return dg.SensorResult(skip_reason=f"The requests cannot be read now: {error}")
        make = partial(_run_request, context, jobs, run_request)
        requests = [make(one) for one in waiting if one.id not in started]
        return dg.SensorResult(run_requests=requests, skip_reason=None if requests else "No request is waiting.")

    return start


def _is_started(instance: dg.DagsterInstance, sensor: str, id: str) -> bool:
    tags = {"dagster/run_key": id, "dagster/sensor_name": sensor}
    return bool(instance.get_run_records(dg.RunsFilter(tags=tags), limit=1))


def _run_request(
    context: dg.SensorEvaluationContext,
    jobs: Mapping[str, Any],
    made_by: Callable[[Accepted], dg.RunRequest] | None,
    accepted: Accepted,
) -> dg.RunRequest:
    """The run of one request. Its key is the id, so that a tick which is repeated does not start it again."""
    made = dg.RunRequest()
    if made_by is not None:
        try:
            made = made_by(accepted)
        except Exception as error:  # a payload that nobody foresaw must not hold back those behind it
            context.log.warning(f"webhook {accepted.id}: its payload could not be used: {error}")
    tags = {**made.tags, "rat/webhook": accepted.hook, "rat/webhook_id": accepted.id}
    return dg.RunRequest(
        run_key=accepted.id,
        job_name=jobs[accepted.hook].name,
        run_config=made.run_config,
        tags=tags,
        asset_selection=made.asset_selection,
        partition_key=made.partition_key,
    )
