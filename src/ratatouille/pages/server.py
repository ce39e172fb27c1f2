"""Addresses: which page answers which one. `make_app` makes the application; serve.py keeps it running.

A page is a function of the kitchen and a request. It runs in a thread of its own, reads, and writes nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ratatouille.beside import DAGSTER, address_of
from ratatouille.errors import RatError, RequestError
from ratatouille.observe.compare import compare
from ratatouille.pages import console_pages, history, html
from ratatouille.pages.asset import SAMPLE_ROWS, asset_facts, sample
from ratatouille.pages.books import OpenBooks
from ratatouille.pages.code import code
from ratatouille.pages.guard import Access, Guard
from ratatouille.pages.kitchen import Kitchen
from ratatouille.pages.lineage import lineage
from ratatouille.pages.overview import ASSETS, Filter, overview, run_lines
from ratatouille.pages.reading import Reading
from ratatouille.pages.run import STEPS, run_facts
from ratatouille.project.records import Project

DEBUG = "RATATOUILLE_DEBUG"
MOST = 2000  # lines of any list on one page
RUNS = 50
Form = Mapping[str, str]
Page = Callable[[Kitchen, Request, Form], Response]


def shown(template: str, project: Project, status: int = 200, **facts: Any) -> Response:
    """A page. `workspace` is known to every template."""
    return HTMLResponse(html.page(template, workspace=project.workspace, **facts), status)


def _number(said: str | None, otherwise: int | None = None, most: int = 2**63 - 1) -> int | None:
    """A whole number of an address; what is none is as if it were not said."""
    return min(int(said), most) if said and said.isdecimal() and len(said) < 20 else otherwise


def show_overview(kitchen: Kitchen, request: Request, form: Form) -> Response:
    said = request.query_params
    only = Filter(said.get("find", "").strip()[:200], said.get("layer", ""), said.get("health", ""))
    with kitchen.reading() as seen:
        view = overview(seen, only, assets=_number(said.get("n"), ASSETS, MOST) or ASSETS)
        return shown("overview.html", seen.project, only=only, view=view)


# Tab of an asset's page -> what it shows beside the head.
TABS: Mapping[str, Callable[[Reading, Any, Mapping[str, str]], dict[str, Any]]] = {
    "": lambda seen, facts, said: {
        "sample": sample(seen, facts.line.name, SAMPLE_ROWS),
        "figures": history.figures(seen, facts.line.name, last=20),
    },
    "lineage": lambda seen, facts, said: {"lineage": lineage(seen, facts, said.get("column", ""))},
    "checks": lambda seen, facts, said: {"checks": history.checks(seen, facts.line.name)},
    "versions": lambda seen, facts, said: {
        "versions": history.versions(
            seen, facts.line.name, limit=_number(said.get("n"), history.VERSIONS, MOST) or history.VERSIONS
        )
    },
    "diff": lambda seen, facts, said: {
        "difference": history.difference(seen, facts.line.name, _number(said.get("a")), _number(said.get("b")))
    },
    "kept": lambda seen, facts, said: {
        "kept": history.kept_out(
            seen,
            facts.line.name,
            check=said.get("check", ""),
            run=said.get("run", ""),
            skip=_number(said.get("skip"), 0) or 0,
        ),
        "said": {name: said.get(name, "") for name in ("check", "run")} | {"skip": _number(said.get("skip"), 0) or 0},
        "page_rows": history.ROWS,
    },
    "trends": lambda seen, facts, said: {"figures": history.figures(seen, facts.line.name)},
    "code": lambda seen, facts, said: {"code": code(seen, facts.line.name)},
}


def show_asset(kitchen: Kitchen, request: Request, form: Form) -> Response:
    said = request.query_params
    tab = said.get("tab", "") if said.get("tab", "") in TABS else ""
    with kitchen.reading() as seen:
        facts = asset_facts(seen, request.path_params["name"])
        more = TABS[tab](seen, facts, said)
        there = address_of(kitchen.root, DAGSTER)
        return shown(f"asset_{tab or 'about'}.html", seen.project, view=facts, tab=tab, dagster=there, **more)


def show_runs(kitchen: Kitchen, request: Request, form: Form) -> Response:
    said = request.query_params
    before = said.get("before", "")
    with kitchen.reading() as seen:
        when = float(before) if before.replace(".", "", 1).isdecimal() else None
        lines = run_lines(seen, RUNS + 1, before=when, status=said.get("status", ""))
        return shown("runs.html", seen.project, runs=lines[:RUNS], more=len(lines) > RUNS, only=said.get("status", ""))


def show_run(kitchen: Kitchen, request: Request, form: Form) -> Response:
    with kitchen.reading() as seen:
        most = _number(request.query_params.get("n"), STEPS, MOST) or STEPS
        view = run_facts(seen, request.path_params["run_id"], steps=most)
        # Only a run of Dagster is known there, by the same id.
        there = address_of(kitchen.root, DAGSTER) if view.line.asked.startswith("Dagster") else ""
        return shown("run.html", seen.project, view=view, dagster=there)


def show_compare(kitchen: Kitchen, request: Request, form: Form) -> Response:
    """Two runs, or two versions of an asset; what is not said is the newest and the one before it."""
    said = request.query_params
    asset, one, other = (said.get(name, "").strip()[:200] for name in ("asset", "a", "b"))
    what = [word for word in (asset, one, other) if word]
    with kitchen.reading() as seen:
        runs = run_lines(seen, RUNS)
        try:
            found, error = compare(seen.project, *what, books=OpenBooks(seen)), None
        except RatError as failed:
            found, error = None, failed
        facts = {"asset": asset, "a": one, "b": other}
        return shown("compare.html", seen.project, found=found, error=error, asked=bool(what), said=facts, runs=runs)


def show_console(kitchen: Kitchen, request: Request, form: Form) -> Response:
    return console_pages.show_console(kitchen.project, kitchen.console, form)


def download(kitchen: Kitchen, request: Request, form: Form) -> Response:
    return console_pages.download(kitchen.project, kitchen.console, form)


# address, who answers, methods
PAGES: list[tuple[str, Page, list[str]]] = [
    ("/", show_overview, ["GET"]),
    ("/asset/{name:path}", show_asset, ["GET"]),
    ("/runs", show_runs, ["GET"]),
    ("/run/{run_id:path}", show_run, ["GET"]),
    ("/compare", show_compare, ["GET"]),
    ("/console", show_console, ["GET", "POST"]),
    ("/console/download", download, ["POST"]),
]


def make_app(root: Path, access: Access) -> Starlette:
    """The application. `app.state.ready`, where somebody sets it, is called when it can be asked."""
    kitchen = Kitchen(root)
    routes: list[Route | Mount] = [
        Route(path, _answer(kitchen, access, page), methods=methods) for path, page, methods in PAGES
    ]
    routes.append(Mount("/static", StaticFiles(directory=html.STATIC)))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        threading.Thread(target=kitchen.warm, name="warm", daemon=True).start()
        if hasattr(app.state, "ready"):
            app.state.ready()
        try:
            yield
        finally:
            await run_in_threadpool(kitchen.close)

    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, access=access)],
        lifespan=lifespan,
        exception_handlers={404: _not_there(kitchen)},
    )
    app.state.kitchen = kitchen
    return app


def _answer(kitchen: Kitchen, access: Access, page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        form = {}
        if request.method == "POST":
            said = (await request.body()).decode("utf-8", "replace")
            form = dict(parse_qsl(said, keep_blank_values=True, max_num_fields=20))
            if not access.is_form(form.get("token", "")):
                return PlainTextResponse("This form is not of this session. Open the page again.\n", 403)
        return await run_in_threadpool(_page_or_error, kitchen, page, request, form)

    return answer


def _page_or_error(kitchen: Kitchen, page: Page, request: Request, form: Form) -> Response:
    try:
        return page(kitchen, request, form)
    except RequestError as error:
        return _error(kitchen, error, 404)
    except RatError as error:
        kitchen.forget_lake()
        return _error(kitchen, error, 500)
    except Exception as error:
        if os.environ.get(DEBUG) == "1":
            raise
        defect = RatError(
            f"This is a defect in rat: {type(error).__name__}: {error}",
            where=request.url.path,
            state="What was published stands.",
            next=f"{DEBUG}=1 rat ui shows the traceback; please report it",
        )
        return _error(kitchen, defect, 500)


def _error(kitchen: Kitchen, error: RatError, status: int) -> Response:
    return HTMLResponse(html.page("error.html", workspace=kitchen.workspace, error=error.as_record()), status)


def _not_there(kitchen: Kitchen) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def not_there(request: Request, error: Exception) -> Response:
        known = RequestError("There is no such page", where=request.url.path, next="the assets are the first page")
        return await run_in_threadpool(_error, kitchen, known, 404)

    return not_there
