"""What went wrong, in four lines.

what    what failed, with the name of the thing
where   file:line:column with the span underlined, or table and column
state   what state the data is in: what readers see now
next    which command comes next

Every error that may reach a person is a `RatError`. The command line prints it, the Python face
raises it, the journal stores it; none of them adds a traceback. Text that may hold a secret passes
`redact` on its way in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

UNCHANGED = "Nothing was changed; readers see what they saw before."


class RatError(Exception):
    """An error a person can act on. Exit code 1: a run or a gate failed."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", state: str = UNCHANGED, next: str = "") -> None:
        self.what = redact(what)
        self.where = redact(where)
        self.state = redact(state)
        self.next = redact(next)
        super().__init__(self.what)

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.where, self.state, self.next) if line)

    def as_record(self) -> dict[str, str]:
        """The four lines as a JSON-safe mapping (journal, `--json`)."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "state": self.state,
            "next": self.next,
        }

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.state, self.next))


def _rebuild(kind: type[RatError], what: str, where: str, state: str, next: str) -> RatError:
    return kind(what, where=where, state=state, next=next)


class RequestError(RatError):
    """The request or the files are wrong. Exit code 2."""

    exit_code = 2


class StepFailed(RatError):
    """Building one asset failed: its code, its input, or the engine below it."""


class GateFailed(StepFailed):
    """A candidate was built and kept out by a gate. `checks` holds what every gate of it found."""

    checks: tuple[object, ...] = ()


class LakeError(RatError):
    """The lake could not do what was asked: locked, full, read-only, damaged, missing."""


class TransientError(LakeError):
    """The same request may succeed in a moment: a lock, a timeout, a refused connection."""


_DSN_PASSWORD = re.compile(r"(?P<head>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@]+(?=@)", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?P<head>\b[\w-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key)[\w-]*\s*[=:]\s*)"
    r"(?:'[^']*'|\"[^\"]*\"|[^\s,;)]+)",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"password|passwd|secret|token|api_?key|access_?key|private_?key|dsn", re.IGNORECASE)
_HIDDEN = "[hidden]"
_SHORTEST = 6  # shorter values ("1", "on") would blank out half of every message
_kept: set[str] = set()


def keep_secret(value: str) -> None:
    """From now on `value` is hidden wherever `redact` looks, whatever its variable is called."""
    if len(value) >= _SHORTEST:
        _kept.add(value)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` with passwords in addresses, `secret=...` pairs and values of secret-looking variables hidden."""
    if not text:
        return text
    for value in _secret_values(os.environ if environment is None else environment):
        text = text.replace(value, _HIDDEN)
    text = _DSN_PASSWORD.sub(rf"\g<head>{_HIDDEN}", text)
    return _ASSIGNED.sub(rf"\g<head>{_HIDDEN}", text)


def _secret_values(environment: Mapping[str, str]) -> Iterable[str]:
    values = {value for name, value in environment.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    return sorted(values | _kept, key=len, reverse=True)


def near_miss(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or an empty string when nothing is close."""
    close = nearest(name, known)
    return f" Did you mean '{close}'?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of `known` that is spelled most like `name`; '' when nothing is close."""
    from difflib import get_close_matches

    spelled = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), spelled, n=1, cutoff=0.6)
    return spelled[close[0]] if close else ""


def underline(path: str, line: int, column: int, length: int, text: str) -> str:
    """`path:line:column`, the line of the file, and carets below the span.

    `line` and `column` count from 1, `length` in characters, `text` is that line of the file.
    """
    shown = text.expandtabs(1).rstrip()
    return f"{path}:{line}:{column}\n    {shown}\n    {' ' * (column - 1)}{'^' * max(1, length)}"
