"""`rat clean`: what the lake need not keep goes."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

if TYPE_CHECKING:
    from ratatouille.project.records import Project
    from ratatouille.upkeep.clean import Cleaned, Removed

EXAMPLES = """
rat clean --dry-run

rat clean

rat clean --removed --dry-run
"""


def clean(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, with its bytes.")] = False,
    removed: Annotated[bool, typer.Option("--removed", help="Drop tables too whose file is gone.")] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Let old versions, leftovers and small files go.

    Versions beyond the retention expire; their files go a day later, when nobody reads them any more. What killed runs
    left goes after a day, candidates that were kept out after a week. Many small files of a table become one. The
    current version stays, and so does any that is on hold or that a current one was built from. Records of old runs go,
    here and in the history of rat dev; each day stays as a line. While a run is going on, nothing is done.
    """
    from ratatouille import project as files
    from ratatouille.engine import as_json as mapping
    from ratatouille.upkeep.clean import clean

    project = files.load(options.root_of(ctx, workspace))
    done = clean(project, dry_run=dry_run, removed=removed)
    if not done.waits_for and (gone := _prune_dagster(project, dry_run)):
        done = replace(done, removed=(*done.removed, gone))
    p.print_json(mapping(done)) if as_json else _print(done)


def _prune_dagster(project: Project, dry_run: bool) -> Removed | None:
    """The history of `rat dev`, where there is one and Dagster is installed."""
    home, keep_s = Path(project.workspace.root) / ".rat" / "dagster", project.workspace.observe.keep_runs_s
    if not (home / "history").is_dir() or find_spec("dagster") is None:
        return None
    from ratatouille.dagster.history import prune_home
    from ratatouille.engine.workbench import journal_path
    from ratatouille.lake import open_journal
    from ratatouille.upkeep.clean import Removed

    with open_journal(journal_path(project.workspace)) as journal:
        found = prune_home(home, journal, time.time() - keep_s, dry_run=dry_run)
    why = f"older than {keep_s / 86_400:.0f} days; each day stays as a line, and so do the newest of each asset"
    return (
        Removed("Dagster runs", str(home.relative_to(project.workspace.root)), 0, found.runs, why)
        if found.runs
        else None
    )


def _print(done: Cleaned) -> None:
    if done.waits_for:
        p.say(f"Nothing was cleaned: {', '.join(done.waits_for)} is going on. Try again when it has ended (rat runs).")
        return
    lines = [*done.removed, *done.compacted]
    if lines:
        rows = [
            [p.printable(one.what), p.printable(one.name), p.nonzero(one.files), p.bytes_(one.bytes), one.why]
            for one in lines
        ]
        p.print_table(["what", "where", "files", "size", "why"], rows, right=["files", "size"], spare=["why"])
    for warning in done.warnings:
        p.say(f"{p.paint('Warning:', 'yellow')} {p.printable(warning)}")
    would = "would expire" if done.dry_run else "expired"
    freed = "would be freed" if done.dry_run else "freed"
    if not lines and not done.expired:
        p.say("Nothing to clean.")
    else:
        p.say(
            f"{p.plural(done.expired, 'version')} of the lake {would}, {done.kept:,} stay; {p.bytes_(done.bytes)} {freed}."
        )
    if done.later_bytes:
        p.say(f"{p.bytes_(done.later_bytes)} more can go a day from now: rat clean")
