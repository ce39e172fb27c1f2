"""FILES: `pipelines/` as frozen records, read without a database, a network, or running anyone's code.

    root = find_root(Path.cwd())
    project = load(root)           # workspace, assets in dependency order, problems
    ensure_valid(project)          # the first problem as an error
    select(project, ["+gold.sales_summary"])
    render(project, "silver.sales", bindings)

Importing this package is cheap: parsers are loaded when a file has changed since the last time.
"""

from __future__ import annotations

from typing import Any

from ratatouille.project.find import find_root
from ratatouille.project.graph import downstream, upstream
from ratatouille.project.load import ensure_valid, load
from ratatouille.project.render import render, render_check_sql
from ratatouille.project.selectors import select
from ratatouille.project.sources import find_source

__all__ = [
    "downstream",
    "ensure_valid",
    "find_root",
    "find_source",
    "load",
    "parse_select",
    "render",
    "render_check_sql",
    "schemas",
    "select",
    "upstream",
]


def parse_select(sql: str) -> None:
    """Returns when `sql` is exactly one statement that only reads; RequestError says what it is instead."""
    from ratatouille.project import sql as parser

    parser.parse_select(sql)


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas for editors: `workspace` for workspace.yaml, `asset` for sidecars, `test` for files of tests."""
    from ratatouille.project import case_models, yaml_models

    return {**yaml_models.schemas(), "test": case_models.schema()}
