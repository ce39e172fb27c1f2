"""Addresses: which page answers which one. `make_app` makes the application; `serve` keeps it running.

    app = make_app(root, Guard(...))

A page is a function of a request that returns facts and the name of a template. It runs in a thread of its own, reads,
and writes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ratatouille import project as files
from ratatouille.engine import look
from ratatouille.errors import RatError, RequestError
from ratatouille.lake import Lake
from ratatouille.pages import html
from ratatouille.pages.asset import asset_facts, sample
from ratatouille.pages.overview import Filter, overview
from ratatouille.pages.reading import Memory, Reading
from ratatouille.project.records import Project

LOOK_AT_FILES_EVERY_S = 2.0


@dataclass(slots=True)
class Kitchen:
    """One workspace while its pages are served: the files as they were a moment ago, and the lake, which stays open."""

    root: Path
    memory: Memory = field(default_factory=Memory)
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
                yield Reading(project, journal, lake, session, self.memory)

    def _lake_of(self, project: Project) -> Lake | None:
        with self._guard:
            if self._lake is None:
                self._lake = self._open.enter_context(look.reading_lake(project.workspace))
            return self._lake

    def close(self) -> None:
        with self._guard:
            self._open.close()
            self._lake = None


Page = Callable[[Kitchen, Request], Response]


def show_overview(kitchen: Kitchen, request: Request) -> Response:
    said = request.query_params
    only = Filter(said.get("find", "").strip(), said.get("layer", ""), said.get("health", ""))
    with kitchen.reading() as seen:
        return shown("overview.html", seen.project, only=only, view=overview(seen, only))


def show_asset(kitchen: Kitchen, request: Request) -> Response:
    name = request.path_params["name"]
    with kitchen.reading() as seen:
        facts = asset_facts(seen, name)
        return shown("asset.html", seen.project, view=facts, sample=sample(seen, name))


# address, who answers, methods
PAGES: list[tuple[str, Page, list[str]]] = [
    ("/", show_overview, ["GET"]),
    ("/asset/{name:path}", show_asset, ["GET"]),
]


def shown(template: str, project: Project, status: int = 200, **facts: Any) -> Response:
    """A page. `workspace` is known to every template."""
    return HTMLResponse(html.page(template, workspace=project.workspace, **facts), status)


def make_app(root: Path, pages: list[tuple[str, Page, list[str]]] | None = None) -> Starlette:
    kitchen = Kitchen(root)
    routes = [Route(path, _answer(kitchen, page), methods=methods) for path, page, methods in pages or PAGES]
    routes.append(Mount("/static", StaticFiles(directory=html.STATIC)))  # type: ignore[arg-type]
    app = Starlette(routes=routes)
    app.state.kitchen = kitchen
    return app


def _answer(kitchen: Kitchen, page: Page) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        try:
            return page(kitchen, request)
        except RatError as error:
            status = 404 if isinstance(error, RequestError) else 500
            return HTMLResponse(html.page("error.html", workspace=kitchen.project.workspace, error=error), status)

    return answer
