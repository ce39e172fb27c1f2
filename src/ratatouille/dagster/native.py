"""Native assets in Dagster: what their tables are called, what their code is, how their errors are told."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from ratatouille.errors import RatError, TransientError
from ratatouille.project.native import TABLE, table_name

# Names


def table_of(key: dg.AssetKey, group: str, metadata: Mapping[str, Any], layers: Sequence[str]) -> str:
    """The table of an asset: its metadata `table`, else `<layer or stage prefix, else group>.<rest of the name>`."""
    said = metadata.get(TABLE, "")
    return table_name(key.path, group, str(getattr(said, "value", said)), layers)


# Code


def code_of(function: Any, said: str | None, config: object, table: str) -> str:
    """The code hash of a native asset: its code version (else its source without comments), config and table."""
    version = said or source_hash(function)
    text = json.dumps([version, config, table], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def source_hash(function: Any) -> str:
    """A hash of a function's source; comments, layout and decorators do not count. '' where there is no source."""
    function = getattr(function, "decorated_fn", function)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError):
        return ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.decorator_list = []
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


# Errors


def failure(error: RatError) -> dg.Failure:
    """The four lines; only what may pass by itself is tried again."""
    lines = [error.what, error.where, error.state, f"Next: {error.next}" if error.next else ""]
    return dg.Failure(
        description="\n".join(line for line in lines if line),
        metadata={"next": error.next or "rat runs"},
        allow_retries=isinstance(error, TransientError),
    )
