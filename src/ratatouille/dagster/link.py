"""Native assets that call `run("silver.sales")` depend on that file asset: the call is found in their source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.definition.assets_definition import stringify_asset_key_to_input_name


def linked(asset: Any, keys: Mapping[str, dg.AssetKey]) -> Any:
    """The asset with the file assets that its body runs among its dependencies. `keys`: `silver.sales` -> its key."""
    if not isinstance(asset, dg.AssetsDefinition) or not asset.is_executable:
        return asset
    known = {dep.asset_key for spec in asset.specs for dep in spec.deps} | set(asset.keys)
    new = dict.fromkeys(keys[name] for name in names_run_by(asset) if name in keys and keys[name] not in known)
    if not new:
        return asset
    more = asset.map_asset_specs(
        lambda spec: spec.replace_attributes(deps=[*spec.deps, *(dg.AssetDep(key) for key in new)])
    )
    # As of 1.13.27 the inputs that this adds to the op are not told which asset they stand for, so no step waits.
    names = {**asset.node_keys_by_input_name, **{stringify_asset_key_to_input_name(key): key for key in new}}
    return dg.AssetsDefinition.dagster_internal_init(**{**more.get_attributes_dict(), "keys_by_input_name": names})


def with_kinds(asset: Any) -> Any:
    """`compute_kind=` is the older spelling of `kinds=`: both show the icon."""
    if not isinstance(asset, dg.AssetsDefinition) or not isinstance(getattr(asset, "node_def", None), dg.OpDefinition):
        return asset
    kind = asset.op.tags.get("dagster/compute_kind") or asset.op.tags.get("kind")
    if not kind:
        return asset
    return asset.map_asset_specs(lambda spec: spec if spec.kinds else spec.replace_attributes(kinds={kind}))


def names_run_by(asset: dg.AssetsDefinition) -> list[str]:
    """The literal names in calls of `run` in the asset's function, in order."""
    function = _function(asset)
    if function is None:
        return []
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return []
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_run(node.func):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    found[argument.value.strip().replace("/", ".")] = None
    return list(found)


def _is_run(called: ast.expr) -> bool:
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name == "run"


def _function(asset: dg.AssetsDefinition) -> Callable[..., Any] | None:
    node = getattr(asset, "node_def", None)
    if not isinstance(node, dg.OpDefinition):
        return None
    return getattr(node.compute_fn, "decorated_fn", None)
