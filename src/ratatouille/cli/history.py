"""`rat history`: what was published, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

if TYPE_CHECKING:
    from ratatouille.lake import Entry

EXAMPLES = """
rat history

rat history silver.sales -n 5

rat history silver.sales --json
"""


def history(
    ctx: typer.Context,
    asset: Annotated[str | None, typer.Argument(metavar="ASSET", help="One asset; without it all of them.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many versions, newest first.")] = 20,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show the versions that were published.

    When (UTC), by which run, from what, how many rows, how fast. A version can be read again (rat query --at) and
    brought back (rat rollback). With --json every field of the ledger is there.
    """
    from ratatouille import project as files
    from ratatouille.cli.native import with_native_names
    from ratatouille.engine import as_json as mapping
    from ratatouille.engine import look

    root = options.root_of(ctx, workspace)
    project = files.load(root)
    if asset is None:
        entries = look.history(project, None, limit)
    else:
        entries = with_native_names(root, asset, lambda name: look.history(project, name, limit))
    if as_json:
        p.print_json([mapping(entry) for entry in entries])
        return
    if not entries:
        p.say(
            f"{asset or 'Nothing'} was {'never' if asset else 'ever'} published. Build it with: rat run {asset or ''}".rstrip()
        )
        return
    names = ["version", "published (UTC)", "run", "asset", "what", "in", "written", "deleted", "total", "kept out"]
    names += ["seconds", "rows/s", "memory", "size", "inputs", "fingerprint"]
    right = {"version", "in", "written", "deleted", "total", "kept out", "seconds", "rows/s", "memory", "size"}
    spare = ["kept out", "seconds", "in", "deleted", "rows/s", "size", "inputs", "memory", "fingerprint", "run"]
    table = [_row(entry, bool(asset)) for entry in entries]
    p.print_table(names, table, right=right, spare=[*(["asset"] if asset else []), *spare])
    if asset and (hold := look.holds(project).get(entries[0].asset)):
        p.say(f"On hold at version {hold.version}. Let it go on with: rat release {entries[0].asset}")


def _row(entry: Entry, alone: bool) -> list[str]:
    what = f"rollback to {entry.restored_version}" if entry.action == "rollback" else entry.note or entry.mode
    if entry.mode == "partition" and not entry.note:
        what = f"partition {', '.join(entry.partitions)}"
    if entry.action == "compact":
        what = "compacted"
    if entry.materialize == "view":
        what = "view"
    speed = round(entry.rows_written / entry.seconds) if entry.seconds > 0 else 0
    return [
        p.count(entry.version),
        p.when(entry.published_at),
        entry.run_id,
        "" if alone else entry.asset,
        what,
        p.count(entry.rows_in),
        p.count(entry.rows_written),
        p.nonzero(entry.rows_deleted),
        p.count(entry.rows_total),
        p.nonzero(entry.rows_quarantined + entry.rows_rejected),
        p.seconds(entry.seconds),
        p.count(speed),
        p.bytes_(entry.peak_memory_bytes),
        p.bytes_(entry.bytes_written),
        ", ".join(f"{name}@{version}" for name, version in entry.inputs.items()),
        entry.fingerprint[:8],
    ]
