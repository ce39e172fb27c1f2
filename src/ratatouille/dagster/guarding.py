"""Guarding: an asset stored by our IO managers becomes current only when its blocking checks have passed.

watched    a definition whose checks report to the lake: each blocking result is recorded as the verdict on the
           candidate of the same Dagster run, and the last one to pass publishes it, before Dagster sees the result
gates      the names of the blocking checks of an asset; its IO manager writes a candidate if there are any

A check's body that raises is a rejection. A run that is killed leaves no verdict: running the check again gives one.
"""

from __future__ import annotations

import copy
import functools
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction
from dagster._core.definitions.utils import NoValueSentinel
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.plan.compute import gen_from_async_gen
from dagster._core.execution.plan.compute_generator import create_op_compute_wrapper

from ratatouille.dagster.native import failure, source_hash
from ratatouille.dagster.outer import is_automatic, outer_of
from ratatouille.engine.verdicts import Judged, Verdict
from ratatouille.errors import RatError, RequestError, near_miss

GATES = "ratatouille/gates"
# When the body of a step began, for the IO manager that stores what it gives: (run, step) -> time.monotonic().
began: dict[tuple[str, str], float] = {}


@dataclass(frozen=True, slots=True)
class Watched:
    """What a watched op was before."""

    op: dg.OpDefinition
    function: Any


def guard(defs: dg.Definitions) -> dg.Definitions:
    """The same definitions, with every blocking check a gate of its asset.

    Plain Dagster checks, as steps of their own and in an asset's `check_specs`. Raises RequestError for a check on an
    asset that is not among them.
    """
    assets, checks = list(defs.assets or ()), list(defs.asset_checks or ())
    specs = [spec for one in (*assets, *checks) if isinstance(one, dg.AssetsDefinition) for spec in one.check_specs]
    _refuse_phantoms(specs, assets)
    gates: dict[dg.AssetKey, list[str]] = {}
    gated_by_the_engine = {key for one in assets if is_file_asset(one) for key in getattr(one, "keys", ())}
    for spec in specs:
        if spec.asset_key in gated_by_the_engine:
            continue
        if spec.blocking and spec.name not in gates.setdefault(spec.asset_key, []):
            gates[spec.asset_key].append(spec.name)
    keys = _io_manager_keys(assets)
    made = [_guarded(one, keys, gates) for one in assets]
    return dg.Definitions(
        assets=made,
        asset_checks=[
            one
            if all(spec.asset_key in gated_by_the_engine for spec in one.check_specs)
            else watched(one, keys).coerce_to_checks_def()
            for one in checks
        ],
        schedules=[retargeted(one, made) for one in defs.schedules or ()],
        sensors=[retargeted(one, made) for one in defs.sensors or ()],
        jobs=defs.jobs,
        resources=defs.resources,
        executor=defs.executor,
        loggers=defs.loggers,
        metadata=defs.metadata,
        component_tree=defs.component_tree,
    )


def is_file_asset(one: Any) -> bool:
    """Whether the engine builds and gates it: its versions are checked before Dagster hears of them."""
    return isinstance(one, dg.AssetsDefinition) and all({"path", "materialize"} <= {*s.metadata} for s in one.specs)


def _refuse_phantoms(specs: Sequence[dg.AssetCheckSpec], assets: Sequence[Any]) -> None:
    known = {key for one in assets for key in (one.keys if isinstance(one, dg.AssetsDefinition) else [one.key])}
    names = [key.to_user_string() for key in known]
    for spec in specs:
        if spec.asset_key not in known:
            name = spec.asset_key.to_user_string()
            raise RequestError(
                f"the check {spec.name} is on the asset {name}, which does not exist.{near_miss(name, names)}",
                where=f"check {spec.name}",
                state="Nothing was loaded.",
                next="name the asset by its key: @asset_check(asset=...)",
            )


def _io_manager_keys(assets: Sequence[Any]) -> dict[dg.AssetKey, str]:
    executable = [one for one in assets if isinstance(one, dg.AssetsDefinition) and one.is_executable]
    return {key: one.get_io_manager_key_for_asset_key(key) for one in executable for key in one.keys}


def _guarded(one: Any, keys: Mapping[dg.AssetKey, str], gates: Mapping[dg.AssetKey, Sequence[str]]) -> Any:
    """An asset that knows its gates and its code version."""
    if not isinstance(one, dg.AssetsDefinition) or not one.is_executable or is_file_asset(one):
        return one
    made = watched(one, keys)
    version = source_hash(one.op.compute_fn) if stores_values(one) else ""

    def with_gates(spec: dg.AssetSpec) -> dg.AssetSpec:
        changed: dict[str, Any] = {}
        if gates.get(spec.key):
            changed["metadata"] = {**spec.metadata, GATES: list(gates[spec.key])}
        if version and not spec.code_version:
            changed["code_version"] = version
        return spec.replace_attributes(**changed) if changed else spec

    return made.map_asset_specs(with_gates)


