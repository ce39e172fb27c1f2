"""What is going on, while it is: a live view on a terminal, a line for each finished asset elsewhere.

Both write to standard error, so that standard output holds the result alone.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratatouille.engine import Progress

    Reporter = Callable[[Progress], None]

_SHOWN = 12  # running assets at most


@contextmanager
def plain_reporter() -> Iterator[Reporter]:
    """A line when an asset takes long (with how far its chunks are), and when one is tried again; the rest is in the table at the end."""
    patience_s = 5.0
    started: dict[str, float] = {}
    told: dict[str, float] = {}
    guard = threading.Lock()

    def report(event: Progress) -> None:
        with guard:
            begun = started.setdefault(event.asset, time.monotonic())
            now = time.monotonic()
            took = now - begun
            if event.stage == "chunk" and now - told.get(event.asset, begun) < patience_s:
                return
            if event.text:
                told[event.asset] = now
                print(f"{event.asset}: {event.text}", file=sys.stderr, flush=True)
            elif event.stage == "done" and event.result is not None and took >= patience_s:
                place = f"[{event.done}/{event.total}] " if event.total > 1 else ""
                print(f"{place}{event.asset} {event.result.status} after {took:.0f} s", file=sys.stderr, flush=True)

    yield report


@contextmanager
def live_reporter() -> Iterator[Reporter]:
    """The running assets with their stage and seconds, redrawn four times a second."""
    view = _View()
    try:
        yield view.report
    finally:
        view.stop()


class _View:
    """Starts with the first event: a run that has nothing to do never loads rich."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: dict[str, tuple[str, float]] = {}
        self._done, self._total = 0, 0
        self._live: Any = None

    def report(self, event: Progress) -> None:
        with self._guard:
            self._done, self._total = event.done, event.total
            if event.stage == "done":
                self._running.pop(event.asset, None)
            else:
                _, since = self._running.get(event.asset, ("", time.monotonic()))
                self._running[event.asset] = (event.text or event.stage, since)
            if self._live is None and self._running:
                self._live = self._start()

    def _start(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        live = Live(
            console=Console(stderr=True, markup=False, highlight=False, emoji=False),
            get_renderable=self._picture,
            refresh_per_second=4,
            transient=True,
        )
        live.start()
        return live

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _picture(self) -> Any:
        from rich.text import Text

        now = time.monotonic()
        running = list(self._running.items())
        lines = [f"{self._done} of {self._total} assets done"]
        lines += [f"  {name}  {stage}  {now - since:.1f} s" for name, (stage, since) in running[:_SHOWN]]
        if len(running) > _SHOWN:
            lines.append(f"  and {len(running) - _SHOWN} more")
        return Text("\n".join(lines))


@contextmanager
def byte_progress(doing: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes on a terminal, nothing elsewhere: call it with (done, total)."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
