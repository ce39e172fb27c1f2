"""Native assets, read without running them: the tables that Python code of an orchestrator makes, and a file can `ref`.

An asset counts when its decorator says its name in plain text: `@asset`, `@dg.asset(key=["silver", "orders"])`, or an
`AssetSpec(...)` inside `@multi_asset`. What code makes up while it runs cannot be seen from the files.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ratatouille.project.records import Native

STAGES = ("raw", "validated", "enriched", "transformed", "loaded")
TABLE = "table"  # the metadata that names an asset's table


def table_name(path: Sequence[str], group: str, said: str, layers: Sequence[str]) -> str:
    """The table of a native asset: what it says itself, else `<layer or stage prefix, else group>.<the rest>`.

    `path` is its asset key, `said` its metadata `table`.
    """
    if said:
        return said.strip().replace("/", ".")
    *above, name = path
    known = (*layers, *STAGES)
    for place, part in enumerate(above):
        if part in known:
            return f"{part}.{'_'.join([*above[place + 1 :], name])}"
    prefix, _, rest = name.partition("_")
    if prefix in known and rest:
        return f"{prefix}.{rest}"
    schema = above[-1] if above else (group or "default").replace("/", "_")
    return f"{schema}.{name}"


def natives(modules: Mapping[str, bytes], layers: Sequence[str]) -> dict[str, Native]:
    """The native assets that Python modules define, by table. `modules` are their bytes by path."""
    found: dict[str, Native] = {}
    for path, raw in sorted(modules.items()):
        if b"dagster" not in raw:
            continue
        try:
            tree = ast.parse(raw)
        except (SyntaxError, ValueError, RecursionError):
            continue  # whoever imports it says what is wrong
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for native in _made_by(node, _Constants(tree), path, layers):
                    found.setdefault(native.name, native)
    return found


def _made_by(
    function: ast.FunctionDef | ast.AsyncFunctionDef, constants: _Constants, path: str, layers: Sequence[str]
) -> Iterator[Native]:
    for decorator in function.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        specs: list[ast.expr] = []
        default = ""
        match _last_name(called):
            case "asset":
                specs, default = [decorator], function.name
            case "multi_asset":
                calls = [node for node in ast.walk(decorator) if isinstance(node, ast.Call)]
                specs = [call for call in calls if _last_name(call.func) == "AssetSpec"]
        for spec in specs:
            name = _table(spec, default, constants, layers)
            if name:
                yield Native(name, path, spec.lineno)


def _last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _table(spec: ast.AST, default: str, constants: _Constants, layers: Sequence[str]) -> str:
    """The table that a decorator or an AssetSpec means; '' when its code does not say so in plain text."""
    if not isinstance(spec, ast.Call):
        return table_name([default], "", "", layers) if default else ""
    try:
        said = {word.arg: constants.value(word.value) for word in spec.keywords if word.arg in _TELLING}
        key = said.get("key") or (constants.value(spec.args[0]) if spec.args and not default else None)
    except ValueError:
        return ""
    path = _parts(key) or [*_parts(said.get("key_prefix")), str(said.get("name") or default)]
    metadata = said.get("metadata")
    table = str(metadata.get(TABLE, "")) if isinstance(metadata, dict) else ""
    return table_name(path, str(said.get("group_name") or ""), table, layers) if all(path) else ""


_TELLING = ("name", "key", "key_prefix", "group_name", "metadata")


def _parts(said: Any) -> list[str]:
    return [said] if isinstance(said, str) else [str(part) for part in said or ()]


class _Constants:
    """The values that names have at the top of a module, where they are plain."""

    def __init__(self, tree: ast.Module) -> None:
        self._names = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def value(self, node: ast.AST, depth: int = 0) -> Any:
        """The value of an expression. ValueError when only running the code would tell."""
        match node:
            case ast.Constant():
                return node.value
            case ast.List() | ast.Tuple():
                return [self.value(item, depth) for item in node.elts]
            case ast.Dict():
                return self._plain_part(node, depth)
            case ast.Call() if _last_name(node.func) == "AssetKey" and node.args:
                return self.value(node.args[0], depth)
            case ast.Name() if node.id in self._names and depth < 5:
                return self.value(self._names[node.id], depth + 1)
        raise ValueError("not plain")

    def _plain_part(self, node: ast.Dict, depth: int) -> dict[Any, Any]:
        """A mapping's plain entries: metadata may hold anything, and only one key of it is asked for."""
        found = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == TABLE:
                found[key.value] = self.value(value, depth)
        return found
