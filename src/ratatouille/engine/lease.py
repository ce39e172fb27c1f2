"""The lease of an asset: who may publish it now. One process at a time has it; the others wait."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ratatouille.errors import StepFailed
from ratatouille.lake import Journal

WAIT_S = 600.0
_FIRST_PAUSE_S = 0.01


def wait_for_lease(journal: Journal, name: str, run_id: str) -> tuple[int, bool]:
    """The token of the lease on `name`, and whether somebody else had it first.

    StepFailed when a living process does not let go of it in ten minutes.
    """
    deadline, pause = time.monotonic() + WAIT_S, _FIRST_PAUSE_S
    while (token := journal.take_lease(name, run_id)) is None:
        if time.monotonic() > deadline:
            raise StepFailed(
                f"{name} is being built by {journal.lease_holder(name)}",
                where=name,
                next="wait for it (rat runs), then ask for the same again",
            )
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
        pause = min(0.5, pause * 1.5)
    return token, pause > _FIRST_PAUSE_S


@contextmanager
def leased(journal: Journal, name: str, run_id: str) -> Iterator[int]:
    """The right to publish `name` while the block runs."""
    token, _ = wait_for_lease(journal, name, run_id)
    try:
        yield token
    finally:
        journal.drop_lease(name, token)
