"""Channels: an address, and apprise to carry a message there. Addresses come from the environment and go nowhere else.

What goes wrong is an answer, not an exception: a channel that fails must not fail what it is told about.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from ratatouille.errors import keep_secret, redact

INSTALL = "pip install 'ratatouille-lakehouse[alerts]'"
_LONGEST = 300


def addresses_in(variable: str) -> list[str]:
    """The apprise addresses in a variable of the environment, separated by blanks or commas."""
    return [one for one in re.split(r"[\s,]+", os.environ.get(variable, "")) if one]


def send(addresses: Sequence[str], title: str, body: str) -> str:
    """'' when every address has taken the message; else why not, in one line and without any address."""
    if not addresses:
        return "no address is set"
    try:
        from apprise import Apprise
    except ImportError:
        return f"apprise is not installed: {INSTALL}"
    _keep_secrets(addresses)
    messenger = Apprise()
    with _heard() as said:
        unreadable = sum(1 for address in addresses if not messenger.add(address))
        if unreadable:
            return f"{unreadable} of {len(addresses)} addresses cannot be read by apprise"
        try:
            delivered = bool(messenger.notify(title=title, body=body))
        except Exception as error:  # whatever a channel's library raises
            return redact(f"{type(error).__name__}: {error}")[:_LONGEST]
    if delivered:
        return ""
    why = " ".join(said[-1].split()) if said else ""
    return redact(f"could not be delivered to all of {len(addresses)} addresses{': ' if why else ''}{why}")[:_LONGEST]


def _keep_secrets(addresses: Sequence[str]) -> None:
    """From now on no part of an address but its host reaches a text."""
    for address in addresses:
        keep_secret(address)
        try:
            parts = urlsplit(address)
        except ValueError:
            continue
        values = [parts.username, parts.password, *parts.path.split("/"), *re.split("[&=]", parts.query)]
        for value in values:
            keep_secret(unquote(value or ""))


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What apprise says while the block runs, instead of it reaching a log."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())

    logger, listener = logging.getLogger("apprise"), Listener()
    before = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.propagate = before
        logger.removeHandler(listener)
