"""A dbt project on the lake: its models become tables together, when all of their tests have passed.

    from ratatouille import dbt

    dbt.build("pipelines/f1/dbt", select="silver")["status"]       # completed | skipped | held

`pip install 'ratatouille-lakehouse[dbt]'` brings dbt.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def build(
    project_dir: str | Path,
    select: str = "",
    *,
    exclude: str = "",
    full_refresh: bool = False,
    skip_fresh: bool = False,
    vars: Mapping[str, Any] | None = None,
    schema: str = "default",
    workspace: str | Path | None = None,
) -> dict[str, Any]:
    """`dbt build --select ...` on candidates, then one publish of everything, or none; JSON-safe.

    `schema` is that of dbt's target: models without a schema of their own lie in it. `skip_fresh` does nothing when
    neither the project nor what it reads has changed. The workspace is the one at or above `project_dir` unless one is
    named. Gives `status` (completed, skipped, held), `run_id`, `seconds`, `dbt_seconds`, `models` (rows and version
    of each), `tests` and `output_log`. Raises GateFailed when a test of severity error failed, StepFailed when a model
    did, RequestError for what cannot be guarded; nothing is published then.
    """
    from ratatouille import handle
    from ratatouille.dbt_project.build import build as build_selection
    from ratatouille.dbt_project.copy import Asked
    from ratatouille.engine import as_json

    asked = Asked(Path(project_dir).absolute(), select, exclude, dict(vars or {}), schema)
    root = handle.find_workspace(workspace or asked.project)
    outer = next((run for run in (ask() for ask in handle.outer_runs) if run is not None), None)
    built = build_selection(root, asked, outer=outer, full_refresh=full_refresh, skip_fresh=skip_fresh)
    if built.error is not None:
        raise built.error
    said = {
        "status": handle.status_word(built.status),
        "run_id": built.run_id,
        "reason": built.reason,
        "seconds": built.seconds,
        "dbt_seconds": built.dbt_seconds,
        "models": {step.asset: as_json(step) for step in built.steps},
        "tests": [as_json(check) for check in built.checks],
        "tests_passed": built.tests_passed,
        "output_log": built.log,
    }
    return handle._json_safe(said)
