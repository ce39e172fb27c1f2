"""A kitchen: one workspace while its pages are served. Its files as they were a moment ago, and its lake, which stays open.

Opening a lake of a thousand tables takes a tenth of a second, so it is opened once; DuckLake looks for newer versions by
itself, and nothing is locked between two pages.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from ratatouille import project as files
from ratatouille.engine import look
from ratatouille.lake import Lake
from ratatouille.pages.console import Console
from ratatouille.pages.reading import Memory, Reading
from ratatouille.project.records import Project, Workspace

LOOK_AT_FILES_EVERY_S = 2.0


@dataclass(slots=True)
class Kitchen:
    root: Path
    memory: Memory = field(default_factory=Memory)
    console: Console = field(default_factory=Console)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _open: ExitStack = field(default_factory=ExitStack)
    _lake: Lake | None = None
    _project: Project | None = None
    _looked_at: float = 0.0

    @property
    def project(self) -> Project:
        with self._guard:
            if self._project is None or monotonic() - self._looked_at > LOOK_AT_FILES_EVERY_S:
                self._project = files.load(self.root)
                self._looked_at = monotonic()
            return self._project

    @property
    def workspace(self) -> Workspace:
        """As it was last read, also where it cannot be read now."""
        known = self._project
        return known.workspace if known is not None else Workspace(str(self.root), self.root.name)

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """The files, the journal, and a session on the lake at one version."""
        project = self.project
        lake = self._lake_of(project)
        with look.reading_journal(project.workspace) as journal:
            if lake is None:
                yield Reading(project, journal)
                return
            with lake.pinned("reading for a page") as session:
                yield Reading(project, journal, lake, session, session.snapshot, self.memory)

    def warm(self) -> None:
        """Open and read what the first page would wait for; what goes wrong is said by that page."""
        with suppress(Exception), self.reading() as seen:
            seen.heads()

    def _lake_of(self, project: Project) -> Lake | None:
        with self._guard:
            if self._lake is None and look.has_lake(project.workspace):
                self._lake = self._open.enter_context(look.reading_lake(project.workspace))
            return self._lake

    def forget_lake(self) -> None:
        """The next page opens the lake anew."""
        with self._guard:
            self._lake = None
            self._open.close()

    def close(self) -> None:
        self.forget_lake()
        self.console.close()
