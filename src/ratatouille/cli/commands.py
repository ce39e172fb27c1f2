"""The list of commands. Each lives in a module of its own, with its examples."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

# command -> the module that holds it. The order is that of `rat --help`.
COMMANDS = {
    "init": "init",
    "check": "check",
    "plan": "plan",
    "run": "run",
    "test": "test",
    "query": "query",
    "show": "show",
    "render": "render",
    "history": "history",
    "diff": "diff",
    "runs": "runs",
    "compare": "compare",
    "quarantine": "quarantine",
    "alerts": "alerts",
    "rollback": "rollback",
    "release": "release",
    "verify": "verify",
    "clean": "clean",
    "doctor": "doctor",
    "export": "export",
    "report": "report",
    "docs": "docs",
    "ui": "ui",
    "dev": "dev",
}


def full_app() -> typer.Typer:
    """`rat` with all its commands."""
    return app_with(list(COMMANDS))


def app_with(names: Sequence[str]) -> typer.Typer:
    """`rat` with some of its commands: what the others would import is not loaded."""
    # Plain help: it is the same everywhere, and rich stays unloaded.
    app = typer.Typer(
        name="rat", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True
    )
    app.callback()(_rat)
    for name in names:
        module = import_module(f"ratatouille.cli.{COMMANDS[name]}")
        app.command(name, epilog=f"Examples:\n\n{module.EXAMPLES}")(getattr(module, name))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        import ratatouille

        print(f"rat {ratatouille.__version__}")
        raise typer.Exit()


def _rat(
    ctx: typer.Context,
    workspace: Annotated[
        Path | None,
        typer.Option(
            "--workspace",
            "-w",
            metavar="PATH",
            help="The workspace to work in: a folder in it. Default: RATATOUILLE_WORKSPACE, then the current folder.",
        ),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(
            "--env",
            metavar="NAME",
            help="The environment to work in, one of `environments:` in workspace.yaml; may stand anywhere."
            " Default: RATATOUILLE_ENV.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version of Ratatouille.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Ratatouille, a lakehouse in a folder.

    An asset is a file; running it means: build a candidate, check it, make it visible, in that order or not at all.
    """
    ctx.obj = workspace
