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
from ratatouille.engine import look, storage_of
from ratatouille.lake import Lake, Storage, open_lake
from ratatouille.pages.console import Console
from ratatouille.pages.reading import Memory, Reading
from ratatouille.project.records import Project, Workspace

LOOK_AT_FILES_EVERY_S = 2.0


@dataclass(slots=True)
class _Opened:
    """A lake, and what is known of it. It is closed when nobody wants it any more and nobody reads in it."""

    storage: Storage
    lake: Lake
    close: ExitStack
    memory: Memory = field(default_factory=Memory)
    readers: int = 0
    wanted: bool = True


@dataclass(slots=True)
class Kitchen:
    root: Path
    console: Console = field(default_factory=Console)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _opened: _Opened | None = None
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
        with look.reading_journal(project.workspace) as journal, self._lake_of(project) as opened:
            if opened is None:
                yield Reading(project, journal)
                return
            with opened.lake.pinned("reading for a page") as session:
                yield Reading(project, journal, opened.lake, session, session.snapshot, opened.memory)

    def warm(self) -> None:
        """Open and read what the first page would wait for; what goes wrong is said by that page."""
        with suppress(Exception), self.reading() as seen:
            seen.heads()

    @contextmanager
    def _lake_of(self, project: Project) -> Iterator[_Opened | None]:
        with self._guard:
            opened = self._open(project)
            if opened is not None:
                opened.readers += 1
        try:
            yield opened
        finally:
            if opened is not None:
                with self._guard:
                    opened.readers -= 1
                    _close_if_unused(opened)

    def _open(self, project: Project) -> _Opened | None:
        storage = storage_of(project.workspace)
        if self._opened is not None and self._opened.storage != storage:  # workspace.yaml names another one now
            self._forget()
        if self._opened is None and look.has_lake(project.workspace):
            stack = ExitStack()
            self._opened = _Opened(storage, stack.enter_context(open_lake(storage)), stack)
        return self._opened

    def forget_lake(self) -> None:
        """The next page opens the lake anew; who reads in it now reads on."""
        with self._guard:
            self._forget()

    def _forget(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.wanted = False
            _close_if_unused(opened)

    def close(self) -> None:
        self.forget_lake()
        self.console.close()


def _close_if_unused(opened: _Opened) -> None:
    if not opened.wanted and not opened.readers:
        opened.close.close()
