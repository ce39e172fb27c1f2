"""IO managers: what an `@asset` returns becomes a version in the lake, and a parameter gets what it is annotated with.

lake        frames (polars, pandas, Arrow, DuckDB relations, batches of them) are tables
artifact    dicts, lists, figures, folders and frames that are no tables: versioned folders, `lake/artifacts/__init__.py`

Nothing here unpickles anything.
"""

from __future__ import annotations

import json
import shutil
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

import dagster as dg
from dagster._core.definitions.utils import NoValueSentinel

from ratatouille import project as files
from ratatouille.dagster.guarding import GATES, began, is_watched
from ratatouille.dagster.keys import word
from ratatouille.dagster.metadata import materialization_metadata
from ratatouille.dagster.native import code_of, failure, table_of
from ratatouille.dagster.outer import outer_of
from ratatouille.engine import Outer, StepResult
from ratatouille.engine.artifacts import is_artifact, read_artifact, read_value, store_artifact, write_value
from ratatouille.engine.context import is_batches
from ratatouille.engine.native import ARTIFACT, Given, is_frame, native_asset, stands
from ratatouille.engine.native_tables import read, store
from ratatouille.engine.verdicts import Judged, Verdict, candidate_in_view, judge
from ratatouille.errors import RatError, RequestError
from ratatouille.handle import find_workspace, workspace_of_caller
from ratatouille.project.records import Asset

PREVIEW_ROWS = 5
MANIFEST = "manifest.json"
_OF_ARTIFACTS = {"status", "version", "run", "bytes written", "seconds", "reason"}
# The versions that a step was handed: (run, step) -> {table: version}.
_handed: dict[tuple[str, str], dict[str, int]] = {}


class Batches:
    """Frames that become one table, taken one after the other: `return Batches(frame for frame in ...)`."""

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames = iter(frames)

    def __iter__(self) -> Iterator[Any]:
        return self._frames

    def __next__(self) -> Any:
        return next(self._frames)


def lake_io_manager(workspace: str | Path | None = None) -> LakeIOManager:
    """Tables of the workspace at `workspace`, or of the one that the calling file lies in."""
    return LakeIOManager(find_workspace(workspace) if workspace is not None else workspace_of_caller().root)


def artifact_io_manager(workspace: str | Path | None = None) -> ArtifactIOManager:
    """Artifacts of the workspace at `workspace`, or of the one that the calling file lies in."""
    return ArtifactIOManager(find_workspace(workspace) if workspace is not None else workspace_of_caller().root)


