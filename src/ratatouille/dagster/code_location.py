"""What Dagster loads: every workspace of a project, or one pipeline, as Definitions.

project    the workspace at a root and those in its `workspaces/`: `definitions()`, `dagster dev` at the root
pipeline   one folder of `pipelines/` with the names that its documents use: `dagster dev -m pipelines.sales`
mounted    one workspace in somebody else's Dagster project: the component `ratatouille.dagster.Workspace`

Nothing in here raises for a file that is wrong: it becomes a placeholder that shows the error, and the rest loads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg

from ratatouille import project as files
from ratatouille.dagster import modules, triggers
from ratatouille.dagster.alerts import alerts_sensor
from ratatouille.dagster.assets import file_asset, group_of
from ratatouille.dagster.dead_runs import dead_runs_sensor
from ratatouille.dagster.executors import chosen_executor
from ratatouille.dagster.guarding import guard
from ratatouille.dagster.keys import Prefix, key_of, word
from ratatouille.dagster.link import linked, with_kinds
from ratatouille.dagster.outer import tell_the_engine
from ratatouille.dagster.reports import ledger_sensor
from ratatouille.dagster.stores import Stores, stored_in, tables_of
from ratatouille.errors import RatError, StepFailed
from ratatouille.handle import find_workspace
from ratatouille.project.find import PIPELINES, WORKSPACE_FILE
from ratatouille.project.problems import as_error
from ratatouille.project.records import Problem, Project

WORKSPACES = "workspaces"


@dataclass(frozen=True, slots=True)
class Mounted:
    """A workspace whose files are loaded, and what its Python modules define.

    `prefix` stands in front of the keys of its file assets where another workspace has the same names. Python assets
    keep the keys that their code gives them. `stores` names the IO managers of its native assets.
    """

    root: Path
    project: Project
    prefix: Prefix = ()
    found: modules.Found = field(default_factory=modules.Found)
    stores: Stores = field(default_factory=Stores)

    @property
    def keys(self) -> dict[str, dg.AssetKey]:
        """The asset key of each table: of the files, and of Python assets that are stored in this lake."""
        layers = self.project.workspace.layers
        native = {table: key for asset in self.found.assets for table, key in tables_of(asset, layers)}
        return native | {name: key_of(name, self.prefix) for name in self.project.assets}


def definitions(root: Path | str | None = None) -> dg.Definitions:
    """The project at `root` (default: RATATOUILLE_WORKSPACE, then the current folder): all of its workspaces."""
    top = find_workspace(root)
    folders = [top, *sorted(path.parent for path in top.glob(f"{WORKSPACES}/*/{WORKSPACE_FILE}"))]
    mounted, broken = _load(folders, top)
    for number, one in enumerate(mounted):
        if one.root == top:
            one.found.add(modules.packages(top))
        one.found.add(modules.dropped_files(one.root, one.project))
        mounted[number] = replace(one, stores=Stores() if one.root == top else Stores(_name_of(one)))
    return _assembled(mounted, broken, chosen_executor(), [dead_runs_sensor()])


def pipeline(module: str) -> dg.Definitions:
    """One pipeline as a code location: `pipeline("pipelines.sales")`, called from that package's `__init__.py`."""
    loaded = sys.modules[module]
    folder = Path(str(loaded.__file__)).parent
    root = files.find_root(folder)
    project = files.load(root)
    name = folder.relative_to(root / PIPELINES).parts[0]
    mine = {key: asset for key, asset in project.assets.items() if asset.pipeline == name}
    problems = tuple(p for p in project.problems if p.path.startswith(f"{PIPELINES}/{name}/"))
    one = Mounted(root, replace(project, assets=mine, problems=problems), found=modules.in_module(loaded))
    return _assembled([one], {}, chosen_executor(), [dead_runs_sensor()])


def workspace_definitions(root: Path | str, prefix: Sequence[str] = ()) -> dg.Definitions:
    """One workspace, to be mounted in another Dagster project; `prefix` goes in front of its asset keys."""
    folder = files.find_root(Path(root))
    mounted, broken = _load([folder], folder)
    mounted = [
        replace(
            one,
            prefix=tuple(prefix),
            found=modules.dropped_files(folder, one.project),
            # The project that it is mounted in may have an "io_manager" of its own.
            stores=Stores("_".join(["ratatouille", *prefix, _name_of(one)])),
        )
        for one in mounted
    ]
    return _assembled(mounted, broken)


def _load(folders: Sequence[Path], top: Path) -> tuple[list[Mounted], dict[str, StepFailed]]:
    mounted: list[Mounted] = []
    broken: dict[str, StepFailed] = {}
    taken: set[str] = set()
    for folder in folders:
        try:
            project = files.load(folder)
        except RatError as error:
            shown = f"{folder.relative_to(top)}/{WORKSPACE_FILE}" if folder != top else WORKSPACE_FILE
            broken[shown] = StepFailed(error.what, where=error.where, state=error.state, next=error.next)
            continue
        names = set(project.assets) | {p.asset for p in project.errors if p.asset}
        prefix = (word(project.workspace.name),) if names & taken else ()
        taken |= names
        mounted.append(Mounted(folder, project, prefix))
    return mounted, broken


def _name_of(one: Mounted) -> str:
    return word(one.project.workspace.name)