def stores_values(one: dg.AssetsDefinition) -> bool:
    node = one.node_def
    if not isinstance(node, dg.OpDefinition) or len(one.keys) != 1:
        return False
    outputs = [node.output_def_named(name) for name in one.keys_by_output_name]
    return all(not output.dagster_type.is_nothing for output in outputs)


def retargeted(one: Any, assets: Sequence[Any]) -> Any:
    """A schedule or sensor whose target lists assets, aimed at the definitions that took their place."""
    by_key = {key: asset for asset in assets if isinstance(asset, dg.AssetsDefinition) for key in asset.keys}

    def moved(target: Any) -> Any:
        listed = [next((by_key[key] for key in asset.keys if key in by_key), asset) for asset in target.assets_defs]
        return target._replace(assets_defs=listed)

    if any(target.assets_defs for target in getattr(one, "_targets", None) or ()):
        one = copy.copy(one)
        one._targets = [moved(target) for target in one._targets]
    elif getattr(getattr(one, "_target", None), "assets_defs", None):
        one = copy.copy(one)
        one._target = moved(one._target)
    return one


def watched(one: dg.AssetsDefinition, keys: Mapping[dg.AssetKey, str]) -> dg.AssetsDefinition:
    """The definition with its op watched: its blocking checks are verdicts, its start is noted.

    `keys` names the IO manager of each asset.
    """
    node = one.node_def if one.is_executable else None
    stores = stores_values(one) if node is not None else False
    if not isinstance(node, dg.OpDefinition) or not (stores or one.check_keys):
        return one
    before = getattr(node.compute_fn, "watched", Watched(node, node.compute_fn)).op
    told = {*(spec.asset_key for spec in one.check_specs), *(one.keys if stores else ())}
    managers = {keys[key] for key in told if key in keys}
    op = dg.OpDefinition(
        compute_fn=_compute(before, tuple(one.check_specs), frozenset(one.keys if stores else ()), one.keys, keys),
        name=node.name,
        ins={name: dg.In.from_definition(defined) for name, defined in node.input_dict.items()},
        outs={
            name: _out(defined, stores and name in one.keys_by_output_name)
            for name, defined in node.output_dict.items()
        },
        description=node.description,
        config_schema=node.config_schema,
        required_resource_keys={*before.required_resource_keys, *managers},
        tags=node.tags,
        retry_policy=node.retry_policy,
        code_version=node._version,
        pool=node.pool,
    )
    return one.__class__.dagster_internal_init(**{**one.get_attributes_dict(), "node_def": op})


def _out(defined: dg.OutputDefinition, stored: bool) -> dg.Out:
    out: dg.Out = dg.Out.from_definition(defined)
    if stored and not defined.dagster_type.is_any:
        out = out._replace(dagster_type=_or_what_stands(defined.dagster_type))
    return out


@functools.cache
def _or_what_stands(given: dg.DagsterType) -> dg.DagsterType:
    """The type, or no value at all: a step that has nothing to do gives none."""

    def check(context: Any, value: object) -> dg.TypeCheck:
        return dg.TypeCheck(success=True) if value is NoValueSentinel else given.type_check(context, value)

    return dg.DagsterType(
        check,
        key=f"{given.key} or what stands",
        description=given.description,
        required_resource_keys=set(given.required_resource_keys),
        typing_type=given.typing_type,
    )


def is_watched(definition: Any) -> bool:
    return hasattr(getattr(getattr(definition, "node_def", None), "compute_fn", None), "watched")


def _compute(
    before: dg.OpDefinition,
    specs: tuple[dg.AssetCheckSpec, ...],
    stored: frozenset[dg.AssetKey],
    own: Any,
    keys: Mapping[dg.AssetKey, str],
) -> Callable[..., Any]:
    decorated = isinstance(before.compute_fn, DecoratedOpFunction)
    function: Any = before.compute_fn.decorated_fn if decorated else before.compute_fn  # type: ignore[union-attr]
    body: Any = create_op_compute_wrapper(before) if decorated else before.compute_fn
    blocking = tuple(spec for spec in specs if spec.blocking)
    op = _Op(blocking, frozenset(spec.asset_key for spec in specs) - own, frozenset(own), dict(keys))

    @functools.wraps(function)
    def compute(context: Any, inputs: Any) -> Iterator[Any]:
        inner = context.op_execution_context
        step = inner.get_step_execution_context()
        began[(inner.run_id, step.step.key)] = time.monotonic()
        if stored and not specs and (standing := op.standing(inner, function)) is not None:
            yield standing
            return
        with op.candidates_in_view(inner):
            events = body(context, inputs)
            if inspect.isasyncgen(events):
                events = gen_from_async_gen(step, events)
            yield from op.watch(inner, events) if blocking else events

    compute.watched = Watched(before, function)  # type: ignore[attr-defined]
    compute.decorated_fn = function  # type: ignore[attr-defined]
    return compute


