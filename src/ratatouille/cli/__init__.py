"""`rat`: parse, one call, print. The only package that prints.

Starting fast is a feature: a command loads its own module and nothing of the others.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typer import Typer

    app: Typer


def main() -> None:
    """The command line; ends the process with 0 (done), 1 (a run or a gate failed) or 2 (wrong request or files)."""
    from ratatouille.cli.entry import run_command

    sys.exit(run_command(sys.argv[1:]))


def __getattr__(name: str) -> Any:
    if name == "app":
        from ratatouille.cli.commands import full_app

        return full_app()
    raise AttributeError(f"module 'ratatouille.cli' has no attribute {name!r}")
