"""`rat check`: every problem of the files, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

if TYPE_CHECKING:
    from ratatouille.project.records import Problem

EXAMPLES = """
rat check

rat check --write-schemas

rat check --json
"""
SCHEMAS = ".schemas"


def check(
    ctx: typer.Context,
    write_schemas: Annotated[
        bool,
        typer.Option("--write-schemas", help=f"Also write {SCHEMAS}/, by which editors complete the YAML files."),
    ] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> int:
    """Find what is wrong in the files.

    Typos, cycles, missing columns, unknown keys: no database is needed to find them. Every problem is shown with its
    line, the span underlined. The exit code is 2 when there is an error.
    """
    from ratatouille import project as files

    root = options.root_of(ctx, workspace)
    project = files.load(root)
    if write_schemas:
        write_schemas_to(root)
    if as_json:
        from ratatouille.engine.records import as_json as mapping

        p.print_json({"assets": len(project.assets), "problems": [mapping(one) for one in project.problems]})
        return 2 if project.errors else 0
    problems = _once(project.problems)
    for problem, assets in problems:
        _print_problem(problem, assets)
    errors = sum(1 for problem, _ in problems if problem.severity == "error")
    warnings = len(problems) - errors
    said = [p.plural(errors, "error")] if errors else []
    said += [p.plural(warnings, "warning")] if warnings else []
    p.say(f"{p.plural(len(project.assets), 'asset')}, {' and '.join(said) or 'no problems'}.")
    if write_schemas:
        p.say(f"Written: {SCHEMAS}/workspace.json and {SCHEMAS}/asset.json")
    if not project.assets and not project.errors:
        first = project.workspace.layers[0]
        p.say(f"There are no assets yet. Write one, e.g. pipelines/{first}/my_table.sql")
    return 2 if project.errors else 0


def _once(problems: Sequence[Problem]) -> list[tuple[Problem, list[str]]]:
    """Each mistake once, with the assets that meet it: a macro's is met by all that call it."""
    found: dict[Problem, list[str]] = {}
    for problem in problems:
        found.setdefault(replace(problem, asset=""), []).append(problem.asset)
    return list(found.items())


def _print_problem(problem: Problem, assets: Sequence[str]) -> None:
    from ratatouille.errors import underline

    where = problem.path
    if problem.line:
        where = underline(problem.path, problem.line, problem.column, problem.length, problem.text)
    kind, style = ("error", "red") if problem.severity == "error" else ("warning", "yellow")
    p.say(f"{p.paint(kind, style)}: {p.printable(problem.message)}")
    for line in where.splitlines():
        p.say(f"  {p.printable(line)}")
    if problem.hint:
        p.say(f"  {p.printable(problem.hint[:1].upper() + problem.hint[1:])}")
    if len(assets) > 1:
        more = f" and {len(assets) - 5} more" if len(assets) > 5 else ""
        p.say(f"  Met by {', '.join(assets[:5])}{more}")
    p.say()


def write_schemas_to(root: Path) -> None:
    """The JSON Schemas of workspace.yaml and of sidecars, for editors."""
    from ratatouille import project as files

    folder = root / SCHEMAS
    folder.mkdir(exist_ok=True)
    for name, schema in files.schemas().items():
        (folder / f"{name}.json").write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
