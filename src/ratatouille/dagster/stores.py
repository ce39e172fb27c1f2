"""Where native assets are stored: in the lake of the workspace that their file lies in.

io_manager            tables for frames, artifacts for the rest: what an asset uses that names nothing
lake_io_manager       tables
artifact_io_manager   artifacts

The names mean this in every workspace. Where several are loaded together, those of all but the first carry the
workspace's name in front, and the assets are told so: Dagster has one set of resources for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

from ratatouille.dagster.io_managers import artifact_io_manager, lake_io_manager, workspace_io_manager
from ratatouille.dagster.native import table_of

_MADE_BY = {
    "io_manager": workspace_io_manager,
    "lake_io_manager": lake_io_manager,
    "artifact_io_manager": artifact_io_manager,
}


@dataclass(frozen=True, slots=True)
class Stores:
    """The IO managers of one workspace, under their plain names or with `name` in front."""

    name: str = ""

    def called(self, manager: str) -> str:
        return f"{self.name}_{manager}" if self.name and manager in _MADE_BY else manager

    def managers(self, root: Path) -> dict[str, Any]:
        return {self.called(name): _manager(name, root) for name in _MADE_BY}


@cache
def _manager(name: str, root: Path) -> Any:
    # The same one for the same folder: Dagster takes two equal ones of one name for a conflict.
    return _MADE_BY[name](root)


def stored_in(asset: Any, stores: Stores) -> Any:
    """The asset with its outputs in these stores; one that brings IO managers of its own keeps them."""
    node = getattr(asset, "node_def", None) if isinstance(asset, dg.AssetsDefinition) and asset.is_executable else None
    if not stores.name or not isinstance(node, dg.OpDefinition):
        return asset
    own = asset.resource_defs
    outs = {
        name: dg.Out.from_definition(out)._replace(
            io_manager_key=out.io_manager_key if out.io_manager_key in own else stores.called(out.io_manager_key)
        )
        for name, out in node.output_dict.items()
    }
    return asset.__class__.dagster_internal_init(
        **{**asset.get_attributes_dict(), "node_def": node.with_replaced_properties(node.name, outs=outs)}
    )


def tables_of(asset: Any, layers: Sequence[str]) -> Iterator[tuple[str, dg.AssetKey]]:
    """(table, key) of everything that a native asset stores, if it stores values at all."""
    if isinstance(asset, dg.AssetsDefinition) and asset.is_executable:
        for spec in asset.specs:
            yield table_of(spec.key, spec.group_name or "", spec.metadata, layers), spec.key
