"""`rat test`: people's own tests of their assets."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

if TYPE_CHECKING:
    from ratatouille.testing import CaseResult, Difference

EXAMPLES = """
rat test

rat test silver.sales

rat test pipeline:sales -k second_day --json
"""


def test(
    ctx: typer.Context,
    selectors: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SELECTORS", help="Of which assets, as in rat run: silver.sales, pipeline:sales. None: of all."
        ),
    ] = None,
    like: Annotated[
        str, typer.Option("-k", metavar="TEXT", help="Only tests with this text in their name or file.")
    ] = "",
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> int:
    """Run the tests of assets: given rows in, expected rows out.

    Tests are YAML files in a tests/ folder of a pipeline. They run on the rows that they give, in a lake in memory that is
    gone afterwards. Ends with 1 when a test fails, with 2 when a test file is wrong or nothing is tested.
    """
    from ratatouille import project as files
    from ratatouille.engine import as_json as mapping
    from ratatouille.testing import run_cases

    root = options.root_of(ctx, workspace)
    project = files.load(root, use_cache=(root / ".rat").exists())  # where nothing has run, a test leaves nothing
    shown = _Shown()
    done = run_cases(project, selectors or (), like=like, listener=(lambda result: None) if as_json else shown.line)
    if as_json:
        p.print_json(mapping(done) | {"passed": len(done.cases) - done.failed, "failed": done.failed})
        return int(done.failed > 0)
    for one in done.cases:
        if one.status == "failed":
            _print_failure(one)
    p.say()
    said = [f"{done.failed} failed"] if done.failed else []
    said.append(f"{len(done.cases) - done.failed} passed")
    p.say(p.paint(f"{', '.join(said)} in {p.took(done.seconds)}", "red" if done.failed else "green"))
    return int(done.failed > 0)


class _Shown:
    """A line for each case as it ends, under its file."""

    def __init__(self) -> None:
        self.path = ""

    def line(self, one: CaseResult) -> None:
        if one.path != self.path:
            self.path = one.path
            p.say(p.paint(p.printable(one.path), "bold"))
        word = p.paint("passed", "green") if one.status == "passed" else p.paint("failed", "red")
        p.say(f"  {word}  {p.printable(one.name)}  {p.paint(f'{one.seconds:.2f} s', 'dim')}")


def _print_failure(one: CaseResult) -> None:
    p.say()
    p.say(p.paint(f"{p.printable(one.name)}  ({one.asset}, {one.path}:{one.line})", "bold"))
    for difference in one.differences:
        _print_difference(difference)
    if one.error is not None:
        p.print_four_lines(one.error, _stdout())


def _print_difference(difference: Difference) -> None:
    p.say(f"  {p.printable(difference.what)}")
    if not difference.rows:
        return
    rows = [[sign, *("null" if value is None else value for value in values)] for sign, values in difference.rows]
    p.print_table(["", *difference.columns], rows)
    if difference.more:
        p.say(f"  and {p.plural(difference.more, 'row')} more")


def _stdout() -> IO[str]:
    import sys

    return sys.stdout
