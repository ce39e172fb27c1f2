"""`rat ui`: the workspace in a browser."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p
from ratatouille.errors import RequestError

HOST = "127.0.0.1"
PORT = 3040

EXAMPLES = """
rat ui

rat ui --open

rat ui --port 3041

RATATOUILLE_UI_PASSWORD=... rat ui --host 0.0.0.0 --name lake.example.org
"""


def ui(
    ctx: typer.Context,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, metavar="N", help="Where it listens; 0: any free port.")
    ] = PORT,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="On which address; 127.0.0.1 is this machine alone. Any other asks for RATATOUILLE_UI_PASSWORD.",
        ),
    ] = HOST,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="A name by which browsers call this machine, behind a proxy. May be repeated.",
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show the workspace in a browser: assets, runs, lineage, checks, versions, rows that are kept out.

    It runs until Ctrl-C and changes nothing. Only who has the address that it prints can look.
    Needs: pip install 'ratatouille-lakehouse[ui]'
    """
    root = options.root_of(ctx, workspace)
    serve = _needed()

    def ready(address: str) -> None:
        if as_json:
            p.print_json({"address": address, "workspace": str(root)})
        else:
            p.say(f"The pages are at {p.paint(address, 'bold')}")
            p.say(f"  workspace  {root}")
            p.say("  Ctrl-C stops it.")
        sys.stdout.flush()  # whoever started this may read the address from a pipe
        if open_:
            import webbrowser

            webbrowser.open(address)

    serve(
        root,
        ready,
        host=host,
        port=port,
        names=tuple(name or ()),
        password=os.environ.get("RATATOUILLE_UI_PASSWORD", ""),
    )
    if not as_json:
        p.say("Stopped.")


def _needed() -> Callable[..., None]:
    """The server, or what to install for it."""
    try:
        from ratatouille.pages.serve import serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ratatouille"):
            raise
        raise RequestError(
            f"rat ui needs {error.name}, which is not installed",
            where="the extra `ui` of ratatouille-lakehouse",
            state="Nothing was started.",
            next="pip install 'ratatouille-lakehouse[ui]'",
        ) from error
    return serve