def workspace_io_manager(workspace: str | Path | None = None) -> WorkspaceIOManager:
    """Tables for frames, artifacts for the rest: what a code location uses where nothing else is said."""
    return WorkspaceIOManager(find_workspace(workspace) if workspace is not None else workspace_of_caller().root)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks for a value: the Dagster runs that count as its own, whether it is a check, which partitions."""

    runs: Sequence[str]
    as_check: bool
    partitions: Sequence[str] | None


class _Ours(dg.IOManager):
    """What both IO managers share: names, versions handed on, and the verdicts of checks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._layers: tuple[str, ...] | None = None

    def store(self, given: Given, value: Any) -> StepResult:
        raise NotImplementedError

    def load(self, name: str, wanted: Any, asked: _Asked) -> tuple[Any, int, dict[str, Any]]:
        """The value, its version (0: a candidate), and metadata."""
        raise NotImplementedError

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        if obj is NoValueSentinel:
            return  # the version that stands was named instead
        if not context.has_asset_key:
            self._keep_for_the_run(context, obj)
            return
        if obj is None:
            context.log.info("It returned nothing, so there is nothing to store.")
            return
        step, key = context.step_context, context.asset_key
        place = (context.run_id, step.step.key)
        asset = self.asset(step, key, context.op_def.compute_fn)
        given = Given(
            asset=asset,
            outer=_outer(context.run_id),
            inputs=_handed.get(place, {}),
            gates=tuple(gates_of(step, key)),
            began=began.get(place),
            partition=_partition(context),
        )
        try:
            stored = self.store(given, obj)
        except RatError as error:
            raise failure(error) from error
        if stored.status == "waiting":
            step.set_data_version(key, dg.DataVersion(f"candidate {context.run_id}"))
        elif stored.entry is not None:
            step.set_data_version(key, dg.DataVersion(str(stored.entry.data_version)))
        context.log.info(f"{asset.name}: {stored.status}{': ' if stored.reason else ''}{stored.reason}")
        context.add_output_metadata(_metadata(asset, stored))

    def load_input(self, context: dg.InputContext) -> Any:
        if not context.has_asset_key:
            return self._kept_for_the_run(context)
        key, step = context.asset_key, _step_of(context)
        output = context.upstream_output
        metadata = dict(output.definition_metadata or {}) if output is not None else {}
        name = self.name_of(step, key) if step is not None else self.table(key, "", metadata)
        try:
            partitions = context.asset_partition_keys if context.has_asset_partitions else None
            asked = _Asked(runs_of(step), _is_check_of(step, key), partitions)
            value, version, said = self.load(name, context.dagster_type.typing_type, asked)
        except RatError as error:
            raise failure(error) from error
        if step is not None and version:
            _handed.setdefault((step.run_id, step.step.key), {})[name] = version
        facts = ", ".join(f"{fact} {value}" for fact, value in said.items())
        # No input metadata: Dagster would write an observation of the asset for every reader.
        context.log.info(f"{name}: read {f'version {version}' if version else 'the candidate'}, {facts}")
        return value

    def _keep_for_the_run(self, context: dg.OutputContext, value: Any) -> None:
        """What one op hands to another: data beside the lake, of no version and no name."""
        folder = self._folder_of(context)
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
            facts = write_value(value, folder)
        except RatError as error:
            raise failure(error) from error
        (folder / MANIFEST).write_text(json.dumps(facts))

    def _kept_for_the_run(self, context: dg.InputContext) -> Any:
        if context.upstream_output is None:
            raise failure(RequestError("this input comes from nowhere", where=context.name, next="connect it"))
        folder = self._folder_of(context.upstream_output)
        facts = json.loads((folder / MANIFEST).read_text())
        value = read_value(folder, facts)
        return as_annotated(value, context.dagster_type.typing_type, "it") if facts["kind"] == "parquet" else value

    def _folder_of(self, context: dg.OutputContext) -> Path:
        return self.root.joinpath(".rat", "steps", *(word(part) for part in context.get_identifier()))

    def stands(self, context: Any, key: dg.AssetKey, function: Any) -> dg.MaterializeResult[Any] | None:
        """What names the version that stands, if the step that makes `key` need not run."""
        step = context.get_step_execution_context()
        asset = self.asset(step, key, function)
        partition = context.partition_key if context.has_partition_key else ""
        found = stands(self.root, asset, outer_of(context), partition)
        if found is None:
            return None
        context.log.info(f"{asset.name}: {found.status}: {found.reason}")
        version = str(found.entry.data_version) if found.entry and found.entry.version else f"candidate {step.run_id}"
        return dg.MaterializeResult(
            asset_key=key, metadata=_metadata(asset, found), data_version=dg.DataVersion(version)
        )

    def in_view(self, context: Any, key: dg.AssetKey) -> AbstractContextManager[None]:
        """While the block runs, queries see the candidate that a check of this step judges."""
        step = context.get_step_execution_context()
        return candidate_in_view(self.root, self.name_of(step, key), runs_of(step))

    def judge(self, context: Any, key: dg.AssetKey, verdict: Verdict, outer: Outer, *, own: bool) -> Judged:
        """Note a check's verdict on the candidate of its run; `own`: the asset is built by the same step."""
        step = context.get_step_execution_context()
        runs = runs_of(step)[:1] if own else runs_of(step)
        return judge(self.root, self.name_of(step, key), runs, verdict, outer, only=own)

    def asset(self, step: Any, key: dg.AssetKey, function: Any) -> Asset:
        node, name = step.job_def.asset_layer.get(key), self.name_of(step, key)
        return native_asset(
            name,
            code_of(function, node.code_version, step.op_config, name),
            reads=[self.name_of(step, above) for above in sorted(node.parent_keys)],
            description=node.description or "",
        )

    def table(self, key: dg.AssetKey, group: str, metadata: Mapping[str, Any]) -> str:
        if self._layers is None:
            self._layers = files.load(self.root).workspace.layers
        return table_of(key, group, metadata, self._layers)

    def name_of(self, step: Any, key: dg.AssetKey) -> str:
        layer = step.job_def.asset_layer
        node = layer.get(key) if layer.has(key) else None
        return self.table(key, node.group_name if node else "", node.metadata if node else {})


def _metadata(asset: Asset, step: StepResult) -> dict[str, Any]:
    metadata = materialization_metadata(asset, step.entry, step, ())
    if step.entry is not None and step.entry.materialize == ARTIFACT:
        metadata = {name: said for name, said in metadata.items() if name in _OF_ARTIFACTS}
    if step.status == "waiting":
        metadata["version"] = "not published yet"
    return metadata


class LakeIOManager(_Ours):
    """Stores frames as tables and loads tables as frames. Use `lake_io_manager`."""

    def store(self, given: Given, value: Any) -> StepResult:
        return store(self.root, given, value, preview_rows=PREVIEW_ROWS)

    def load(self, name: str, wanted: Any, asked: _Asked) -> tuple[Any, int, dict[str, Any]]:
        rows, version = read(self.root, name, runs=asked.runs, as_check=asked.as_check, partitions=asked.partitions)
        return as_annotated(rows, wanted, name), version, {"rows": rows.num_rows}


