"""A dbt project in Dagster: a selection as one asset, or as one asset for each of its models.

    dbt_asset(name="silver_tables_built", project_dir=..., select="silver", deps=["bronze_tables_loaded"])
    dbt_assets(name="gold", project_dir=..., select="core")

Every test of the selection is an asset check. A test of severity error that fails is a failed check and a failed step,
and there is no materialization: readers stay on the last good version of every model.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from ratatouille import project as files
from ratatouille.dagster.keys import key_of, word
from ratatouille.dagster.modules import placeholder
from ratatouille.dagster.native import failure
from ratatouille.dagster.outer import is_automatic, outer_of
from ratatouille.dbt_project.build import Built, build
from ratatouille.dbt_project.copy import Asked
from ratatouille.dbt_project.project import Model, Selection, Test, read_selection
from ratatouille.engine import CheckResult, StepResult
from ratatouille.errors import RatError, StepFailed

_CONFIG = {
    "full_refresh": dg.Field(bool, default_value=False, description="Build all rows anew, as dbt's --full-refresh."),
}
_SEVERITY = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}
_KINDS = ("dbt", "duckdb")
_DBT = "dbt"


def dbt_asset(
    *,
    name: str,
    project_dir: str | Path,
    select: str = "",
    exclude: str = "",
    key: Any = None,
    group_name: str | None = None,
    deps: Sequence[Any] | None = None,
    vars: Mapping[str, Any] | None = None,
    schema: str = "default",
    description: str | None = None,
    kinds: Sequence[str] = _KINDS,
    owners: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    automation_condition: dg.AutomationCondition[Any] | None = None,
) -> dg.AssetsDefinition:
    """A selection of a dbt project as ONE asset, with all of its tests as checks.

    `select` and `exclude` as dbt knows them; `schema` is that of dbt's target. Without `deps` it depends on the tables
    that it reads from outside of the selection. A project that cannot be read becomes a placeholder with the error.
    """
    asset_key = dg.AssetKey.from_coercible(key if key is not None else name)
    asked = _asked(project_dir, select, exclude, vars, schema)
    try:
        root, selection = _read(asked)
    except RatError as error:
        return _broken(asset_key, error, deps)
    names = _check_names(selection)
    above = [key_of(one) for one in _outside(selection)] if deps is None else deps

    def built(context):  # type: ignore[no-untyped-def]  # Dagster refuses an annotation that is a string
        made = yield from _run(
            context.op_execution_context, root, asked, names, dict.fromkeys(selection.names, asset_key)
        )
        yield dg.MaterializeResult(
            asset_key=asset_key,
            metadata=_of_run(made) | _of_models(made),
            data_version=dg.DataVersion(_data_version(made.steps)),
        )

    built.asked = asked  # type: ignore[attr-defined]  # for whoever plans it
    return dg.asset(
        key=asset_key,
        deps=list(above),
        group_name=group_name,
        description=description or _described(selection),
        kinds=set(kinds),
        owners=list(owners) if owners else None,
        tags=dict(tags or {}),
        code_version=_code_version(selection.models),
        metadata=_static(asked, selection.models),
        check_specs=[_spec(test, names[test.id], asset_key) for test in selection.tests],
        config_schema=_CONFIG,
        retry_policy=retry_policy,
        automation_condition=automation_condition,
    )(built)


def dbt_assets(
    *,
    name: str,
    project_dir: str | Path,
    select: str = "",
    exclude: str = "",
    group_name: str | None = None,
    deps: Sequence[Any] | None = None,
    vars: Mapping[str, Any] | None = None,
    schema: str = "default",
    kinds: Sequence[str] = _KINDS,
    owners: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
) -> dg.AssetsDefinition:
    """The same selection as one step with an asset for each model, called `schema/model`.

    They depend on each other as in dbt, and those that read from outside of the selection on `deps`; without `deps` on
    the tables that they read (`silver/sales`).
    """
    asked = _asked(project_dir, select, exclude, vars, schema)
    try:
        root, selection = _read(asked)
    except RatError as error:
        return _broken(dg.AssetKey([name]), error, deps)
    keys = {model.name: key_of(model.name) for model in selection.models}
    names = _check_names(selection)
    specs = [
        dg.AssetSpec(
            keys[model.name],
            deps=[*(keys[one] for one in model.above), *_above(model, deps)],
            group_name=group_name,
            description=model.description or f"`{model.path}`",
            kinds=set(kinds),
            owners=list(owners) if owners else None,
            tags=dict(tags or {}),
            code_version=_code_version([model]),
            metadata=_static(asked, [model]) | {"dagster/table_name": model.name},
        )
        for model in selection.models
    ]

    def built(context):  # type: ignore[no-untyped-def]
        made = yield from _run(context.op_execution_context, root, asked, names, keys)
        for step in made.steps:
            yield dg.MaterializeResult(
                asset_key=keys[step.asset],
                metadata=_of_run(made) | _of_step(step),
                data_version=dg.DataVersion(_data_version([step])),
            )

    built.asked = asked  # type: ignore[attr-defined]
    return dg.multi_asset(
        name=name,
        specs=specs,
        check_specs=[_spec(test, names[test.id], keys[test.on]) for test in selection.tests],
        config_schema=_CONFIG,
        retry_policy=retry_policy,
    )(built)


def _asked(
    project_dir: str | Path, select: str, exclude: str, variables: Mapping[str, Any] | None, schema: str
) -> Asked:
    return Asked(Path(project_dir).absolute(), select, exclude, dict(variables or {}), schema)


def _read(asked: Asked) -> tuple[Path, Selection]:
    root = files.find_root(asked.project)
    return root, read_selection(files.load(root).workspace, asked, recall=True)[1]


def _broken(key: dg.AssetKey, error: RatError, deps: Sequence[Any] | None) -> dg.AssetsDefinition:
    shown = StepFailed(error.what, where=error.where, state=error.state, next=error.next)
    return placeholder(key, shown, deps=[dg.AssetDep.from_coercible(one).asset_key for one in deps or ()])


# What is known before a run


def _check_names(selection: Selection) -> dict[str, str]:
    """Test id -> a name that Dagster takes, each once."""
    found: dict[str, str] = {}
    for test in selection.tests:
        made, number = word(test.name), 2
        while made in found.values():
            made, number = f"{word(test.name)}_{number}", number + 1
        found[test.id] = made
    return found


def _spec(test: Test, name: str, key: dg.AssetKey) -> dg.AssetCheckSpec:
    on = f"{test.on}.{test.column}" if test.column else test.on
    return dg.AssetCheckSpec(
        name,
        asset=key,
        description=test.description or f"dbt {test.kind.replace('_', ' ')} on {on}",
        blocking=test.severity == "error",
        metadata={"table": test.on, "path": test.path},
    )


def _outside(selection: Selection) -> list[str]:
    return sorted({one for model in selection.models for one in model.outside})


def _above(model: Model, deps: Sequence[Any] | None) -> list[Any]:
    if deps is None:
        return [key_of(one) for one in model.outside]
    return list(deps) if model.outside else []


def _described(selection: Selection) -> str:
    return "\n".join([f"`dbt build --select {selection.label}`", "", *(f"- `{name}`" for name in selection.names)])


def _code_version(models: Sequence[Model]) -> str:
    return "-".join(model.code_hash[:8] for model in models)[:64]


def _static(asked: Asked, models: Sequence[Model]) -> dict[str, Any]:
    # `path` and `materialize` say that the engine has gated it before Dagster hears of it.
    path = f"{asked.project.name}/{models[0].path}" if len(models) == 1 else asked.project.name
    return {"path": path, "materialize": _DBT, "select": asked.select or "everything"}


# A run


def _run(
    context: dg.OpExecutionContext,
    root: Path,
    asked: Asked,
    names: Mapping[str, str],
    keys: Mapping[str, dg.AssetKey],
) -> Generator[Any, None, Built]:
    """Builds; yields the check results, and gives back what was built. Raises Failure when nothing was published."""
    try:
        made = build(
            root,
            asked,
            outer=outer_of(context),
            full_refresh=context.op_config["full_refresh"],
            skip_fresh=is_automatic(context),
            listener=context.log.debug,
        )
    except RatError as error:
        raise failure(error) from None
    yield from _results(made, names, keys)
    if made.error is not None:
        failed = failure(made.error)
        more: dict[str, Any] = {"output_log": dg.MetadataValue.text(made.log), "tests_passed": made.tests_passed}
        raise dg.Failure(failed.description, dict(failed.metadata) | more, failed.allow_retries)
    context.log.info(f"{asked.label}: {made.reason or f'{len(made.steps)} models published'}")
    return made


def _results(made: Built, names: Mapping[str, str], keys: Mapping[str, dg.AssetKey]) -> Iterator[dg.AssetCheckResult]:
    found = {check.name: check for check in made.checks}
    for test in made.selection.tests:
        check = found.get(test.name)
        if check is not None and test.id in names:
            yield _result(check, names[test.id], keys[test.on], test)


def _result(check: CheckResult, name: str, key: dg.AssetKey, test: Test) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=check.passed,
        asset_key=key,
        check_name=name,
        severity=_SEVERITY[check.severity],
        metadata={"bad rows": check.bad, "rows": check.rows, "table": test.on},
        description=None
        if check.passed
        else f"{check.bad:,} rows fail"
        if check.bad
        else "the test ended with an error",
    )


# Metadata of an asset that stores its tables itself -> what a step of a run is told of it.
ROWS = {"rows in": "rows_in", "rows written": "rows_written", "rows total": "rows_total"}


def _of_run(made: Built) -> dict[str, Any]:
    return {
        "status": made.status,
        "reason": made.reason or "its tests passed",
        "models_count": len(made.steps),
        "schema": ", ".join(sorted({step.asset.partition(".")[0] for step in made.steps})),
        "tests_passed": made.tests_passed,
        "tests_count": len(made.selection.tests),
        "seconds": round(made.seconds, 3),
        "dbt seconds": round(made.dbt_seconds, 3),
        "output_log": dg.MetadataValue.text(made.log),
    }


def _of_models(made: Built) -> dict[str, Any]:
    rows = [
        dg.TableRecord({"model": s.asset, "rows": s.rows_total, "written": s.rows_written, "version": s.version or 0})
        for s in made.steps
    ]
    schema = dg.TableSchema(
        [dg.TableColumn("model"), *(dg.TableColumn(n, "int") for n in ("rows", "written", "version"))]
    )
    total = {f"{step.asset} rows": step.rows_total for step in made.steps}
    total |= {name: sum(getattr(step, field) for step in made.steps) for name, field in ROWS.items()}
    version = max((step.version or 0 for step in made.steps), default=0)
    return {"version": version, "models": dg.MetadataValue.table(rows, schema=schema), **total}


def _of_step(step: StepResult) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dagster/table_name": step.asset,
        "version": step.version or 0,
        "mode": step.mode,
        "rows in": step.rows_in,
        "rows written": step.rows_written,
    }
    if step.entry is not None:
        columns = [dg.TableColumn(name, type=kind) for name, kind in step.entry.columns]
        found["dagster/column_schema"] = dg.TableSchema(columns)
        if step.entry.materialize != "view":
            found["dagster/row_count"] = step.rows_total
    return found


def _data_version(steps: Sequence[StepResult]) -> str:
    return "-".join(str(step.entry.data_version) for step in steps if step.entry is not None)
