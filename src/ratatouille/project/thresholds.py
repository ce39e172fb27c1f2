"""Thresholds of checks: numbers of `vars:` in workspace.yaml, and limits like `> 1%`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ratatouille.errors import near_miss
from ratatouille.project.checks import Mistake

_VAR = re.compile(r"\s*\{\{\s*var\(\s*(?P<quote>['\"])(?P<name>[^'\"]+)(?P=quote)\s*\)\s*\}\}\s*")


def with_variables(written: Any, variables: Mapping[str, Any]) -> Any:
    """What a sidecar says of a check, with `{{ var('quality.completeness') }}` replaced by its value. Raises Mistake."""
    if isinstance(written, Mapping):
        return {key: item if key == "sql" else with_variables(item, variables) for key, item in written.items()}
    if isinstance(written, list):
        return [with_variables(item, variables) for item in written]
    found = _VAR.fullmatch(written) if isinstance(written, str) else None
    return value_of(found["name"], variables) if found else written


def value_of(name: str, variables: Mapping[str, Any]) -> Any:
    """The value of a variable, or of a key inside it: `quality.completeness`. Raises Mistake with the near miss."""
    if name in variables:
        return variables[name]
    value: Any = variables
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = list(value) if isinstance(value, Mapping) else []
            hint = near_miss(part, known).strip() or "add it to `vars:` in workspace.yaml"
            raise Mistake(f"there is no variable called '{name}'", hint=hint)
        value = value[part]
    return value
