"""What the keys of YAML files are made of: closed models, and texts, durations, sizes and shares as people write them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from ratatouille.project import units


def a_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _a_share(value: Any) -> Any:
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        return float(found.group(1)) / 100
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise ValueError("write a share like 10%, or 0.1")


def _one_character(value: Any) -> Any:
    if isinstance(value, str) and len(value) != 1:
        raise ValueError("must be one character")
    return value


_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_DURATION = {"anyOf": [{"type": "string", "pattern": r"^\s*(\d+(\.\d+)?\s*(ms|s|m|h|d|w)\s*)+$"}, {"type": "number"}]}
_SHARE = {"anyOf": [{"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}, {"type": "number"}]}
_SIZE = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
Texts = Annotated[list[str], BeforeValidator(a_list), WithJsonSchema(_TEXTS)]
Duration = Annotated[float, BeforeValidator(units.seconds), WithJsonSchema(_DURATION)]
Share = Annotated[float, BeforeValidator(_a_share), WithJsonSchema(_SHARE)]
Size = Annotated[int, BeforeValidator(units.size_bytes), WithJsonSchema(_SIZE)]
Character = Annotated[str, BeforeValidator(_one_character)]
# May hold ${NAME}: their value is known, and checked, when the variables are.
Expandable = Annotated[Any, WithJsonSchema(_SIZE)]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
