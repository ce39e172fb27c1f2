"""Peak memory of a step: the largest resident size of this process while the step runs.

Steps that run at the same time share the process, so each of them sees the sum.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

SAMPLE_EVERY_S = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")


class MemoryGauge:
    """Samples the process while it is entered."""

    def __init__(self) -> None:
        self._peaks: dict[str, int] = {}
        self._active: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> MemoryGauge:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._peaks[name] = max(self._peaks.get(name, 0), resident_bytes())
        self._active.add(name)
        try:
            yield
        finally:
            self._active.discard(name)

    def peak(self, name: str) -> int:
        """Bytes."""
        return max(self._peaks.get(name, 0), resident_bytes())

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            now = resident_bytes()
            for name in tuple(self._active):
                self._peaks[name] = max(self._peaks.get(name, 0), now)


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[1]) * _PAGE
    except OSError:
        return 0
