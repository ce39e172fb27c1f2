"""Ask the OpenF1 API for rows, politely and until the answer is whole.

condition   one filter, (field, operator, value): ("lap_duration", "<", 80). The same field twice with "=" means or.
window      a span of time, start <= date < end, that one request asks for
answer      the rows of a request, or of a window that had to be halved, with what they cost

The API answers with an array of flat objects or, while a session is live, with one object that refuses. Too many
requests, a server error, a timeout and an answer that breaks off are tried again; a window that is too large is
halved; everything else is an error of four lines: what, where, state, next.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import httpx
import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

PUBLIC_API = "https://api.openf1.org/v1"
OPERATORS = ("=", ">=", "<=", ">", "<")
LARGEST_ANSWER_BYTES = 256 * 1024 * 1024  # a race's location as one answer has about 70 MB
IN_PROGRESS = re.compile(r"session in progress|restricted to authenticated", re.IGNORECASE)
_log = logging.getLogger(__name__)
_FIELD = re.compile(r"[a-z][a-z0-9_]*")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

Row = dict[str, Any]
Value = str | int | float | datetime
Condition = tuple[str, str, Value]


class OpenF1Error(Exception):
    """An error a person can act on. Exit code 1: the API did not give what was asked."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", state: str = "Nothing was written.", next: str = "") -> None:
        self.what, self.where, self.state, self.next = what, where, state, next
        super().__init__(what)

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.where, self.state, self.next) if line)


class BadRequest(OpenF1Error):
    """The request or the settings are wrong. Exit code 2."""

    exit_code = 2


class SessionInProgress(OpenF1Error):
    """A session is live, and keyless calls are refused until it is over: come back later."""


class ApiUnavailable(OpenF1Error):
    """Every attempt failed: too many requests, server errors, timeouts, answers that broke off."""


class ApiRefused(OpenF1Error):
    """The API understood and said no: a bad token, an unknown endpoint, an answer of another kind."""


class WindowTooLarge(OpenF1Error):
    """The API calls a request too large (422), and it cannot be made smaller."""


class Clock(Protocol):
    """Seconds that only go forward, and a way to wait. Tests bring their own."""

    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Settings:
    """How to reach the API. Times in seconds; `requests_per_span` None means no limit of our own."""

    base_url: str = PUBLIC_API
    token: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout_s: float = 30
    attempts: int = 5
    wait_s: float = 2  # before the second attempt; doubles each time
    longest_wait_s: float = 60
    jitter_s: float = 1
    requests_per_span: int | None = 30  # the API's own limit for keyless users is 30 per 10 s
    span_s: float = 10
    smallest_window: timedelta = timedelta(seconds=15)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """F1_API_URL, and OPENF1_TOKEN or OPENF1_USERNAME with OPENF1_PASSWORD; what is `given` and not None wins."""
        found = os.environ if environment is None else environment
        base_url = str(given.pop("base_url", None) or found.get("F1_API_URL") or PUBLIC_API)
        if (urlsplit(base_url).hostname or "") in _LOOPBACK:
            given.setdefault("requests_per_span", None)  # the limit protects the public API, not our own server
        return cls(
            base_url=base_url,
            token=given.pop("token", None) or found.get("OPENF1_TOKEN") or None,
            username=given.pop("username", None) or found.get("OPENF1_USERNAME") or None,
            password=given.pop("password", None) or found.get("OPENF1_PASSWORD") or None,
            **given,
        )


@dataclass(frozen=True)
class Answer:
    """The rows as the API sent them, and what they cost: seconds spent asking, requests, retries, halved windows."""

    rows: list[Row]
    api_s: float = 0.0
    requests: int = 1
    retries: int = 0
    splits: int = 0

    def plus(self, other: Answer) -> Answer:
        """Both answers as one, in order."""
        return Answer(
            [*self.rows, *other.rows],
            self.api_s + other.api_s,
            self.requests + other.requests,
            self.retries + other.retries,
            self.splits + other.splits,
        )


