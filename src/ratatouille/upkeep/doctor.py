"""The doctor: looks at everything that keeps a workspace from working, touches nothing, and says what helps."""

from __future__ import annotations

from pathlib import Path

from ratatouille import project as files
from ratatouille.engine.workbench import journal_path, storage_of
from ratatouille.errors import RatError
from ratatouille.lake.care import health
from ratatouille.lake.care.health import Finding
from ratatouille.project.records import Project


def examine(root: Path) -> list[Finding]:
    """Every finding, the good ones too. Never raises for what it may find."""
    try:
        project = files.load(root, use_cache=False)
    except RatError as error:
        return [
            Finding(
                "workspace",
                "error",
                error.what,
                error.where,
                error.state,
                error.next or "mend workspace.yaml, then: rat check",
            )
        ]
    return [_files(project), *health.findings(storage_of(project.workspace), journal_path(project.workspace))]


def _files(project: Project) -> Finding:
    if not project.errors:
        return Finding("files", "ok", f"{len(project.assets)} assets, no errors")
    first = project.errors[0]
    where = f"{first.path}:{first.line}" if first.line else first.path
    what = f"the files have {len(project.errors)} errors: {first.message}"
    return Finding("files", "error", what, where, "Nothing is built until they are mended.", "rat check")