class ArtifactIOManager(_Ours):
    """Stores values and folders as versioned folders. Use `artifact_io_manager`."""

    def store(self, given: Given, value: Any) -> StepResult:
        if given.partition:
            raise RequestError(
                f"{given.asset.name} is partitioned, and an artifact is stored whole",
                where=given.asset.name,
                next="store it as a table, or take its partitions away",
            )
        return store_artifact(self.root, given, value)

    def load(self, name: str, wanted: Any, asked: _Asked) -> tuple[Any, int, dict[str, Any]]:
        folder, manifest, version = read_artifact(self.root, name, runs=asked.runs, as_check=asked.as_check)
        said = {"folder": str(folder), "files": len(manifest["files"])}
        if wanted is Path:
            return folder, version, said
        value = read_value(folder, manifest)
        return as_annotated(value, wanted, name) if manifest.get("kind") == "parquet" else value, version, said


class WorkspaceIOManager(_Ours):
    """Stores frames as tables and everything else as artifacts. Use `workspace_io_manager`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._lake, self._artifacts = LakeIOManager(root), ArtifactIOManager(root)

    def store(self, given: Given, value: Any) -> StepResult:
        kind = self._lake if is_frame(value) or is_batches(value) else self._artifacts
        return kind.store(given, value)

    def load(self, name: str, wanted: Any, asked: _Asked) -> tuple[Any, int, dict[str, Any]]:
        kind = self._artifacts if is_artifact(self.root, name, runs=asked.runs, as_check=asked.as_check) else self._lake
        return kind.load(name, wanted, asked)


def gates_of(step: Any, key: dg.AssetKey) -> list[str]:
    """The blocking checks that a version of `key` must pass. RequestError for one that nobody listens to."""
    graph = step.job_def.asset_layer.asset_graph
    names = [str(name) for name in _value(graph.get(key).metadata.get(GATES)) or ()]
    for one in graph.assets_defs:
        blocking = [spec for spec in one.check_specs if spec.asset_key == key and spec.blocking]
        if blocking and not is_watched(one):
            raise failure(
                RequestError(
                    f"{key.to_user_string()} has the blocking check {blocking[0].name}, and nothing waits for it",
                    where=f"check {blocking[0].name}",
                    next="wrap the definitions: from ratatouille.dagster import guard; defs = guard(defs)",
                )
            )
        names += [spec.name for spec in blocking if spec.name not in names]
    return names


def _value(metadata: Any) -> Any:
    return getattr(metadata, "value", metadata)


def runs_of(step: Any) -> list[str]:
    """The Dagster run of a step and those that it was re-executed from, newest first."""
    if step is None:
        return []
    found, instance = [step.run_id], step.instance
    run = step.dagster_run
    while run is not None and run.parent_run_id and run.parent_run_id not in found:
        found.append(run.parent_run_id)
        run = instance.get_run_by_id(run.parent_run_id)
    return found


def _partition(context: dg.OutputContext) -> str:
    """The one partition that a step makes; '' for an asset without partitions."""
    keys = list(context.asset_partition_keys) if context.has_asset_partitions else []
    if len(keys) > 1:
        raise failure(
            RequestError(
                f"{context.asset_key.to_user_string()} was asked for {len(keys)} partitions at once",
                where=f"{keys[0]} ... {keys[-1]}",
                next="take backfill_policy=BackfillPolicy.single_run() away: each partition is a run of its own",
            )
        )
    return keys[0] if keys else ""


def _outer(run_id: str) -> Outer:
    try:
        return outer_of(dg.OpExecutionContext.get())
    except dg.DagsterInvariantViolationError:
        return Outer(run_id, "Dagster")


def _step_of(context: dg.InputContext) -> Any:
    try:
        return context.step_context
    except dg.DagsterInvariantViolationError:
        return None  # a value that is loaded outside of a run


def _is_check_of(step: Any, key: dg.AssetKey) -> bool:
    """Whether the step is a check of the asset and does not make it."""
    if step is None:
        return False
    keys = step.job_def.asset_layer.get_selected_entity_keys_for_node(step.node_handle)
    return key not in keys and any(isinstance(one, dg.AssetCheckKey) and one.asset_key == key for one in keys)


def as_annotated(rows: Any, wanted: Any, name: str) -> Any:
    """A pyarrow.Table as the type that a parameter is annotated with; polars where it says nothing."""
    kinds = typing.get_args(wanted) if typing.get_origin(wanted) in (typing.Union, UnionType) else (wanted,)
    for kind in kinds:
        top = str(getattr(kind, "__module__", "")).partition(".")[0]
        called = getattr(kind, "__name__", "")
        if kind is typing.Any or (top, called) == ("polars", "DataFrame"):
            return _polars(rows)
        if (top, called) == ("polars", "LazyFrame"):
            return _polars(rows).lazy()
        if (top, called) == ("pandas", "DataFrame"):
            return rows.to_pandas()
        if (top, called) == ("pyarrow", "Table"):
            return rows
        if (top, called) == ("pyarrow", "RecordBatchReader"):
            return rows.to_reader()
        if list in (kind, typing.get_origin(kind)):
            return rows.to_pylist()
    raise RequestError(
        f"{name} cannot be loaded as {wanted}",
        where=f"a parameter annotated with {wanted}",
        next="annotate it with a polars or pandas DataFrame, a polars LazyFrame, a pyarrow Table, or list[dict]",
    )


def _polars(rows: Any) -> Any:
    import polars

    return polars.from_arrow(rows)
