"""`rat quarantine`: what readers do not see, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p
from ratatouille.errors import RequestError
from ratatouille.handle import as_json_text

_VERBS = ("replay", "discard")

if TYPE_CHECKING:
    from ratatouille.engine.kept_out import KeptOut
    from ratatouille.project.records import Project

EXAMPLES = """
rat quarantine

rat quarantine silver.sales -n 50

rat quarantine silver.sales --run 20261121T0615 --json

rat quarantine replay silver.sales

rat quarantine discard silver.sales --check total_positive --reason "test orders"
"""


def quarantine(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[replay|discard] [ASSET]",
            help="One asset; without it, counts of all. replay: rows that pass their gates now join the table."
            " discard: rows leave the quarantine. A rebuild judges all rows anew.",
        ),
    ] = None,
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="Only rows that this run kept out.")] = "",
    check: Annotated[
        str, typer.Option("--check", metavar="CHECK", help="replay and discard: only rows that this check kept out.")
    ] = "",
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="discard: why; the ledger keeps it (rat history).")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many rows to show, newest first.")] = 10,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show what is kept out of the tables.

    Rows that checks kept out, lines that could not be read, landing files that were set aside, each with the reason.
    Where a check stopped the last attempt at an asset, its failing rows are shown too. Sensitive columns are masked.
    What replay and discard publish is a version: rat rollback brings back the table and the quarantine of before.
    """
    from ratatouille import project as files
    from ratatouille.engine import as_json as mapping
    from ratatouille.engine import kept_out

    project = files.load(options.root_of(ctx, workspace))
    asset = _asset_in(words or [])
    if words and words[0] in _VERBS:
        _change(project, words[0], asset or "", run, check, reason, as_json)
        return
    if asset is None:
        _all(project, as_json)
        return
    found = kept_out.kept_out(project, asset, run=run, limit=limit)
    if as_json:
        p.print_json(mapping(found))
    else:
        _print_one(found)


def _asset_in(words: Sequence[str]) -> str | None:
    """The asset of `ASSET` or `replay ASSET`. RequestError for any other words."""
    names = list(words[1:] if words and words[0] in _VERBS else words)
    if len(names) > 1 or (not names and words):
        raise RequestError(
            f"this command takes one asset, and not '{' '.join(words)}'"[:200],
            where="rat quarantine",
            next="rat quarantine ASSET, rat quarantine replay ASSET, or rat quarantine discard ASSET --reason TEXT",
        )
    return names[0] if names else None


def _change(project: Project, verb: str, asset: str, run: str, check: str, reason: str, as_json: bool) -> None:
    from ratatouille.engine import as_json as mapping
    from ratatouille.engine import holds, replay

    with holds.bench_on(project) as bench:
        if verb == "discard":
            gone = replay.discard(bench, asset, reason, run=run, check=check)
            said = f"{p.plural(gone.rows, 'row')} of {gone.asset} discarded, in version {gone.version}."
            found: Any = gone
        else:
            done = replay.replay(bench, asset, run=run, check=check)
            where = f" in version {done.version}" if done.version else ""
            said = f"{p.plural(done.joined, 'row')} joined {done.asset}{where}."
            found = done
    if as_json:
        p.print_json(mapping(found))
        return
    p.say(said)
    if verb == "replay" and found.stayed:
        p.print_table(["still kept out by", "rows"], [[c, p.count(n)] for c, n in found.stayed.items()], right=["rows"])


def _all(project: Project, as_json: bool) -> None:
    from ratatouille.engine import kept_out, look

    counts = kept_out.counts(project)
    aside = look.files_set_aside(project.workspace)
    blocked = kept_out.blocked_assets(project)
    if as_json:
        rows = [{"asset": asset, "check": check, "rows": rows} for asset, check, rows in counts]
        p.print_json({"rows": rows, "blocked": blocked, "set_aside": aside})
        return
    if counts:
        table = [[asset, check, p.count(rows)] for asset, check, rows in counts]
        p.print_table(["asset", "check", "rows kept out"], table, right=["rows kept out"])
        p.say(f"See the rows with: rat quarantine {counts[0][0]}")
    for name, why in blocked.items():
        p.say(f"{p.paint('Stopped', 'red')} {p.printable(why)}. See: rat quarantine {name}")
    _print_aside(aside)
    if not (counts or blocked or aside):
        p.say("Nothing is kept out.")


def _print_one(found: KeptOut) -> None:
    if found.by_check:
        p.print_table(["check", "rows kept out"], [[c, p.count(n)] for c, n in found.by_check], right=["rows kept out"])
        p.say()
    said = ""
    for row in found.rows:
        place = f"{row.file}:{row.line}" if row.line else row.file or ""
        why = f"{row.checks}: {row.reason}" if row.origin == "reject" else row.checks
        title = f"{p.paint(p.printable(why), 'yellow')}  {p.printable(place)}".rstrip()
        if title != said:
            p.say(title)
        said = title
        p.say(f"  {_shown(row.row)}")
    total = sum(number for _, number in found.by_check)
    if total > len(found.rows):
        p.say(f"{len(found.rows):,} of {total:,} rows; more with -n {total}")
    if found.blocked:
        p.say(f"{p.paint('The last attempt was stopped:', 'red')} {p.printable(found.blocked)}")
    for failing in found.failing:
        p.say(f"{failing.check}: {p.plural(failing.kept, 'failing row')} kept in {failing.file}")
        for shown in failing.rows:
            p.say(f"  {_shown(shown)}")
    _print_aside(found.set_aside)
    if not (found.by_check or found.blocked or found.set_aside):
        p.say(f"Nothing of {found.asset} is kept out.")


def _shown(row: Any) -> str:
    text = row if isinstance(row, str) else as_json_text(row)
    return p.printable(text if len(text) <= 1000 else f"{text[:1000]}…")


def _print_aside(aside: Sequence[dict[str, Any]]) -> None:
    for row in aside:
        p.say(
            f"{p.paint('Set aside', 'yellow')} {row['asset']}: {p.printable(row['file'])}: {p.printable(row['reason'])}"
        )
