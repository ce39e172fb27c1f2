"""`rat compare`: two runs or two versions, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p
from ratatouille.observe.compare import WORDS, change, differences

if TYPE_CHECKING:
    from ratatouille.observe.compare import Compared, Comparison, Pair

EXAMPLES = """
rat compare

rat compare 20261121T0615 20261122T0615

rat compare silver.sales 12 15

rat compare silver.sales --json
"""
_HOW: Mapping[str, Any] = {
    "seconds": p.seconds,
    "cpu_s": p.seconds,
    **dict.fromkeys(("peak_memory_bytes", "spill_bytes", "disk_left_bytes"), lambda value: p.bytes_(int(value))),
}


def compare(
    ctx: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT",
            help="RUN RUN, or ASSET VERSION VERSION. What is left out is the newest, and the one before it.",
        ),
    ] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Compare two runs, or two versions of an asset.

    Seconds of each stage, rows in, out and kept out, rows per second, memory, CPU, answers of checks, columns, and
    whether code, configuration, inputs or the machine changed. Without arguments: the newest run, and the one before it
    that was asked for the same.
    """
    from ratatouille import project as files
    from ratatouille.engine import as_json as mapping
    from ratatouille.observe.compare import compare

    found = compare(files.load(options.root_of(ctx, workspace)), *(what or ()))
    p.print_json(mapping(found)) if as_json else _print(found)


def _print(found: Comparison) -> None:
    for side in (found.before, found.after):
        p.say(f"{p.paint(side.name, 'bold')}  {side.status}, {p.when(side.at)} UTC, {side.request}".rstrip(", "))
    p.say()
    alone = len(found.assets) == 1
    names = ["asset", "figure", "before", "after", "change"]
    rows = [["" if alone else asset.asset, *row] for asset in found.assets for row in _rows(asset)]
    if not alone:
        rows += [["all together", *row] for row in _figures(found.figures)]
    if rows:
        p.print_table(names, rows, right=["before", "after", "change"], spare=["asset"] if alone else [])
    for asset in found.assets:
        for line in differences(asset):
            p.say(f"{p.printable(asset.asset)}: {p.printable(line)}")
    if all(asset.same for asset in found.assets):
        p.say("Neither code, configuration, inputs, columns nor answers of checks differ.")


def _rows(asset: Compared) -> Iterator[list[str]]:
    yield from _figures(asset.figures)
    for name, pair in asset.stages.items():
        if max(value or 0.0 for value in pair) >= 0.01:
            yield [f"  {name}", *_cells("seconds", pair)]


def _figures(figures: Mapping[str, Pair]) -> Iterator[list[str]]:
    for name, pair in figures.items():
        if any(value for value in pair) and name != "disk_left_bytes":
            yield [WORDS.get(name, name.replace("_", " ")), *_cells(name, pair)]


def _cells(name: str, pair: Pair) -> list[str]:
    how = _HOW.get(name, lambda value: p.count(round(value)))
    return [*("" if value is None else how(value) for value in pair), change(*pair)]
