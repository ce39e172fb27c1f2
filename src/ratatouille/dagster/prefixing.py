"""One name in several pipelines, where all of them are loaded together.

A package that says `prefix_where_taken = "forklift"` gives way: its assets that another package has as well get that
word in front (`forklift/trained_model`), with their checks, whatever reads them, and jobs that select them by name. Alone
it keeps the names of its documents. A sensor of such a package names its job (`job_name=`): the job is made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_selection import KeysAssetSelection, OperandListAssetSelection
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster_shared.record import copy

Keys = Mapping[dg.AssetKey, dg.AssetKey]


def give_way(assets: list[Any], checks: list[Any], jobs: list[Any], prefix: str, others: Iterable[Any]) -> None:
    """Put `prefix` in front of the keys of `assets` that some of the assets `others` have too, wherever they are named."""
    theirs = {key for other in others for key in keys_of(other)}
    mine = {key for asset in assets for key in keys_of(asset)}
    keys = {key: dg.AssetKey([prefix, *key.path]) for key in mine & theirs}
    if not keys:
        return
    assets[:] = [_renamed(asset, keys) for asset in assets]
    checks[:] = [_renamed(check, keys) for check in checks]
    jobs[:] = [_reselected(job, keys) for job in jobs]


def keys_of(asset: Any) -> Sequence[dg.AssetKey]:
    return list(asset.keys) if isinstance(asset, dg.AssetsDefinition) else [asset.key]


def _renamed(one: Any, keys: Keys) -> Any:
    if isinstance(one, dg.AssetSpec):
        return one.replace_attributes(key=keys.get(one.key, one.key))
    if not isinstance(one, dg.AssetsDefinition):
        return one
    moved = one.with_attributes(asset_key_replacements=keys)
    made = moved.get_attributes_dict()
    # As of 1.13.27 what a check reads beside its own asset keeps its old key.
    specs = made["check_specs_by_output_name"] or {}
    made["check_specs_by_output_name"] = {
        name: spec._replace(additional_deps=[_dep(dep, keys) for dep in spec.additional_deps])
        for name, spec in specs.items()
    }
    node, own = getattr(one, "node_def", None), [key for key in one.keys if key in keys]
    if own and isinstance(node, dg.OpDefinition):
        # Two steps of one run cannot have one name either.
        made["node_def"] = node.with_replaced_properties("__".join([*keys[own[0]].path[:-1], node.name]))
    return moved.__class__.dagster_internal_init(**made)


def _dep(dep: dg.AssetDep, keys: Keys) -> dg.AssetDep:
    return dg.AssetDep(keys.get(dep.asset_key, dep.asset_key), partition_mapping=dep.partition_mapping)


def _reselected(job: Any, keys: Keys) -> Any:
    if not isinstance(job, UnresolvedAssetJobDefinition):
        return job
    return copy(job, selection=_moved(job.selection, keys))


def _moved(selection: Any, keys: Keys) -> Any:
    if isinstance(selection, KeysAssetSelection):
        return dg.AssetSelection.assets(*(keys.get(key, key) for key in selection.selected_keys))
    if isinstance(selection, OperandListAssetSelection):
        return type(selection)(operands=[_moved(one, keys) for one in selection.operands])
    return selection
