"""`rat run`: build what is stale."""

from __future__ import annotations

from typing import Annotated

import typer

from ratatouille.cli import options

EXAMPLES = """
rat run

rat run silver.sales

rat run +gold.sales_summary

rat run pipeline:sales --full

rat run gold.daily --partition 2026-11-01..2026-11-30

rat run "layer:gold and not tag:slow" --json
"""


def run(
    ctx: typer.Context,
    selectors: options.Selectors = None,
    full: options.Full = False,
    partition: options.Partitions = None,
    accept_schema: options.AcceptSchema = False,
    accept_loss: options.AcceptLoss = False,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Start anew instead of going on with a run that was killed.")
    ] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> int:
    """Build what is stale.

    A candidate is built, checked, and made visible, or not at all. An asset that is up to date is skipped. When one
    fails, what it feeds is not built, the rest goes on, and the exit code is 1.
    """
    from ratatouille.cli.build import build
    from ratatouille.engine import Request

    request = Request(
        tuple(selectors or ()),
        force=full,
        accept_schema=accept_schema,
        accept_loss=accept_loss,
        resume=not no_resume,
        partitions=tuple(partition or ()),
    )
    return build(options.root_of(ctx, workspace), request, as_json=as_json)
