"""Masking: a value of a sensitive column may stand in what the database said about a row that it could not read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ratatouille.engine.gates import MASK
from ratatouille.project.records import Project

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def told(project: Project, said: str, asset: str = "") -> str:
    """The sentence; about an asset with a sensitive column without what stands between quotes.

    Without `asset` it is about every asset whose name stands in it.
    """
    names = [asset] if asset else [name for name in project.assets if name in said]
    hides = any(name in project.assets and project.assets[name].hidden for name in names)
    return _QUOTED.sub(MASK, said) if hides else said


def error_of(project: Project, asset: str, error: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """The four lines of a step's error. What a gate says is masked by the gate."""
    if error is None or error.get("error") == "GateFailed":
        return error
    return {**error, "what": told(project, error.get("what", ""), asset)}