def _assembled(
    mounted: Sequence[Mounted],
    broken: Mapping[str, StepFailed],
    executor: dg.ExecutorDefinition | None = None,
    more_sensors: Sequence[dg.SensorDefinition] = (),
) -> dg.Definitions:
    tell_the_engine()
    found = modules.Found()
    for one in mounted:
        found.add(one.found)
    assets: list[Any] = []
    jobs, schedules, sensors = list(found.jobs), list(found.schedules), [*found.sensors, *more_sensors]
    resources = dict(found.resources)
    keys_of = [one.keys for one in mounted]
    for one, keys in zip(mounted, keys_of, strict=True):
        assets += [_file_asset(one, name, keys) for name in one.project.assets]
        assets += _placeholders(one)
        jobs += _jobs(one, {job.name for job in jobs})
        taken = {each.name for each in (*jobs, *schedules, *sensors)}
        schedules += triggers.schedules(one.project, one.root, one.prefix, taken)
        sensors += triggers.file_sensors(one.project, one.root, one.prefix, taken)
        sensors += triggers.upstream_sensors(one.project, one.root, one.prefix, taken)
        if one.project.assets:
            sensors.append(ledger_sensor(one.root, one.project, one.prefix))
        if one.project.workspace.alerts.rules:
            sensors.append(alerts_sensor(one.root, one.project, one.prefix))
    for one, keys in zip(mounted, keys_of, strict=True):
        assets += [stored_in(linked(with_kinds(asset), keys), one.stores) for asset in one.found.assets]
        if one.found.assets or not one.stores.name:
            resources = {**one.stores.managers(one.root), **resources}
    for path, error in {**broken, **found.broken}.items():
        assets.append(modules.placeholder(dg.AssetKey(["broken", word(path)]), error))
    made = dg.Definitions(
        assets=_each_key_once(assets),
        asset_checks=found.checks,
        jobs=jobs,
        schedules=schedules,
        sensors=sensors,
        resources=resources,
        executor=executor,
    )
    return guard(made)


def _file_asset(one: Mounted, name: str, keys: Mapping[str, dg.AssetKey]) -> dg.AssetsDefinition:
    asset = one.project.assets[name]
    return file_asset(
        one.root,
        asset,
        reads=[keys.get(above) or key_of(above, one.prefix) for above in asset.depends_on],
        prefix=one.prefix,
        automation=triggers.automation_condition(asset),
        freshness=triggers.freshness_policy(asset),
    )


def _placeholders(one: Mounted) -> list[dg.AssetsDefinition]:
    """One for each file that has errors, under the key that its asset would have."""
    by_file: dict[str, list[Problem]] = {}
    for problem in one.project.errors:
        by_file.setdefault(problem.asset or problem.path, []).append(problem)
    made = []
    for name, problems in by_file.items():
        key = key_of(name, one.prefix) if problems[0].asset else dg.AssetKey([*one.prefix, "broken", word(name)])
        made.append(modules.placeholder(key, _as_error(problems)))
    return made


def _as_error(problems: Sequence[Problem]) -> StepFailed:
    first = as_error(problems[0])
    more = f" ({len(problems) - 1} more: rat check)" if len(problems) > 1 else ""
    return StepFailed(f"{first.what}{more}", where=first.where, next=first.next or "rat check")


def _jobs(one: Mounted, taken: set[str]) -> list[Any]:
    """A job for each group of file assets, unless Python modules bring jobs for it."""
    groups = dict.fromkeys(group_of(asset) for asset in one.project.assets.values())
    spoken_for = {_group_of_native(asset) for asset in one.found.assets} if one.found.jobs else set()
    made = []
    for group in groups:
        name = word("_".join([*one.prefix, group, "job"]))
        if group in spoken_for:
            continue
        if name in taken:
            name = word(f"{one.project.workspace.name}_{name}")
        chosen = [key_of(a.name, one.prefix) for a in one.project.assets.values() if group_of(a) == group]
        made.append(dg.define_asset_job(name, dg.AssetSelection.assets(*chosen), description=f"All of {group}"))
    return made


def _group_of_native(asset: Any) -> str:
    return str(next(iter(asset.group_names_by_key.values()), "")) if isinstance(asset, dg.AssetsDefinition) else ""


def _each_key_once(assets: Sequence[Any]) -> list[Any]:
    """Of two definitions of one key the first stays; the other one becomes a placeholder that says so."""
    kept: list[Any] = []
    taken: set[dg.AssetKey] = set()
    for asset in assets:
        keys = set(asset.keys) if isinstance(asset, dg.AssetsDefinition) else {asset.key}
        twice = sorted(key.to_user_string() for key in keys & taken)
        if twice:
            error = StepFailed(
                f"the asset {', '.join(twice)} is defined twice",
                where=_place(asset),
                state="The file's own definition is the one that counts.",
                next="rename the Python asset, or remove one of the two",
            )
            name = dg.AssetKey(["broken", word(f"twice_{twice[0]}")])
            if name not in taken:
                kept.append(modules.placeholder(name, error))
                taken.add(name)
            continue
        taken |= keys
        kept.append(asset)
    return kept


def _place(asset: Any) -> str:
    function: Callable[..., Any] | None = getattr(getattr(asset, "op", None), "compute_fn", None)
    code = getattr(getattr(function, "decorated_fn", None), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else "a Python asset"
