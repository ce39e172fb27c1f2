"""Watching: a run that goes on looks for what is to be told before it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ratatouille.engine import Workbench
from ratatouille.observe import alerts

LOOK_S = 30.0  # a run that is shorter never looks
_STOP_WITHIN_S = 10.0


@contextmanager
def watching(bench: Workbench) -> Iterator[None]:
    """Look every LOOK_S while the block runs. Nothing that goes wrong here reaches the run."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            _look(bench)

    thread = threading.Thread(target=watch, name="alerts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_STOP_WITHIN_S)


def _look(bench: Workbench) -> None:
    try:
        alerts.look(bench.project, bench.journal, since=bench.journal.now() - LOOK_S, budget_s=LOOK_S / 3)
    except Exception:
        return  # the look at the end of the run says what is wrong
