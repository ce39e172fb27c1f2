"""`vars_files:` in workspace.yaml: variables that live in files of their own, and that the environment may override.

    vars_files:
      shop: {files: [config/base.yaml, "config/${SHOP_ENV:-dev}.yaml"], environment: SHOP}

gives {{ var('shop.quality.completeness') }}: the files over each other in this order, and over them
SHOP__QUALITY__COMPLETENESS=0.9. An override names a key that the files have: a slip of the pen is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ratatouille.errors import RequestError, near_miss
from ratatouille.project.problems import as_error
from ratatouille.project.records import Problem
from ratatouille.project.text_file import TextFile, decode


@dataclass(frozen=True, slots=True)
class VarsFiles:
    """The files of one variable, expanded and read; nothing is parsed yet."""

    name: str
    contents: Mapping[str, bytes]  # path relative to the workspace -> its bytes
    prefix: str  # of the environment variables that override; '' for none

    @property
    def key(self) -> str:
        digest = hashlib.sha256()
        for path, raw in self.contents.items():
            digest.update(f"{path}\0{len(raw)}\0".encode() + raw)
        return digest.hexdigest()


def read_bytes(root: Path, name: str, files: Sequence[str], prefix: str) -> VarsFiles:
    """RequestError for a path outside the workspace and for a file that cannot be read.

    No contents where the folder of every file is absent: a pipeline that was taken away takes its settings along.
    """
    contents: dict[str, bytes] = {}
    for file in files:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts:
            raise _refused(name, f"'{file}' is not a file of this workspace", "name it relative to workspace.yaml")
    if not any((root / file).parent.is_dir() for file in files):
        return VarsFiles(name, contents, prefix)
    for file in files:
        try:
            contents[file] = (root / file).read_bytes()
        except OSError as error:
            raise _refused(
                name, f"{file} cannot be read: {error.strerror}", "write it, or take it off the list"
            ) from error
    return VarsFiles(name, contents, prefix)


def merged(said: VarsFiles) -> dict[str, Any]:
    """What the files say, later ones over earlier ones, mapping by mapping."""
    from ratatouille.project.yaml_text import read_yaml

    found: dict[str, Any] = {}
    for path, raw in said.contents.items():
        file = decode(path, raw)
        document = file if isinstance(file, Problem) else read_yaml(file)
        if isinstance(document, Problem):
            raise as_error(document)
        if document.data is not None and not isinstance(document.data, dict):
            raise as_error(document.place(()).problem("this must be a mapping: lines of `key: value`"))
        found = laid_over(found, document.data or {})
    return found


def overridden(said: VarsFiles, values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The values with those that the environment says otherwise: PREFIX__SECTION__KEY, read as YAML."""
    mark = f"{said.prefix}__"
    known = bool(said.prefix and said.contents)
    overrides = {name: text for name, text in sorted(environment.items()) if known and name.startswith(mark)}
    found = dict(values)
    for variable, text in overrides.items():
        found = laid_over(found, _nested(said, variable, _path(variable[len(mark) :], values), text, values))
    return found


def _path(words: str, values: Mapping[str, Any]) -> list[str]:
    """SECTION__KEY as the files spell those keys."""
    path: list[str] = []
    within: Any = values
    for word in words.split("__"):
        known = {key.lower(): key for key in within} if isinstance(within, Mapping) else {}
        path.append(known.get(word.lower(), word.lower()))
        within = within.get(path[-1]) if isinstance(within, Mapping) else None
    return path


def _nested(
    said: VarsFiles, variable: str, path: Sequence[str], text: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    from ratatouille.project.yaml_text import read_yaml

    within: Any = values
    for key in path:
        if not isinstance(within, Mapping) or key not in within:
            known = list(within) if isinstance(within, Mapping) else []
            hint = near_miss(key, known).strip() or f"the files of {said.name} say which keys there are"
            raise RequestError(f"{variable}: {said.name} has no '{'.'.join(path)}'", where=variable, next=hint)
        within = within[key]
    document = read_yaml(TextFile(variable, text))
    value = document.data if not isinstance(document, Problem) else text
    if isinstance(within, Mapping) and not isinstance(value, Mapping):
        hint = f"name one of its keys: {variable}__{next(iter(within), 'KEY')}".upper()
        raise RequestError(f"{variable}: '{'.'.join(path)}' is no single value", where=variable, next=hint)
    nested: Any = value
    for key in reversed(path):
        nested = {key: nested}
    return dict(nested)


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping over another, mapping by mapping; other values replace."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = laid_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def _refused(name: str, what: str, step: str) -> RequestError:
    return RequestError(f"vars_files.{name}: {what}", where=f"workspace.yaml: vars_files.{name}", next=step)
