"""What dbt says of a run, in the words of the house: tests as check results, what failed as an error in four lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratatouille.dbt_project.process import Said, could_not_read
from ratatouille.dbt_project.project import Selection, Test
from ratatouille.engine.records import CheckResult
from ratatouille.errors import GateFailed, RatError, StepFailed, redact

_RAN = ("pass", "fail", "warn", "error")


@dataclass(frozen=True, slots=True)
class Told:
    """`staged` is what the plugin reported of each model, `error` why nothing may be published."""

    staged: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    by_test: Mapping[str, CheckResult] = field(default_factory=dict)  # test id -> its result
    seconds: Mapping[str, float] = field(default_factory=dict)  # node id -> seconds in dbt
    error: RatError | None = None

    @property
    def checks(self) -> tuple[CheckResult, ...]:
        return tuple(self.by_test.values())


def read_results(selection: Selection, folder: Path, said: Said) -> Told:
    path = folder / "target" / "run_results.json"
    if not path.exists():
        return Told(error=could_not_read(folder, said) if said.code in (1, 2) else _stopped(said))
    results = {one["unique_id"]: one for one in json.loads(path.read_text())["results"]}
    staged = {}
    for line in (folder / "staged.jsonl").read_text().splitlines(keepends=True):
        if line.endswith("\n"):  # the last one of a process that was killed may not
            one = json.loads(line)
            staged[one["asset"]] = one
    tests = {test.id: test for test in selection.tests}
    rows = {name: sum(file[1] for file in one.get("files", ())) for name, one in staged.items()}
    by_test = {
        test.id: _check(test, results[test.id], rows.get(test.on, 0))
        for test in selection.tests
        if test.id in results and results[test.id]["status"] in _RAN
    }
    seconds = {one: float(result["execution_time"]) for one, result in results.items()}
    error = _failed_model(selection, results, tests) or _failed_test(selection, results, by_test)
    error = error or _unfinished(selection, results, staged, said)
    return Told(staged, by_test, seconds, error)


def _check(test: Test, result: Mapping[str, Any], rows: int) -> CheckResult:
    status = result["status"]
    return CheckResult(
        name=test.name,
        kind=test.kind,
        severity="warn" if status == "warn" or (status == "pass" and test.severity == "warn") else "error",
        passed=status == "pass",
        bad=int(result.get("failures") or 0) if status != "error" else 0,
        rows=rows,
        columns=(test.column,) if test.column else (),
    )


def _failed_model(selection: Selection, results: Mapping[str, Any], tests: Mapping[str, Test]) -> RatError | None:
    paths = {model.id: (model.name, model.path) for model in selection.models}
    for one, result in results.items():
        if result["status"] == "error" and one not in tests:
            name, path = paths.get(one, (one, "the dbt project"))
            return StepFailed(
                f"{name}: {_first_words(result.get('message'))}", where=path, next="mend the model, then run it again"
            )
    return None


def _failed_test(
    selection: Selection, results: Mapping[str, Any], checks: Mapping[str, CheckResult]
) -> RatError | None:
    bad = [test for test in selection.tests if results.get(test.id, {}).get("status") in ("fail", "error")]
    if not bad:
        return None
    test, result = bad[0], results[bad[0].id]
    found = (
        f"{result['failures']:,} row{'s' * (result['failures'] != 1)}"
        if result["status"] == "fail" and result.get("failures") is not None
        else _first_words(result.get("message"))
    )
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    column = f", column {test.column}" if test.column else ""
    return GateFailed(
        f"{selection.label}: the test {test.name} failed: {found}{more}",
        where=f"{test.on}{column} ({test.path})",
        next="mend the model or its input, then run it again",
    )


def _unfinished(
    selection: Selection, results: Mapping[str, Any], staged: Mapping[str, Any], said: Said
) -> RatError | None:
    """Nothing may be published that was not built and tested, whatever dbt's exit code says."""
    for model in selection.models:
        if model.name not in staged or results.get(model.id, {}).get("status") != "success":
            return StepFailed(f"{model.name} was not built by dbt", where=model.path, next="run it again")
    for test in selection.tests:
        if results.get(test.id, {}).get("status") not in _RAN:
            return StepFailed(f"the test {test.name} did not run", where=test.path, next="run it again")
    return _stopped(said) if said.code else None


def _stopped(said: Said) -> StepFailed:
    last = " ".join(said.log.splitlines()[-4:])
    return StepFailed(f"dbt stopped (exit code {said.code}): {last[-400:]}", where="dbt build", next="run it again")


def _first_words(message: str | None) -> str:
    """dbt's message without its headline and the path that it ends with."""
    lines = [line.strip() for line in (message or "it said nothing").splitlines() if line.strip()]
    lines = [
        line for line in lines if not line.startswith(("compiled code at", "Runtime Error in", "Compilation Error in"))
    ]
    return redact(" ".join(lines) or "it said nothing")[:500]
