"""Names on both sides: `silver.sales` here is the asset key `silver/sales` there.

prefix    the workspace's name in front of a key, only where two workspaces have assets of the same name
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import dagster as dg

_NO_WORD = re.compile(r"\W+")

Prefix = tuple[str, ...]


def key_of(name: str, prefix: Sequence[str] = ()) -> dg.AssetKey:
    """`silver.sales` -> AssetKey(["silver", "sales"])."""
    return dg.AssetKey([*prefix, *name.split(".")])


def word(text: str) -> str:
    """A name that Dagster takes for a job, a check, a sensor or a group: letters, digits and `_`."""
    return _NO_WORD.sub("_", text).strip("_") or "_"
