"""`rat diff`: what changed between two versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p
from ratatouille.handle import as_json_text

if TYPE_CHECKING:
    from ratatouille.upkeep.diff import Diff

EXAMPLES = """
rat diff silver.sales

rat diff silver.sales 12 15

rat diff silver.sales 12 --key sale_id --json
"""


def diff(
    ctx: typer.Context,
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="Which asset: silver.sales")],
    before: Annotated[int | None, typer.Argument(metavar="A", help="A version; without it the one before B.")] = None,
    after: Annotated[int | None, typer.Argument(metavar="B", help="A later one; without it the current one.")] = None,
    key: Annotated[
        str, typer.Option("--key", metavar="COLUMNS", help="What identifies a row, instead of unique_key.")
    ] = "",
    examples: Annotated[int, typer.Option("--rows", "-n", min=0, help="How many rows of each kind to show.")] = 5,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Compare two versions of an asset.

    Columns, counts, and rows by key: added, removed, changed, and which columns changed. Without a key rows are compared
    as they are. Of large tables a sample is compared, the same keys on both sides. Sensitive columns are masked.
    """
    from ratatouille import project as files
    from ratatouille.engine import as_json as mapping
    from ratatouille.upkeep.diff import diff

    names = [name.strip() for name in key.split(",") if name.strip()]
    project = files.load(options.root_of(ctx, workspace))
    found = diff(project, asset, before, after, key=names, examples=examples)
    p.print_json(mapping(found) | {"same": found.same}) if as_json else _print(found)


def _print(found: Diff) -> None:
    rows = f"{found.rows_before:,} rows, then {found.rows_after:,}"
    p.say(f"{p.paint(found.asset, 'bold')}  version {found.before} and version {found.after}: {rows}")
    if found.share < 1:
        p.say(f"Compared: about {found.share:.1%} of the rows, the same keys on both sides.")
    if found.columns:
        p.print_table(
            ["column", "before", "after"],
            [[c.name, c.before.lower() or "not there", c.after.lower() or "not there"] for c in found.columns],
        )
    if found.same:
        p.say("They are the same.")
        return
    how = f"by {', '.join(found.key)}" if found.key else f"as whole rows ({found.note})"
    changed = f", {found.changed:,} changed" if found.key else ""
    p.say(f"Rows {how}: {found.added:,} added, {found.removed:,} removed{changed}.")
    if found.changed_columns:
        p.say(
            "Changed: "
            + ", ".join(f"{p.printable(n)} in {p.plural(k, 'row')}" for n, k in found.changed_columns.items())
        )
    for one in found.examples:
        sign, style = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}[one.kind]
        if one.kind == "changed":
            said = f"{as_json_text(one.key)}  " + ", ".join(
                f"{name}: {as_json_text(old)} -> {as_json_text(one.after[name])}" for name, old in one.before.items()
            )
        else:
            said = as_json_text(one.before or one.after)
        p.say(p.paint(f"  {sign} {p.printable(said if len(said) <= 500 else said[:500] + '…')}", style))
