"""After a run: what was unusual about its steps joins their warnings, and whoever asked for it is told.

Everything is published by then, and nothing that goes wrong here changes how the run ended.
"""

from __future__ import annotations

from dataclasses import replace

from ratatouille.engine import RunResult, Workbench
from ratatouille.errors import RatError, redact
from ratatouille.observe.findings import Finding, examine

# A webhook that does not answer keeps a run from ending no longer than about this; the next look tries again.
TELL_WITHIN_S = 10.0


def after(bench: Workbench, result: RunResult) -> RunResult:
    """The same result, with what is unusual among the warnings of its steps."""
    done = [step.asset for step in result.steps if step.status in ("built", "failed")]
    if not done:
        return result
    workspace, warnings = bench.project.workspace, list(result.warnings)
    found: list[Finding] = []
    try:
        found = examine(bench.journal, workspace.observe, done, result.run_id)
        if workspace.alerts.rules:
            from ratatouille.observe.alerts import look

            since = bench.journal.now() - result.seconds - 60.0
            looked = look(bench.project, bench.journal, since=since, budget_s=TELL_WITHIN_S)
            failed = [f"the channel {name} was not told: {why}" for name, why in looked.delivered.failed]
            warnings += [f"alerts: {one}" for one in (*failed, *looked.problems)]
    except Exception as error:  # whatever it is, the run ended as it ended
        said = error.what if isinstance(error, RatError) else f"{type(error).__name__}: {error}"
        warnings.append(redact(f"what was unusual about this run is not known: {said}"))
    by_asset: dict[str, list[str]] = {}
    for one in found:
        if one.level in ("warn", "fail"):
            by_asset.setdefault(one.asset, []).append(f"{one.kind}: {one.said}")
    steps = tuple(
        replace(step, warnings=(*step.warnings, *by_asset[step.asset])) if step.asset in by_asset else step
        for step in result.steps
    )
    return replace(result, steps=steps, warnings=tuple(warnings))
