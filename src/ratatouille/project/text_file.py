"""A file's text, and places in it.

place     path, line and column (from 1) and length of a span, with that line's text, ready to be underlined
mention   a name that a file uses and that only the other files can confirm: an asset, a column, a table
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ratatouille.project.records import Problem

MAX_TEXT_BYTES = 1_000_000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


@dataclass(frozen=True, slots=True)
class Place:
    path: str
    line: int = 0
    column: int = 0
    length: int = 1
    text: str = ""

    def problem(self, message: str, *, hint: str = "", severity: str = "error", asset: str = "") -> Problem:
        return Problem(message, self.path, self.line, self.column, self.length, self.text, hint, severity, asset)


@dataclass(frozen=True, slots=True)
class Mention:
    kind: str  # ref | table | column (of the asset itself) | relationship (`name` is asset.column)
    name: str
    place: Place


@dataclass(slots=True)
class TextFile:
    """`path` is relative to the workspace root."""

    path: str
    text: str
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = self.text.split("\n")

    def at(self, line: int, column: int, length: int = 1) -> Place:
        text = self.lines[line - 1].rstrip("\r") if 0 < line <= len(self.lines) else ""
        return Place(self.path, line, column, length, text)

    def find(self, pattern: re.Pattern[str]) -> Place:
        """The first match, or the whole file. A group called `name` narrows the span."""
        match = pattern.search(self.text)
        if not match:
            return Place(self.path)
        start, end = match.span("name" if "name" in pattern.groupindex else 0)
        line = self.text.count("\n", 0, start) + 1
        column = start - (self.text.rfind("\n", 0, start) + 1) + 1
        return self.at(line, column, max(1, end - start))


def decode(path: str, raw: bytes) -> TextFile | Problem:
    """The text of a `.sql`, `.py` or `.yaml` file, or what keeps it from being read."""
    if len(raw) > MAX_TEXT_BYTES:
        return Problem(f"{path} has {len(raw):,} bytes; a file of code or settings may have {MAX_TEXT_BYTES:,}", path)
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        return Problem(f"{path} is not UTF-8 text: byte {error.start} cannot be read", path, hint="save it as UTF-8")
    control = _CONTROL.search(text)
    if control:
        file = TextFile(path, text.replace("\x00", " "))
        line = text.count("\n", 0, control.start()) + 1
        column = control.start() - text.rfind("\n", 0, control.start())
        return file.at(line, column).problem(f"a control character ({control.group()!r}) is not allowed in {path}")
    return TextFile(path, text)
