"""`rat show`: the workspace, or one asset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p

if TYPE_CHECKING:
    from ratatouille.engine.look import Page, Shown
    from ratatouille.project.records import Project

EXAMPLES = """
rat show

rat show silver.sales

rat show silver.sales --json
"""


def show(
    ctx: typer.Context,
    asset: Annotated[str | None, typer.Argument(metavar="ASSET", help="One asset; without it the workspace.")] = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="How many rows of an asset to show.")] = 5,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show the workspace, or one asset.

    Of an asset: columns, checks, what it reads, what reads it, its first rows. Sensitive columns are masked.
    """
    from ratatouille import project as files
    from ratatouille.engine import look

    project = files.load(options.root_of(ctx, workspace))
    if asset is not None:
        page = look.page(project, asset, rows=rows)
        p.print_json(_page_json(page)) if as_json else _print_page(page)
        return
    shown = look.overview(project)
    if as_json:
        p.print_json(_overview_json(project, shown))
    else:
        _print_overview(project, shown)


def _overview_json(project: Project, shown: list[Shown]) -> dict[str, Any]:
    from ratatouille.engine import as_json as mapping
    from ratatouille.engine import look

    workspace = project.workspace
    return {
        "workspace": workspace.name,
        "root": workspace.root,
        "layers": workspace.layers,
        "assets": [mapping(one) for one in shown],
        "set_aside": look.files_set_aside(workspace),
        "errors": len(project.errors),
        "attach": look.attach_sql(workspace) if look.has_lake(workspace) else None,
    }


def _print_overview(project: Project, shown: list[Shown]) -> None:
    from ratatouille.engine import look

    workspace = project.workspace
    p.say(f"{p.paint(p.printable(workspace.name), 'bold')}  {p.printable(workspace.root)}")
    p.say()
    if shown:
        p.print_table(
            ["asset", "kind", "kept as", "status", "version", "rows", "published (UTC)"],
            [
                [
                    one.name,
                    one.kind,
                    one.materialize,
                    one.status,
                    p.count(one.version),
                    p.count(one.rows),
                    p.when(one.published_at),
                ]
                for one in shown
            ],
            right=["version", "rows"],
            status="status",
        )
    else:
        p.say("There are no assets yet.")
    for one in shown:
        if one.status in ("failed", "on hold", "no file"):
            p.say(f"{one.name}: {p.printable(one.reason.removeprefix(f'{one.name}: '))}")
    for row in look.files_set_aside(workspace):
        p.say(
            f"{p.paint('Set aside', 'yellow')} {row['asset']}: {p.printable(row['file'])}: {p.printable(row['reason'])}"
        )
    if project.errors:
        p.say(f"{p.paint('The files have ' + p.plural(len(project.errors), 'error'), 'red')}; see: rat check")
    if look.has_lake(workspace):
        p.say()
        p.say("Read this lake from any DuckDB 1.5 (first time: INSTALL ducklake; INSTALL sqlite;):")
        p.say(f"  {look.attach_sql(workspace)}")


def _page_json(page: Page) -> dict[str, Any]:
    from ratatouille.engine import as_json as mapping

    found = mapping(page)
    if page.preview is not None:
        names = [name for name, _ in page.preview.columns]
        found["preview"] = [dict(zip(names, row, strict=True)) for row in page.preview.rows]
    return found


def _print_page(page: Page) -> None:
    asset, shown = page.asset, page.shown
    p.say(f"{p.paint(shown.name, 'bold')}  {p.printable(asset.description) if asset else ''}".rstrip())
    facts = [("file", shown.path or "gone"), ("kind", f"{shown.kind or 'no file'}, kept as {shown.materialize}")]
    if asset:
        facts += [("key", ", ".join(asset.unique_key)), ("pipeline", asset.pipeline)]
        facts += [("owners", ", ".join(asset.owners)), ("tags", ", ".join(asset.tags))]
    facts += [("reads", ", ".join(page.upstream)), ("read by", ", ".join(page.downstream))]
    if asset:
        facts.append(("landing", ", ".join(source.glob for source in asset.sources)))
    if page.head is not None:
        rows = "" if shown.rows is None else f", {p.plural(shown.rows, 'row')}"
        facts.append(("version", f"{shown.version}{rows}, published {p.when(shown.published_at)} UTC"))
    facts.append(("status", f"{shown.status}: {shown.reason}"))
    if shown.hold is not None:
        facts.append(("on hold", f"at version {shown.hold}; rat release {shown.name}"))
    if shown.set_aside:
        facts.append(("set aside", f"{p.plural(shown.set_aside, 'landing file')}; rat quarantine {shown.name}"))
    for name, value in facts:
        if value:
            p.say(f"  {name:10}{p.printable(value)}")
    _print_columns(page)
    if asset and asset.checks:
        p.say()
        p.print_table(
            ["check", "kind", "columns", "severity"],
            [[check.name, check.kind, ", ".join(check.columns), check.severity] for check in asset.checks],
        )
    if page.preview is not None:
        p.say()
        p.print_rows(page.preview.columns, page.preview.rows)


def _print_columns(page: Page) -> None:
    if not page.columns:
        return
    p.say()
    table = [
        [one.name, one.type.lower(), one.description, ", ".join(one.comes_from), "yes" if one.sensitive else ""]
        for one in page.columns
    ]
    names = ["column", "type", "description", "comes from", "sensitive"]
    p.print_table(names, table, spare=("sensitive", "description", "comes from"))
