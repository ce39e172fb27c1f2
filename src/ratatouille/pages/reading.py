"""Reading: what the facts of a page are made from, opened once for a page.

A server that shows many pages gives each reading the same `Memory`: an overview of a thousand assets then asks only
for what was published since.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ratatouille.engine import look
from ratatouille.lake import Journal, Lake, Session, ledger, standing
from ratatouille.lake.ledger import Brief, Hold
from ratatouille.project.records import Project

_MANY = 5_000
KEPT = 500  # versions of each asset; `rat history` shows all


@dataclass(slots=True)
class Memory:
    """The ledger in brief at a version of the lake, what was held there, and what stood there."""

    version: int = 0
    entries: dict[str, deque[Brief]] = field(default_factory=dict)  # by asset, oldest first
    heads: dict[str, Brief] = field(default_factory=dict)
    runs: dict[str, list[Brief]] = field(default_factory=dict)  # what each published
    holds: Mapping[str, Hold] = field(default_factory=dict)
    standing: Mapping[str, str] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def follow(self, session: Session, version: int) -> None:
        """Up to the version that the session sees. A lake that went back to an earlier one is read anew."""
        with self.guard:
            if version == self.version:
                return
            if version < self.version:
                self.entries.clear()
                self.heads.clear()
                self.runs.clear()
            found = ledger.briefs(session, after=self.version if self.entries else 0)
            for one in found:
                self.entries.setdefault(one.asset, deque(maxlen=KEPT)).append(one)
                self.heads[one.asset] = one
                self.runs.setdefault(one.run_id, []).append(one)
            if len(found) > _MANY:
                # They stay, and hold no cycles: looking for some among 50,000 versions takes 0.1 s, in some page or other.
                gc.collect()
                gc.freeze()
            self.holds, self.standing, self.version = ledger.holds(session), standing(session), version


@dataclass(frozen=True, slots=True)
class Reading:
    """The files, and where something was built the journal and the lake."""

    project: Project
    journal: Journal | None = None
    lake: Lake | None = None
    session: Session | None = None  # on the lake, at one version
    version: int = 0
    memory: Memory = field(default_factory=Memory)

    def heads(self) -> Mapping[str, Brief]:
        """The current version of every asset, in brief."""
        return self._followed().heads

    def entries(self, name: str, limit: int = KEPT) -> list[Brief]:
        """The newest versions of an asset, newest first; KEPT at most."""
        known = self._followed().entries.get(name, ())
        return list(reversed(known))[:limit]

    def published_in(self, run_id: str) -> list[Brief]:
        """What a run published."""
        return self._followed().runs.get(run_id, [])

    def holds(self) -> Mapping[str, Hold]:
        """The assets that were rolled back and wait for a release."""
        return self._followed().holds

    def standing(self) -> Mapping[str, str]:
        """What stands in the lake: `silver.sales` -> table | view."""
        return self._followed().standing

    def _followed(self) -> Memory:
        if self.session is not None:
            self.memory.follow(self.session, self.version)
        return self.memory


@contextmanager
def reading(project: Project) -> Iterator[Reading]:
    """Everything closed again at the end. A workspace in which nothing has run has neither journal nor lake."""
    with look.reading_journal(project.workspace) as journal, look.reading_lake(project.workspace) as lake:
        if lake is None:
            yield Reading(project, journal)
            return
        with lake.pinned("reading for a page") as session:
            yield Reading(project, journal, lake, session, session.snapshot)
