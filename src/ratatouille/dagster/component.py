"""The Dagster component `ratatouille.dagster.Workspace`: a workspace folder in any other Dagster project.

# defs/kitchen/defs.yaml
type: ratatouille.dagster.Workspace
attributes:
  path: ../../../../kitchen
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import dagster as dg

from ratatouille.errors import RequestError
from ratatouille.project.find import WORKSPACE_FILE


class Workspace(dg.Component, dg.Resolvable, dg.Model):
    """The assets, checks, jobs and triggers of one Ratatouille workspace, each file an asset."""

    path: Annotated[
        str,
        dg.Resolver.default(
            description="The folder with workspace.yaml; relative to the folder of this defs.yaml.",
            examples=["../../../../kitchen", "/srv/kitchen"],
        ),
    ]
    key_prefix: Annotated[
        list[str],
        dg.Resolver.default(
            description="Goes in front of its asset keys, where two workspaces have assets of one name.",
            examples=[["kitchen"]],
        ),
    ] = []  # noqa: RUF012  pydantic copies it

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from ratatouille.dagster.code_location import workspace_definitions

        return workspace_definitions(_root(context.path, self.path), self.key_prefix)


def _root(here: Path, path: str) -> Path:
    folder = Path(os.path.normpath((here if here.is_dir() else here.parent) / Path(path).expanduser()))
    if (folder / WORKSPACE_FILE).is_file():
        return folder
    raise RequestError(
        f"{path} is not a Ratatouille workspace: there is no {WORKSPACE_FILE} in it.",
        where=f"attributes.path in {here}, which means {folder}",
        state="The component was not loaded.",
        next=f"Name the folder that holds {WORKSPACE_FILE}",
    )