class TokenBucket:
    """At most `tokens` requests in any span of `span_s` seconds.

    A token comes back `span_s` seconds after its request *ended*. A bucket that refills evenly lets twice as many
    through in the first span; one that counts from the start of a request is early when the network was slow.
    """

    def __init__(self, tokens: int, span_s: float, clock: Clock = time) -> None:
        if tokens < 1 or span_s < 0:
            raise ValueError("a bucket needs at least one token and a span of at least 0 s")
        self._clock, self._span_s = clock, span_s
        self._back_at: deque[float] = deque([float("-inf")] * tokens)
        self._paused_until = float("-inf")
        self._changed = threading.Condition()

    @contextmanager
    def token(self) -> Iterator[None]:
        """Wait for a token, hold it during the request."""
        self._take()
        try:
            yield
        finally:
            with self._changed:
                self._back_at.append(self._clock.monotonic() + self._span_s)
                self._changed.notify()

    def pause(self, seconds: float) -> None:
        """Nobody gets a token for so long: one worker was told to wait, so all do."""
        with self._changed:
            self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)

    def _take(self) -> None:
        while True:
            with self._changed:
                while not self._back_at:
                    self._changed.wait()
                wait_s = max(self._back_at[0], self._paused_until) - self._clock.monotonic()
                if wait_s <= 0:
                    self._back_at.popleft()
                    return
            self._clock.sleep(wait_s)


