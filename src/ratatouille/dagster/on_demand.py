"""Native assets without Dagster's pages: what `rat plan raw.orders` and `rat run raw/orders` ask for.

named     what a person may call a native asset, and its table: its key (`raw/orders`), or the table (`raw.orders`)
run       one run of Dagster in this process, with its history in the home of `rat dev`; what stands is skipped
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg

from ratatouille import project as files
from ratatouille.dagster.code_location import definitions
from ratatouille.dagster.dbt import ROWS
from ratatouille.dagster.guarding import is_file_asset, stores_values
from ratatouille.dagster.instance import home_of, prepare_home
from ratatouille.dagster.modules import BROKEN
from ratatouille.dagster.native import code_of
from ratatouille.dagster.outer import STALE_ONLY
from ratatouille.dagster.stores import tables_of
from ratatouille.dbt_project.build import plan as plan_dbt
from ratatouille.engine import PlannedStep, RunResult, StepResult
from ratatouille.engine.native import native_asset, plan_native, steps_of_run
from ratatouille.errors import RequestError, StepFailed

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, slots=True)
class _Native:
    key: dg.AssetKey
    table: str  # its key, if it stores nothing itself
    asset: dg.AssetsDefinition


@dataclass(frozen=True, slots=True)
class Natives:
    """The native assets of the workspace at `root`, by every name that means one."""

    root: Path
    definitions: dg.Definitions
    by_name: Mapping[str, _Native]
    broken: tuple[Mapping[str, str], ...] = ()  # the four lines of each Python file that cannot be imported

    def tables(self, names: Sequence[str]) -> dict[str, str]:
        """Name -> table, of those that mean a native asset."""
        return {name: self.by_name[name.strip()].table for name in names if name.strip() in self.by_name}

    def plan(self, names: Sequence[str], *, force: bool = False) -> list[PlannedStep]:
        """What `run` would do with each, and why."""
        return [self._planned(self.by_name[name.strip()], force) for name in names]

    def _planned(self, native: _Native, force: bool) -> PlannedStep:
        selection = getattr(source_of(native.asset), "asked", None)
        if selection is not None:
            return replace(plan_dbt(self.root, selection, force=force), asset=native.table)
        spec = native.asset.get_asset_spec(native.key)
        by_key = {one.key: one.table for one in self.by_name.values()}
        code = code_of(native.asset.op.compute_fn, spec.code_version, self._config(native), native.table)
        above = sorted({dep.asset_key for dep in spec.deps} | set(native.asset.keys_by_input_name.values()))
        reads = [by_key.get(key, ".".join(key.path[-2:])) for key in above]
        return plan_native(self.root, native_asset(native.table, code, reads=reads), force=force)

    def _config(self, native: _Native) -> Any:
        """The config that the op has when nobody says anything, in the form in which its step sees it."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        try:
            resolved = dg.validate_run_config(job.get_subset(asset_selection={native.key}), {})
        except dg.DagsterInvalidConfigError:
            return None
        return resolved.get("ops", {}).get(native.asset.op.name, {}).get("config")

    def run(self, names: Sequence[str], files_too: Sequence[str] = (), *, force: bool = False) -> RunResult:
        """Run the native assets, and file assets beside them, as one run of Dagster. A failed one is in the result."""
        chosen = [self.by_name[name.strip()] for name in names]
        by_key = {native.key: native.table for native in chosen}
        by_key |= {key: name for name, key in self._file_keys().items() if name in files_too}
        steps = self._steps(by_key)
        config: dict[str, Any] = dict(_QUIET)
        if force and files_too:
            config["ops"] = {
                step: {"config": {"full_refresh": True}} for step, table in steps.items() if table in files_too
            }
        started = time.monotonic()
        job = self.definitions.resolve_implicit_global_asset_job_def()
        # What the code of assets prints belongs to a person's eyes; standard output is for the answer.
        with _instance(self.root) as instance, redirect_stdout(sys.stderr):
            try:
                done = job.execute_in_process(
                    run_config=config,
                    instance=instance,
                    asset_selection=list(by_key),
                    tags={} if force else {STALE_ONLY: "rat run"},
                    raise_on_error=False,
                )
            except dg.DagsterError as error:
                raise _not_started(error, list(by_key.values())) from error
        told = _told(done, steps)
        stored = steps_of_run(self.root, done.run_id, list(by_key.values()))
        keys = {table: key.to_user_string() for key, table in by_key.items()}
        results = {table: stored.get(table) or _by_key(step, keys[table]) for table, step in told.items()}
        order = [steps[name] for name in _in_order(done) if name in steps]
        listed = [results[table] for table in dict.fromkeys([*order, *by_key.values()]) if table in results]
        failed = not done.success or any(one.status == "failed" for one in listed)
        return RunResult(done.run_id, "failed" if failed else "done", tuple(listed), time.monotonic() - started)

    def _file_keys(self) -> dict[str, dg.AssetKey]:
        return {
            str(spec.metadata.get("dagster/table_name", "")): spec.key
            for one in self.definitions.assets or ()
            if isinstance(one, dg.AssetsDefinition) and is_file_asset(one)
            for spec in one.specs
        }

    def _steps(self, by_key: Mapping[dg.AssetKey, str]) -> dict[str, str]:
        """Step -> table."""
        return {
            one.node_def.name: by_key[key]
            for one in self.definitions.assets or ()
            if isinstance(one, dg.AssetsDefinition) and one.is_executable
            for key in one.keys
            if key in by_key
        }


