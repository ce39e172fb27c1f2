"""Ask an API politely: so many requests a minute, again after what passes by itself, and never for ever.

again     too many requests (429), a server error, no answer in time, an answer that breaks off: tried again, after the
          time that `Retry-After` asks for, else after doubling waits
throttled the API still says 429 after the last attempt, or wants a longer wait than we do: its quota may have ended
refused   anything else that is no answer: trying again would not help
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import stamina

LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ApiError(Exception):
    """An error a person can act on, in four lines: what, where, the state of the data, what to do next."""

    def __init__(self, what: str, *, where: str = "", state: str = "Nothing was written.", next: str = "") -> None:
        self.what, self.where, self.state, self.next = what, where, state, next
        super().__init__(what)

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.where, self.state, self.next) if line)


class Unavailable(ApiError):
    """Every attempt failed."""


class Throttled(Unavailable):
    """Too many requests, and no wait that we would wait. `until` is what the API says, as text, or ''."""

    until = ""


class Refused(ApiError):
    """The API understood and said no, or the address or the key cannot be right."""


class Clock(Protocol):
    """Seconds that only go forward, and a way to wait. Tests bring their own."""

    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Manners:
    """How to ask. Times in seconds; `per_minute` None means no limit of our own."""

    timeout_s: float = 30
    attempts: int = 3
    wait_s: float = 1  # before the second attempt; doubles each time
    longest_wait_s: float = 60
    jitter_s: float = 0.5
    per_minute: int | None = 60


@dataclass
class Costs:
    """What the answers cost so far. `errors` by kind: 429, 500, timeout, broken."""

    requests: int = 0
    retries: int = 0
    api_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def error_rate(self) -> float:
        """Of all requests; 0 for none."""
        return sum(self.errors.values()) / self.requests if self.requests else 0.0


class _Again(Exception):
    def __init__(self, said: str, kind: str, wait_s: float | None = None, until: str = "") -> None:
        self.kind, self.wait_s, self.until = kind, wait_s, until
        super().__init__(said)


class Asker:
    """JSON from one API. `secret` goes into headers of that API alone, and into no message.

    `before_each` is called before every request, the repeated ones too; what it raises ends the asking.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        manners: Manners,
        *,
        headers: Mapping[str, str] | None = None,
        before_each: Any = None,
        clock: Clock = time,
    ) -> None:
        self.name, self.manners, self.costs = name, manners, Costs()
        self._base = _checked(name, base_url, bool(headers))
        self._headers = dict(headers or {})
        self._before_each = before_each
        self._clock = clock
        self._sent: deque[float] = deque()
        self._lock = threading.Lock()
        on_this_machine = (urlsplit(self._base).hostname or "") in _LOOPBACK
        self._http = httpx.Client(timeout=manners.timeout_s, trust_env=not on_this_machine)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        """The object that a GET answers with."""
        return self._answer("GET", path, params=dict(parameters))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The object that a POST of JSON answers with."""
        return self._answer("POST", path, json=dict(body))

    def _answer(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        tries, manners = 0, self.manners
        try:
            for attempt in stamina.retry_context(
                on=self._whether_again,
                attempts=manners.attempts,
                timeout=None,
                wait_initial=manners.wait_s,
                wait_max=manners.longest_wait_s,
                wait_jitter=manners.jitter_s,
            ):
                with attempt:
                    tries += 1
                    return self._once(method, path, tries > 1, **given)
        except _Again as last:
            kind = Throttled if last.kind == "429" else Unavailable
            error = kind(
                f"{self.name} gave no answer in {tries} {'attempt' if tries == 1 else 'attempts'}: {last}.",
                where=f"{self._base}{path}",
                next="Run it again later; what was fetched is not fetched twice.",
            )
            if isinstance(error, Throttled):
                error.until = last.until
            raise error from None  # the cause may show headers
        raise AssertionError("stamina leaves its loop by return or raise")

    def _whether_again(self, error: Exception) -> bool | float:
        if not isinstance(error, _Again) or error.wait_s is None:
            return isinstance(error, _Again)
        if error.wait_s > self.manners.longest_wait_s:
            return False
        return error.wait_s + random.uniform(0, self.manners.jitter_s)  # noqa: S311  (not a secret)

    def _once(self, method: str, path: str, repeated: bool, **given: Any) -> dict[str, Any]:
        self._wait_for_turn()
        if self._before_each:
            self._before_each()
        began = self._clock.monotonic()
        self.costs.requests += 1
        self.costs.retries += repeated
        try:
            return self._judged(*self._transfer(method, path, given), path)
        except _Again as error:
            self.costs.errors[error.kind] += 1
            raise
        finally:
            self.costs.api_s += self._clock.monotonic() - began

    def _wait_for_turn(self) -> None:
        """Never more than `per_minute` requests begin in any sixty seconds."""
        limit = self.manners.per_minute
        if limit is None:
            return
        with self._lock:
            if len(self._sent) >= limit:
                wait_s = self._sent.popleft() + 60 - self._clock.monotonic()
                if wait_s > 0:
                    self._clock.sleep(wait_s)
            self._sent.append(self._clock.monotonic())

    def _transfer(self, method: str, path: str, given: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        # httpx limits the wait for each piece; a server that sends a byte a minute would keep us for ever.
        give_up_at = self._clock.monotonic() + 4 * self.manners.timeout_s
        pieces, size = [], 0
        request = self._http.build_request(
            method, self._base + path, headers={"Accept": "application/json", **self._headers}, **given
        )
        try:
            answer = self._http.send(request, stream=True)
            try:
                for piece in answer.iter_bytes():
                    pieces.append(piece)
                    size += len(piece)
                    if size > LARGEST_ANSWER_BYTES:
                        raise Refused(f"{self.name}: an answer of more than {LARGEST_ANSWER_BYTES:,} bytes")
                    if self._clock.monotonic() > give_up_at:
                        raise _Again("the answer came too slowly", "timeout")
                return answer.status_code, answer.headers, b"".join(pieces)
            finally:
                answer.close()
        except httpx.TimeoutException:
            raise _Again(f"no answer within {self.manners.timeout_s:g} s", "timeout") from None
        except httpx.RequestError as error:
            raise _Again(f"the connection failed ({type(error).__name__})", "broken") from None

    def _judged(self, status: int, headers: httpx.Headers, body: bytes, path: str) -> dict[str, Any]:
        said = _json(body)
        if status == 429:
            until = str(said.get("nextAccessTime") or "") if isinstance(said, dict) else ""
            raise _Again("too many requests (429)", "429", _retry_after_s(headers), until[:60])
        if status >= 500:
            raise _Again(f"server error {status}", "500", _retry_after_s(headers))
        if status != 200:
            raise Refused(
                f"{self.name} refused the request with status {status}{_reason(said)}",
                where=f"{self._base}{path}",
                next="Check the address and the key." if status in (401, 403) else "Check what is asked for.",
            )
        if not isinstance(said, dict):
            raise _Again(f"the answer is not a whole JSON object ({len(body):,} bytes)", "broken")
        return said


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _reason(said: Any) -> str:
    if not isinstance(said, dict):
        return ""
    text = str(said.get("errorMessage") or said.get("message") or said.get("detail") or "")
    shown = "".join(sign if sign.isprintable() else " " for sign in text)[:200]
    return f": {shown}" if shown else ""


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds from `Retry-After`, a number or a date; None when it is absent or nonsense."""
    text = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(text)) if float(text) < float("inf") else None
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())


def _checked(name: str, base_url: str, secret: bool) -> str:
    """The address without a slash at its end; Refused for one that is none, or that would carry a key in the clear."""
    base = base_url.rstrip("/")
    try:
        parts = urlsplit(base)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.username or parts.password:
        raise Refused(f"The address of {name} is none.", next="Give one such as https://api.example.gov")
    if secret and parts.scheme == "http" and host not in _LOOPBACK:
        raise Refused(f"The key of {name} would go to {host} unencrypted.", next="Use https.")
    return base
