"""The outbox: messages that were decided and not yet delivered. They outlive the process that decided them.

A message is written in the transaction that notes it as told, under an id made of what it says, so it is there once. It
is delivered by whoever looks next; one who delivers claims it first. A channel that fails is tried again, later and
later: after half a minute, two minutes, eight, ... an hour; TRIES times.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ratatouille.lake import Journal
from ratatouille.lake.journal.books import Do
from ratatouille.observe.channels import addresses_in, send

TRIES = 10
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 3600.0
_CLAIM_S = 120.0  # a process that died while it delivered has lost its claim by then
_NAMES = ("id", "rule", "channel", "title", "body", "tries")


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    rule: str
    channel: str
    title: str
    body: str
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of the messages that were due. `failed`: channel and why."""

    sent: tuple[Message, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    waiting: int = 0  # that will be tried again
    given_up: int = 0


def put(do: Do, rule: str, channel: str, title: str, body: str, now: float) -> None:
    key = hashlib.sha256("\n".join((rule, channel, title, body, f"{now:.3f}")).encode()).hexdigest()[:24]
    do(
        "insert into alert_outbox (id, rule, channel, title, body, made_at, tries, next_at, claimed_until)"
        " values (?, ?, ?, ?, ?, ?, 0, ?, 0) on conflict (id) do nothing",
        (key, rule, channel, title, body, now, now),
    )


def deliver(
    journal: Journal,
    channels: Mapping[str, str],
    *,
    now: float | None = None,
    budget_s: float = 30.0,
    sender: Callable[..., str] = send,
) -> Delivered:
    """Send what is due, for at most about `budget_s` seconds. `channels`: name -> variable of the address."""
    moment = journal.now() if now is None else now
    until = time.monotonic() + budget_s
    sent: list[Message] = []
    failed: dict[str, str] = {}
    while time.monotonic() < until:
        claimed = journal.alone(partial(_claim, list(failed), moment))
        if claimed is None:
            break
        variable = channels.get(claimed.channel, "")
        error = sender(addresses_in(variable), claimed.title, claimed.body) if variable else "the channel is gone"
        if error == "no address is set":
            error = f"{variable} is not set"
        _note(journal, claimed, error, moment)
        if error:
            failed[claimed.channel] = error
        else:
            sent.append(claimed)
    waiting = journal.do("select count(*) from alert_outbox where sent_at is null and tries < ?", (TRIES,))
    gone = journal.do("select count(*) from alert_outbox where sent_at is null and tries >= ?", (TRIES,))
    return Delivered(tuple(sent), tuple(failed.items()), int(waiting[0][0]), int(gone[0][0]))


def _claim(failed: list[str], now: float, do: Do) -> Message | None:
    """The oldest message that is due, for a channel that has not failed just now."""
    others = f" and channel not in ({', '.join('?' * len(failed))})" if failed else ""
    found = do(
        f"select {', '.join(_NAMES)} from alert_outbox where sent_at is null and tries < ? and next_at <= ?"
        f" and claimed_until <= ?{others} order by made_at limit 1",
        (TRIES, now, now, *failed),
    )
    if not found:
        return None
    do("update alert_outbox set claimed_until = ? where id = ?", (now + _CLAIM_S, found[0][0]))
    return Message(*found[0])


def _note(journal: Journal, message: Message, error: str, now: float) -> None:
    if not error:
        journal.do(
            "update alert_outbox set sent_at = ?, tries = tries + 1, claimed_until = 0, error = '' where id = ?",
            (now, message.id),
        )
        return
    pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 4.0**message.tries)
    journal.do(
        "update alert_outbox set tries = ?, next_at = ?, claimed_until = 0, error = ? where id = ?",
        (message.tries + 1, now + pause, error, message.id),
    )
