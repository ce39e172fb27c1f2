"""YAML as plain values, each with its place in the file.

Less than YAML: one document, no tags, no merge keys, keys are text and appear once. Plain scalars follow
the JSON-like rules of YAML 1.2: only true/false are booleans, so `no`, `on` and `12:30` stay what people
wrote. A document that grows beyond MAX_NODES by aliases is refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from ratatouille.project.records import Problem
from ratatouille.project.text_file import Place, TextFile

MAX_NODES = 50_000
MAX_DEPTH = 50
Path = tuple[str | int, ...]

# Leading zeros belong to codes (00742), which stay text.
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)?\.[0-9]+([eE][-+]?[0-9]+)?")
# decimal(10,2) without quotes in a flow map: `decimal(10`, and a key `2)`
_OPEN, _CUT = re.compile(r"\(\s*\d+$"), re.compile(r"\d+\s*\)")
_WORDS: dict[str, bool | None] = {"": None, "~": None}
_WORDS |= dict.fromkeys(("null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_TEXT = "tag:yaml.org,2002:str"
_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "timestamp", "merge", "value")}
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Document:
    """`data` is the root; `keys` and `values` give the place of everything in it by its path."""

    data: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """The nearest known place of `path`: its key or its value, or what it lies in."""
        first, second = (self.keys, self.values) if key else (self.values, self.keys)
        while path and path not in first and path not in second:
            path = path[:-1]
        return first.get(path) or second.get(path) or self.values[()]


class _Refused(Exception):
    def __init__(self, place: Place, message: str, hint: str = "") -> None:
        self.problem = place.problem(message, hint=hint)


def read_yaml(file: TextFile) -> Document | Problem:
    """The document in `file`; an empty file gives None as its data."""
    try:
        node = yaml.compose(file.text, Loader=_Loader)
        document = Document(values={(): Place(file.path)})
        if node is not None:
            document.data = _Reader(file, document).value(node, (), 0)
        return document
    except _Refused as refused:
        return refused.problem
    except yaml.MarkedYAMLError as error:
        return _syntax_problem(file, error)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return Problem(f"{file.path} is not YAML: {str(error).splitlines()[0]}", file.path)


class _Reader:
    def __init__(self, file: TextFile, document: Document) -> None:
        self.file = file
        self.document = document
        self.seen = 0

    def value(self, node: yaml.Node, path: Path, depth: int) -> Any:
        place = self.place(node)
        self.document.values[path] = place
        self.seen += 1
        if self.seen > MAX_NODES or depth > MAX_DEPTH:
            raise _Refused(place, "this YAML is too large or too deep", "write it out without aliases (&, *)")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, place)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self.mapping(node, path, depth)
        raise _Refused(place, f"the tag {node.tag} is not allowed", "write plain values")

    def mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused(place, "a key must be plain text", "templates in YAML need quotes around them")
            key = str(key_node.value)
            before = next(reversed(result.values()), None)
            if _CUT.fullmatch(key) and value_node.value == "" and _OPEN.search(str(before)):
                raise _Refused(
                    place, f"{before},{key} needs quotes: inside braces a comma ends a value", f'"{before},{key}"'
                )
            if key in result:
                raise _Refused(place, f"'{key}' appears twice", "keep one of them")
            self.document.keys[(*path, key)] = place
            result[key] = self.value(value_node, (*path, key), depth + 1)
        return result

    def scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text = str(node.value)
        if node.tag == _TEXT or node.style in ("'", '"', "|", ">"):
            return text
        if node.tag not in _PLAIN:
            raise _Refused(place, f"the tag {node.tag} is not allowed", "write plain values")
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        return text

    def place(self, node: yaml.Node) -> Place:
        start, end = node.start_mark, node.end_mark
        length = end.column - start.column if end.line == start.line else 0
        line = self.file.at(start.line + 1, start.column + 1)
        return Place(line.path, line.line, line.column, max(1, length or len(line.text) - start.column), line.text)


def _syntax_problem(file: TextFile, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Problem(f"{file.path} is not YAML: {error.problem}", file.path)
    # The parser often stops one line after the tab that confused it.
    for line in (mark.line + 1, mark.line):
        text = file.lines[line - 1] if 0 < line <= len(file.lines) else ""
        indent = text[: len(text) - len(text.lstrip())]
        if "\t" in indent:
            place = file.at(line, indent.index("\t") + 1, indent.count("\t"))
            return place.problem("a tab in YAML: use spaces", hint="indent with two spaces")
        if "\t" in text and line == mark.line + 1:
            return file.at(line, text.index("\t") + 1).problem("a tab in YAML: use spaces")
    message = error.problem or "cannot be read"
    hint = "quote text that holds ': ', '{' or '%'" if "mapping" in message or "token" in message else ""
    line = min(mark.line + 1, len(file.lines))
    column = mark.column + 1 if line == mark.line + 1 else len(file.lines[-1]) + 1
    return file.at(line, column).problem(f"this is not YAML: {message}", hint=hint)
