"""Memory: what this process uses, what it may use, and what is done as the one nears the other.

budget     the profile's `memory:`, the machine's, or the container's, whichever is smallest
high       80 % of it: chunks are halved, and no further step is begun while one runs
full       95 % of it: DuckDB writes what it holds to disk; if that does not help, the step stops, in four lines
peak       of a step: the largest resident size of this process meanwhile. Steps at the same time see their sum
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from ratatouille.errors import StepFailed

SAMPLE_EVERY_S = 0.02
LOOK_AT_DISK_EVERY_S = 0.5
HIGH, FULL, CALM = 0.80, 0.95, 0.60  # shares of the budget
RELIEVE_EVERY_S = 2.0
PROCESS_BYTES = 200_000_000  # Python with the libraries of a run: a part of every budget
_PAGE = os.sysconf("SC_PAGE_SIZE")


class MemoryGauge:
    """Samples the process while it is entered.

    `relieve` is called with a share of DuckDB's part that it may use: 0.5 when memory is full, 1 when it is calm again.
    What the process held before, as a notebook does, is none of the run's budget; of `ceiling_bytes`, which the
    container or the machine has, it is a part.
    """

    def __init__(
        self,
        budget_bytes: int = 0,
        relieve: Callable[[float], None] | None = None,
        ceiling_bytes: int = 0,
        disk: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self.budget_bytes = budget_bytes  # 0: nobody minds
        self._ceiling_bytes = ceiling_bytes or sys.maxsize
        self._before = max(0, resident_bytes() - PROCESS_BYTES)
        self.was_high = False
        self._relieve = relieve
        self._trimmed_at = 0.0
        self._relieved_at = 0.0  # time.monotonic(); 0: DuckDB has all of its part
        self._peaks: dict[str, int] = {}
        self._active: set[str] = set()
        self._disk = disk  # (bytes spilled, bytes left)
        self._looked_at = 0.0  # at the disk; time.monotonic()
        self._cpu_before: dict[str, float] = {}
        self._spilled: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._shares: dict[str, float] = {}
        self._guard = threading.Lock()
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
        self._cpu_before.setdefault(name, cpu_seconds())
        self._active.add(name)
        try:
            yield
        finally:
            self._active.discard(name)

    def peak(self, name: str) -> int:
        """Bytes."""
        return max(self._peaks.get(name, 0), resident_bytes())

    def used(self, name: str) -> dict[str, float]:
        """What a step has used so far. CPU seconds are those of this process and its children, of all steps together."""
        if name not in self._cpu_before:
            return {}
        self._look_at_disk(time.monotonic(), (name,))
        self._note_share((name,))
        found: dict[str, float] = {"cpu_s": round(cpu_seconds() - self._cpu_before[name], 3)}
        if self.budget_bytes:
            found["memory_share"] = round(self._shares[name], 3)
        if self._disk is not None:
            found |= {"spill_bytes": self._spilled[name], "disk_left_bytes": self._left[name]}
        return found

    def share(self) -> float:
        """How much of the budget is used, 0 to 1 and above."""
        if not self.budget_bytes:
            return 0.0
        now = resident_bytes()
        return max((now - self._before) / self.budget_bytes, now / self._ceiling_bytes)

    @property
    def is_high(self) -> bool:
        high = self.share() >= HIGH
        self.was_high |= high
        return high

    def refuse_when_full(self, asset: str) -> None:
        """Raises StepFailed when memory is full, and letting go of what can be let go did not help."""
        if self.share() < FULL:
            return
        self._let_go()
        if self.share() < FULL:
            return
        raise StepFailed(
            f"{asset}: memory is full: {self.share():.0%} of {size(self.budget_bytes)} are used",
            where="resources: {memory: ...} in workspace.yaml, or the limit of the container",
            next=f"make chunks smaller (chunks: {{rows: ...}} in the asset's YAML file) or raise memory:, then: rat run {asset}",
        )

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            now = resident_bytes()
            for name in tuple(self._active):
                self._peaks[name] = max(self._peaks.get(name, 0), now)
            if self.budget_bytes:
                share = self._note_share(tuple(self._active))
                if self._relieve is not None:
                    self._keep_below(share)
            if (at := time.monotonic()) - self._looked_at > LOOK_AT_DISK_EVERY_S:
                self._look_at_disk(at, tuple(self._active))

    def _note_share(self, names: tuple[str, ...]) -> float:
        share = self.share()
        for name in names:
            self._shares[name] = max(self._shares.get(name, 0.0), share)
        return share

    def _look_at_disk(self, at: float, names: tuple[str, ...]) -> None:
        if self._disk is None:
            return
        self._looked_at = at
        spilled, left = self._disk()
        for name in names:
            self._spilled[name] = max(self._spilled.get(name, 0), spilled)
            self._left[name] = min(self._left.get(name, left), left)

    def _keep_below(self, share: float) -> None:
        if share >= FULL and time.monotonic() - self._relieved_at > RELIEVE_EVERY_S:
            self._let_go()
        elif share < CALM and self._relieved_at and self._relieve is not None:
            self._relieved_at = 0.0
            self._relieve(1.0)

    def trim(self) -> bool:
        """Give what no library needs any more back to the system; whether that was enough."""
        if time.monotonic() - self._trimmed_at > RELIEVE_EVERY_S:
            self._trimmed_at = time.monotonic()
            _trim()
        return self.share() < HIGH

    def _let_go(self) -> None:
        """DuckDB's buffers to the spill folder, and free pages of all libraries to the system."""
        with self._guard:
            if self._relieve is not None:
                self._relieve(0.5)
            _trim()
            self._relieved_at = time.monotonic()


def _trim() -> None:
    gc.collect()
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # only the GNU library has it
        ctypes.CDLL(None).malloc_trim(0)


def cpu_seconds() -> float:
    """Of this process, all its threads, and its children that have ended."""
    children = os.times()  # in hundredths, which is too coarse for a step of our own
    return time.process_time() + children.children_user + children.children_system


def resident_bytes() -> int:
    """Of this process. Where the system does not say, as on macOS: the most that it ever was."""
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[1]) * _PAGE
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