@dataclass(frozen=True, slots=True)
class _Op:
    """What a watched op does: its blocking checks, the assets of others that it checks, those that it makes itself."""

    blocking: tuple[dg.AssetCheckSpec, ...]
    checked: frozenset[dg.AssetKey]
    own: frozenset[dg.AssetKey]
    managers: Mapping[dg.AssetKey, str]

    def standing(self, context: Any, function: Any) -> Any:
        """The version that stands, for a run that nobody asked for just now and that has nothing to do."""
        (key,) = self.own
        if not is_automatic(context) or context.retry_number:
            return None
        tell = self._manager(context, key, "stands")
        try:
            return tell(context, key, function) if tell is not None else None
        except RatError as error:
            raise failure(error) from error

    @contextmanager
    def candidates_in_view(self, context: Any) -> Iterator[None]:
        with ExitStack() as stack:
            for key in self.checked:
                view = self._manager(context, key, "in_view")
                if view is not None:
                    stack.enter_context(view(context, key))
            yield

    def _manager(self, context: Any, key: dg.AssetKey, verb: str) -> Callable[..., Any] | None:
        """What an asset's IO manager can be asked, if it is one of ours."""
        found = getattr(context.resources, self.managers.get(key, "io_manager"), None)
        told: Callable[..., Any] | None = getattr(found, verb, None)
        return told

    def watch(self, context: Any, events: Iterator[Any]) -> Iterator[Any]:
        """The op's events. Verdicts on its own assets wait until their values are stored."""
        later: list[tuple[dg.AssetCheckSpec, dg.AssetCheckResult]] = []
        spoken: set[dg.AssetCheckKey] = set()
        for event in self._of_body(context, events, spoken):
            for spec, result in self._results(event):
                spoken.add(spec.key)
                if spec.asset_key in self.own:
                    later.append((spec, result))
                elif event is result:
                    event = self._said(context, spec, result)
            yield event
        for spec, result in later:
            self._judge(context, spec, _verdict(spec, result))

    def _of_body(self, context: Any, events: Iterator[Any], spoken: set[dg.AssetCheckKey]) -> Iterator[Any]:
        """What the body gives; if it raises, the checks that have not spoken have failed."""
        while True:
            try:
                event = next(events)
            except StopIteration:
                return
            except dg.RetryRequested:
                raise
            except Exception as error:
                if _was_interrupted(error):
                    raise  # the run was stopped: that is no verdict
                said = f"its body raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"
                for spec in self.blocking:
                    if spec.key not in spoken:
                        self._judge(context, spec, Verdict(spec.name, False, said=said))
                raise
            yield event

    def _results(self, event: Any) -> Iterator[tuple[dg.AssetCheckSpec, dg.AssetCheckResult]]:
        found = [event] if isinstance(event, dg.AssetCheckResult) else list(getattr(event, "check_results", None) or ())
        for result in found:
            for spec in self.blocking:
                if result.check_name in (None, spec.name) and result.asset_key in (None, spec.asset_key):
                    yield spec, result
                    break

    def _said(self, context: Any, spec: dg.AssetCheckSpec, result: dg.AssetCheckResult) -> dg.AssetCheckResult:
        """The result, with what became of the candidate."""
        judged = self._judge(context, spec, _verdict(spec, result))
        if judged is None or judged.status == "current":
            return result
        more: dict[str, Any] = {"candidate": _OUTCOMES.get(judged.status, judged.status)}
        if judged.version:
            more["published version" if judged.status == "built" else "readers see version"] = judged.version
        if judged.waits_for:
            more["waits for"] = ", ".join(judged.waits_for)
        if judged.error is not None and not result.passed:
            context.log.error(str(judged.error))
        return result._replace(
            metadata={**result.metadata, **{n: dg.MetadataValue.text(str(v)) for n, v in more.items()}}
        )

    def _judge(self, context: Any, spec: dg.AssetCheckSpec, verdict: Verdict) -> Judged | None:
        """Tell the asset's IO manager, if it is one of ours."""
        tell = self._manager(context, spec.asset_key, "judge")
        if tell is None:
            return None
        try:
            judged: Judged = tell(context, spec.asset_key, verdict, outer_of(context), own=spec.asset_key in self.own)
            return judged
        except RatError as error:
            raise failure(error) from error


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether the run was stopped; what was running may have made another error of it."""
    while error is not None:
        if isinstance(error, DagsterExecutionInterruptedError | KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


_OUTCOMES = {
    "built": "published",
    "failed": "rejected; it stays for inspection",
    "waiting": "waits for other checks",
    "superseded": "superseded: a newer version was published",
}


def _verdict(spec: dg.AssetCheckSpec, result: dg.AssetCheckResult) -> Verdict:
    severity = "warn" if result.severity == dg.AssetCheckSeverity.WARN else "error"
    said = result.description or ", ".join(f"{name}: {value.value}" for name, value in result.metadata.items())
    return Verdict(spec.name, result.passed, severity, said[:500])