class _Again(Exception):
    """This attempt failed and the next may not. `wait_s`: how long the API asked us to wait."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class OpenF1:
    """A client of the API, safe to share between threads. Close it, or use it in a `with` block."""

    def __init__(self, settings: Settings | None = None, *, clock: Clock = time) -> None:
        self.settings = settings or Settings.from_environment()
        self._base, self._shown_base = _checked_base(self.settings)
        limit = self.settings.requests_per_span
        self._bucket = TokenBucket(limit, self.settings.span_s, clock) if limit else None
        self._clock = clock
        host = urlsplit(self._base).hostname or ""
        # A proxy of the machine is for the world outside, and would not find our own loopback server.
        self._http = httpx.Client(timeout=self.settings.timeout_s, trust_env=host not in _LOOPBACK)
        self._login_lock = threading.Lock()
        self._bearer = self.settings.token
        self._bearer_until = float("inf")

    def __enter__(self) -> OpenF1:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def rows(self, endpoint: str, *conditions: Condition) -> Answer:
        """The rows of `endpoint` that meet every condition; none is an answer too.

        Raises SessionInProgress, WindowTooLarge (422), ApiUnavailable after the last attempt, ApiRefused, BadRequest.
        """
        target = f"{urlsplit(self._base).path}/{_name(endpoint)}{query_string(conditions)}"
        began, tries = self._clock.monotonic(), 0
        try:
            for attempt in stamina.retry_context(
                on=self._whether_again,
                attempts=self.settings.attempts,
                timeout=None,
                wait_initial=self.settings.wait_s,
                wait_max=self.settings.longest_wait_s,
                wait_jitter=self.settings.jitter_s,
            ):
                with attempt:
                    tries += 1
                    found = self._ask(target)
                    return Answer(found, self._clock.monotonic() - began, tries, tries - 1)
        except _Again as last:
            raise ApiUnavailable(
                f"OpenF1 gave no whole answer in {tries} {'attempt' if tries == 1 else 'attempts'}: {last}.",
                where=self._shown(target),
                next="Run the same request again when the API is back; what was fetched is not fetched twice.",
            ) from last
        raise AssertionError("stamina leaves its loop by return or raise")

    def rows_between(self, endpoint: str, start: datetime, end: datetime, *conditions: Condition) -> Answer:
        """The rows with start <= date < end. A window the API calls too large is halved until each half fits.

        Raises what `rows` raises; WindowTooLarge when half of the window would be below `smallest_window`.
        """
        try:
            return self.rows(endpoint, *conditions, ("date", ">=", start), ("date", "<", end))
        except WindowTooLarge as error:
            if (end - start) / 2 < self.settings.smallest_window:
                error.what = f"OpenF1 calls even a window of {(end - start).total_seconds():g} s too large."
                raise
        middle = start + (end - start) / 2
        first = self.rows_between(endpoint, start, middle, *conditions)
        both = first.plus(self.rows_between(endpoint, middle, end, *conditions))
        return replace(both, splits=both.splits + 1, requests=both.requests + 1)

    def _whether_again(self, error: Exception) -> bool | float:
        if not isinstance(error, _Again) or error.wait_s is None:
            return isinstance(error, _Again)
        if error.wait_s > self.settings.longest_wait_s:
            return False
        if self._bucket:
            self._bucket.pause(error.wait_s)
        return error.wait_s + random.uniform(0, self.settings.jitter_s)  # noqa: S311  (not a secret)

    def _ask(self, target: str) -> list[Row]:
        status, headers, body = self._send(target)
        if status == 401 and self.settings.password and not self.settings.token:
            self._bearer = None  # the token ran out before its time; one fresh login
            status, headers, body = self._send(target)
        return self._rows_of(status, headers, body, target)

    def _send(self, target: str) -> tuple[int, httpx.Headers, bytes]:
        headers = {"Accept": "application/json"}
        if bearer := self._logged_in():
            headers["Authorization"] = f"Bearer {bearer}"
        # The operators must stand in the query string as they are; httpx would encode them.
        request = self._http.build_request("GET", self._base, headers=headers)
        request.extensions["target"] = target.encode("ascii")
        return self._exchange(request)

    def _exchange(self, request: httpx.Request) -> tuple[int, httpx.Headers, bytes]:
        if self._bucket is None:
            return self._transfer(request)
        with self._bucket.token():
            return self._transfer(request)

    def _transfer(self, request: httpx.Request) -> tuple[int, httpx.Headers, bytes]:
        # httpx limits the wait for each piece; a server that sends a byte a minute would keep us for ever.
        give_up_at = self._clock.monotonic() + 10 * self.settings.timeout_s
        pieces, size = [], 0
        try:
            answer = self._http.send(request, stream=True)
            try:
                for piece in answer.iter_bytes():
                    pieces.append(piece)
                    size += len(piece)
                    if size > LARGEST_ANSWER_BYTES:
                        raise _Again(f"the answer has more than {LARGEST_ANSWER_BYTES:,} bytes")
                    if self._clock.monotonic() > give_up_at:
                        raise _Again("the answer came too slowly")
                return answer.status_code, answer.headers, b"".join(pieces)
            finally:
                answer.close()
        except httpx.TimeoutException as error:
            raise _Again(f"no answer within {self.settings.timeout_s:g} s") from error
        except httpx.RequestError as error:
            raise _Again(_printable(str(error)) or type(error).__name__) from error

    def _rows_of(self, status: int, headers: httpx.Headers, body: bytes, target: str) -> list[Row]:
        if status == 429:
            raise _Again("too many requests (429)", _retry_after_s(headers))
        if status >= 500:
            raise _Again(f"server error {status}", _retry_after_s(headers))
        detail = _detail(body)
        if detail and IN_PROGRESS.search(detail):
            raise SessionInProgress(
                f"OpenF1 answers nobody without a token while a session is live: {detail}",
                where=self._shown(target),
                next="Run it again after the session, or set OPENF1_TOKEN.",
            )
        if status == 422:
            raise WindowTooLarge(
                f"OpenF1 calls the request too large (422): {detail or 'no reason given'}",
                where=self._shown(target),
                next="Ask for fewer drivers or a shorter time.",
            )
        if status == 404:
            _log.info("no rows (404): %s", self._shown(target))
            return []
        if status != 200 or detail:
            raise ApiRefused(
                f"OpenF1 refused the request with status {status}: {detail or 'no reason given'}",
                where=self._shown(target),
                next="Check F1_API_URL and the token (OPENF1_TOKEN, or OPENF1_USERNAME and OPENF1_PASSWORD).",
            )
        return rows_in(body)

    def _logged_in(self) -> str | None:
        """The bearer token, or None: history needs none."""
        if self.settings.token or not (self.settings.username and self.settings.password):
            return self._bearer
        with self._login_lock:
            if self._bearer is None or self._clock.monotonic() >= self._bearer_until:
                self._bearer, lives_s = self._login()
                self._bearer_until = self._clock.monotonic() + 0.9 * lives_s
            return self._bearer

    def _login(self) -> tuple[str, float]:
        address = f"{self._base.removesuffix('/v1')}/token"
        form = {"username": self.settings.username or "", "password": self.settings.password or ""}
        status, headers, body = self._exchange(self._http.build_request("POST", address, data=form))
        if status == 429 or status >= 500:
            raise _Again(f"the login answered {status}", _retry_after_s(headers))
        try:
            answer = json.loads(body)
            return str(answer["access_token"]), float(answer.get("expires_in") or 3600)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ApiRefused(
                f"OpenF1 gave no token (status {status}).",
                where=f"{self._shown_base.removesuffix('/v1')}/token",
                next="Check OPENF1_USERNAME and OPENF1_PASSWORD.",
            ) from error

    def _shown(self, target: str) -> str:
        path = urlsplit(self._base).path
        return self._shown_base + target.removeprefix(path)


def tell_of_retries(say: Callable[[str], None]) -> None:
    """Have `say` called with a line before each wait: why a request is repeated, and when. For the whole process."""

    def told(retry: RetryDetails) -> None:
        say(f"OpenF1: {retry.caused_by}; again in {retry.wait_for:.1f} s (retry {retry.retry_num})")

    set_on_retry_hooks([told])


def query_string(conditions: Sequence[Condition]) -> str:
    """`?session_key=9531&lap_duration<80`: operators as they are, values encoded, times as naive UTC text.

    >>> query_string([("session_key", "=", 9531), ("lap_duration", "<", 80)])
    '?session_key=9531&lap_duration<80'
    """
    parts = []
    for name, operator, value in conditions:
        if operator not in OPERATORS:
            raise BadRequest(f"OpenF1 has no operator {operator!r}.", next=f"Use one of {' '.join(OPERATORS)}.")
        parts.append(f"{_name(name)}{operator}{quote(_as_text(value), safe=':')}")
    return "?" + "&".join(parts) if parts else ""


def rows_in(body: bytes) -> list[Row]:
    """The rows of an answer. Raises an error that is tried again when it is not a whole array of objects."""
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise _Again(f"the answer is not whole JSON ({len(body):,} bytes)") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise _Again("the answer is JSON but no array of objects")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):  # 1e999 is JSON, but nothing that we could write again
        raise ValueError(f"{text} is too large")
    return value


def _name(text: str) -> str:
    if not _FIELD.fullmatch(text):
        raise BadRequest(f"{text!r} is no name of an endpoint or a field.", next="Names have a-z, 0-9 and _ only.")
    return text


def _as_text(value: Value) -> str:
    if isinstance(value, datetime):
        # A plus sign in +00:00 would arrive as a blank, so the text is naive and means UTC.
        return (value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value).isoformat()
    return str(value)


def _detail(body: bytes) -> str:
    """What an answer that is one object says; "" for anything else."""
    if body.lstrip()[:1] != b"{":
        return ""
    try:
        found = json.loads(body.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return ""
    return _printable(str(found.get("detail") or "")) if isinstance(found, dict) else ""


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)[:300]


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds from `Retry-After`, which holds a number or a date; None when it is absent or nonsense."""
    text = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(text)) if float(text) < float("inf") else None
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _checked_base(settings: Settings) -> tuple[str, str]:
    """The base address without a slash at its end, and the same without a password, for messages."""
    base = settings.base_url.rstrip("/")
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    shown = base.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2]) if parts.netloc else base
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or not base.isascii():
        raise BadRequest(
            f"{_printable(shown)!r} is no address of an API.",
            where="F1_API_URL",
            next=f"Give one such as {PUBLIC_API} or http://127.0.0.1:8000/v1.",
        )
    if (settings.token or settings.password) and parts.scheme == "http" and host not in _LOOPBACK:
        raise BadRequest(
            f"A token would go to {host} unencrypted.", where="F1_API_URL", next="Use https, or unset the token."
        )
    return base, shown
