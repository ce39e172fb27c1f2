"""The version of an artifact of this pipeline that readers see now."""

from __future__ import annotations

import logging
from pathlib import Path

from dagster import AssetKey, Failure, PythonObjectDagsterType, build_input_context, build_output_context

from ratatouille import workspace
from ratatouille.dagster import artifact_io_manager

_FOLDER = PythonObjectDagsterType(Path, name="FolderOfAVersion")


class NoVersionError(ValueError):
    """There is nothing to read, or it cannot be trusted; the message is what the platform says of it."""


def current(asset: str) -> Path | None:
    """As `read`, but None where there is nothing to read, or where it cannot be trusted any more."""
    try:
        return read(asset)
    except NoVersionError:
        return None


def read(asset: str) -> Path:
    """The folder of the current version of `recipes.<asset>`, every file compared with its checksum."""
    key = AssetKey(asset)
    output = build_output_context(asset_key=key, definition_metadata={"table": f"recipes.{asset}"})
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # outside of a run Dagster would write to the terminal that a file was read
    try:
        found = artifact_io_manager(workspace().root).load_input(
            build_input_context(asset_key=key, upstream_output=output, dagster_type=_FOLDER)
        )
    except Failure as error:
        raise NoVersionError(error.description or str(error)) from error
    finally:
        logging.disable(before)
    return Path(found)
