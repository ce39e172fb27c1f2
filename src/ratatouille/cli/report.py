"""`rat report`: a run or the workspace as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

EXAMPLES = """
rat report

rat report last -o run.html

rat report 20261122T0615 -o run.html

rat report -o release-1.4.html
"""


def report(
    ctx: typer.Context,
    run_id: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="One run, by its id or the beginning of it, or `last`. Without it: the whole workspace."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file. Default: the workspace's name and the time or run."
        ),
    ] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Write a run, or the whole workspace, as one HTML file to mail or to keep with a release.

    Everything is inside it: no scripts, nothing from elsewhere. Rows of tables are not in it, but for those that the
    error of a gate shows, with sensitive columns masked.
    """
    from ratatouille import project as files
    from ratatouille.pages.report import report_of_run, report_of_workspace, usual_name, write_report

    project = files.load(options.root_of(ctx, workspace))
    text, run = report_of_run(project, run_id) if run_id else (report_of_workspace(project), "")
    target = (output or Path(usual_name(project, run))).expanduser()
    size = write_report(text, target)
    p.print_json({"file": str(target), "bytes": size}) if as_json else p.say(f"{target}, {p.bytes_(size)}")
