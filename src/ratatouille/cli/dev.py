"""`rat dev`: Dagster's pages and its daemon on this workspace."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p
from ratatouille.dagster.serve import HOST, PORT, Served, serve

EXAMPLES = """
rat dev

rat dev --port 3031

rat dev --home /var/lib/kitchen/dagster
"""


def dev(
    ctx: typer.Context,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, metavar="N", help="Where it listens; 0: any free port.")
    ] = PORT,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="On which address; 127.0.0.1 is this machine alone.")
    ] = HOST,
    home: Annotated[
        Path | None,
        typer.Option("--home", metavar="PATH", help="Where history, logs and dagster.yaml are kept: .rat/dagster/"),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what Dagster says about itself.")] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Start Dagster on this workspace: its pages, schedules and sensors.

    It runs until Ctrl-C. History, logs and settings are kept in .rat/dagster/, and a run that a crash has ended goes
    on at the next start. Needs: pip install 'ratatouille-lakehouse[dagster]'
    """
    root = options.root_of(ctx, workspace)
    if not as_json:
        p.say("Starting Dagster ...")
        if not _is_private(host):
            p.say(p.paint(f"Dagster asks for no password: whoever reaches {host} can run code here.", "yellow"))

    def ready(served: Served) -> None:
        if as_json:
            p.print_json(
                {
                    "address": served.address,
                    "home": str(served.home),
                    "workspace": str(served.root),
                    "dead_runs": list(served.dead_runs),
                }
            )
        else:
            _say_where(served)
        sys.stdout.flush()  # whoever started this may read the address from a pipe

    serve(root, ready, host=host, port=port, home=home, verbose=verbose)
    if not as_json:
        p.say("Stopped.")


def _say_where(served: Served) -> None:
    if served.dead_runs:
        p.say(f"Found dead and marked as failed: {', '.join(served.dead_runs)}")
    p.say(f"Dagster is at {p.paint(served.address, 'bold')}")
    p.say(f"  workspace  {served.root}")
    p.say(f"  history    {served.home}")
    p.say("  Ctrl-C stops it.")


def _is_private(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