def source_of(asset: dg.AssetsDefinition) -> Any:
    """The function that a person, or dbt_asset, has given."""
    return getattr(asset.op.compute_fn, "decorated_fn", None)


def natives_of(root: Path) -> Natives:
    """Load the definitions of the workspace at `root`, with every Python file in it."""
    loaded = definitions(root)
    project = files.load(root)
    by_name: dict[str, _Native] = {}
    broken: list[Mapping[str, str]] = []
    for one in loaded.assets or ():
        if not isinstance(one, dg.AssetsDefinition) or not one.is_executable:
            continue
        broken += [spec.metadata[BROKEN] for spec in one.specs if "broken" in spec.key.path and BROKEN in spec.metadata]
        for table, key in tables_of(one, project.workspace.layers):
            if is_file_asset(one) and one.get_asset_spec(key).metadata.get("dagster/table_name") in project.assets:
                continue
            manager = (loaded.resources or {}).get(one.get_io_manager_key_for_asset_key(key))
            if "broken" in one.get_asset_spec(key).tags or getattr(manager, "root", root) != root:
                continue
            called = table if stores_values(one) and not is_file_asset(one) else key.to_user_string()
            for name in (table, table.replace(".", "/"), key.to_user_string(), ".".join(key.path)):
                by_name.setdefault(name, _Native(key, called, one))
    return Natives(root, loaded, by_name, tuple(broken))


@contextmanager
def _instance(root: Path) -> Iterator[dg.DagsterInstance]:
    """The instance that DAGSTER_HOME names, else the one of `rat dev`, with all of its history."""
    if os.environ.get("DAGSTER_HOME"):
        with dg.DagsterInstance.get() as instance:
            yield instance
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with dg.DagsterInstance.from_config(str(prepare_home(home_of(root)))) as instance:
            yield instance


def _told(done: dg.ExecuteInProcessResult, steps: Mapping[str, str]) -> dict[str, StepResult]:
    """What Dagster's events say of each asset; of what was stored the journal knows more."""
    found: dict[str, StepResult] = {}
    for event in done.all_events:
        table = steps.get(str(event.step_key or "").partition(".")[0])
        if table is None:
            continue
        if event.is_step_skipped:
            found[table] = StepResult(table, "blocked", "what it reads was not built")
        elif event.is_step_success and table not in found:
            found[table] = StepResult(table, "built", seconds=event.step_success_data.duration_ms / 1000)
        elif event.is_step_materialization:
            said = event.step_materialization_data.materialization.metadata
            status = str(getattr(said.get("status"), "value", "built"))
            version = getattr(said.get("version"), "value", None)
            reason = str(getattr(said.get("reason"), "value", ""))
            number = version if isinstance(version, int) else None
            rows: dict[str, Any] = {field: getattr(said.get(name), "value", 0) for name, field in ROWS.items()}
            found[table] = StepResult(
                table, status, reason, version=number, seconds=_seconds(done, event.step_key), **rows
            )
        elif event.is_step_failure:
            found[table] = _failed(table, event.step_failure_data)
    for table in steps.values():
        found.setdefault(table, StepResult(table, "blocked", "what it reads was not built"))
    return found


def _by_key(step: StepResult, key: str) -> StepResult:
    """An asset that has stored nothing has no table to be called by."""
    return replace(step, asset=key) if step.status == "built" and not step.version else step


def _seconds(done: dg.ExecuteInProcessResult, step: str | None) -> float:
    ended = [event for event in done.all_events if event.is_step_success and event.step_key == step]
    return ended[0].step_success_data.duration_ms / 1000 if ended else 0.0


def _failed(table: str, failure: Any) -> StepResult:
    lines = str(getattr(failure.user_failure_data, "description", "") or "").splitlines()
    if not lines:
        error = failure.error.cause or failure.error
        lines = [f"{table} failed: {' '.join(error.message.split())[:500]}"]
    told = StepFailed(lines[0], where=lines[1] if len(lines) > 1 else table, next="rat dev shows the whole log")
    return StepResult(table, "failed", lines[0], error=told.as_record())


def _in_order(done: dg.ExecuteInProcessResult) -> list[str]:
    return [str(event.step_key).partition(".")[0] for event in done.all_events if event.is_step_start]


def _not_started(error: Exception, tables: Sequence[str]) -> RequestError:
    return RequestError(
        f"Dagster did not start the run: {' '.join(str(error).split())[:300]}",
        where=", ".join(tables),
        state="Nothing was built.",
        next="start it in rat dev, where its partition and its config can be chosen",
    )
