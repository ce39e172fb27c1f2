"""Templates: how `{{ ref('silver.sales') }}` in an asset's SQL becomes text.

Jinja runs in a sandbox, with strict undefined, no loader and nothing random. The functions that name tables
come from `Bindings`: an analysis records what was asked for, a run answers with the lake's tables. `var` and
`env` are answered here. Their values may not end a text or start a comment: those need `| literal`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, Protocol

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ratatouille.errors import near_miss
from ratatouille.project import thresholds
from ratatouille.project.records import Database, Problem, Source
from ratatouille.project.sources import find_source
from ratatouille.project.text_file import Place, TextFile

FUNCTIONS = ("ref", "source", "this", "is_incremental", "watermark", "changes", "var", "env")
_UNSAFE = re.compile(r"['\";\\\x00-\x1f]|--|/\*|\*/|\$\$")
_MARK = re.compile(r"\x01(\d+)\x01")
_MISSING: Any = object()


class Bindings(Protocol):
    """What the functions of a template mean. Each returns SQL text."""

    def ref(self, name: str) -> str: ...
    def source(self, source: Source) -> str: ...
    def this(self) -> str: ...
    def is_incremental(self) -> bool: ...
    def watermark(self, column: str) -> str: ...
    def changes(self, name: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Values:
    """What `var`, `env` and `source` may know. `environment` holds no more than the names that are allowed."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    allowed: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    macros: Mapping[str, str] = field(default_factory=dict)  # path -> text
    databases: Mapping[str, Database] = field(default_factory=dict)


class Refused(Exception):
    """The file says something that cannot be; `problem` says what and where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Wrong(Exception):
    """Raised inside a template; becomes a Refused with the place."""

    def __init__(self, message: str, span: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.span = span
        self.hint = hint


@dataclass(frozen=True, slots=True)
class RenderedText:
    """The text, and for each of its offsets the template's line that it came from."""

    text: str
    offsets: tuple[int, ...]
    lines: tuple[int, ...]

    def line_at(self, offset: int) -> int:
        index = bisect_right(self.offsets, offset) - 1
        return self.lines[index] + self.text.count("\n", self.offsets[index], offset) if index >= 0 else 1


def render_text(file: TextFile, bindings: Bindings, values: Values) -> RenderedText:
    """Raises Refused at the template's place that went wrong."""
    if "{" not in file.text:
        return RenderedText(file.text, (0,), (1,))
    known = _functions(bindings, values)
    try:
        known |= macros_of(values.macros, known)
        marked = _sandbox().from_string(file.text).render(known)
    except Refused:
        raise
    except TemplateSyntaxError as error:
        message = f"this template cannot be read: {(error.message or '').rstrip('.').lower()}"
        raise Refused(_line(file, error.lineno).problem(message)) from None
    except _Wrong as error:
        place = _place(file, error.__traceback__, error.span)
        raise Refused(place.problem(str(error), hint=error.hint)) from None
    except UndefinedError as error:
        name = re.search(r"'(\w+)' is undefined", str(error))
        word = name.group(1) if name else ""
        hint = near_miss(word, [*FUNCTIONS, *known]).strip() or f"a template knows {', '.join(FUNCTIONS)}"
        problem = _place(file, error.__traceback__, word).problem(f"the template: {error}", hint=hint)
        raise Refused(problem) from None
    except Exception as error:  # the template's own code may fail in any way
        message = f"the template: {error}" if isinstance(error, TemplateError) else f"the template fails: {error}"
        if "no loader" in str(error):
            message = "include, import and extends are not available in an asset's file"
        raise Refused(_place(file, error.__traceback__, "").problem(message)) from None
    return _without_marks(marked)


def macros_of(files: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
    """The macros of these files by name; they may use `known` functions. Raises Refused at what is wrong in a file."""
    found: dict[str, Any] = {}
    for path, text in files.items():
        file = TextFile(path, text)
        try:
            module = _macro_template(path, text).make_module(dict(known))
        except TemplateSyntaxError as error:
            message = f"this macro cannot be read: {(error.message or '').rstrip('.').lower()}"
            raise Refused(_line(file, error.lineno).problem(message)) from None
        except Exception as error:
            raise Refused(Place(path).problem(f"these macros cannot be loaded: {error}")) from None
        for name in [name for name in vars(module) if not name.startswith("_")]:
            if name in FUNCTIONS or name in found:
                place = file.find(re.compile(rf"macro\s+(?P<name>{re.escape(name)})\b"))
                again = "a template knows that already" if name in FUNCTIONS else "there are two macros of that name"
                raise Refused(place.problem(f"'{name}': {again}", hint="rename the macro"))
            found[name] = getattr(module, name)
    return found


def _without_marks(marked: str) -> RenderedText:
    pieces: list[str] = []
    offsets, lines, length, end = [0], [1], 0, 0
    for mark in _MARK.finditer(marked):
        pieces.append(marked[end : mark.start()])
        length += len(pieces[-1])
        offsets.append(length)
        lines.append(int(mark.group(1)))
        end = mark.end()
    pieces.append(marked[end:])
    return RenderedText("".join(pieces), tuple(offsets), tuple(lines))


class _LineMarks(Extension):
    """Puts the template's line number before every piece of plain text, so that errors find their way back."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for token in stream:
            if token.type == "data":
                yield Token(token.lineno, "data", f"\x01{token.lineno}\x01{token.value}")
            else:
                yield token


@lru_cache(maxsize=64)
def _macro_template(path: str, text: str) -> Template:
    sandbox = _macro_sandbox()
    return sandbox.template_class.from_code(sandbox, sandbox.compile(text, path, path), {})


@lru_cache(maxsize=1)
def _macro_sandbox() -> ImmutableSandboxedEnvironment:
    """Without line marks: what a macro gives belongs to the line that calls it."""
    return _made([])


@lru_cache(maxsize=1)
def _sandbox() -> ImmutableSandboxedEnvironment:
    return _made([_LineMarks])


def _made(extensions: list[type[Extension]]) -> ImmutableSandboxedEnvironment:
    sandbox = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, extensions=extensions, keep_trailing_newline=True, finalize=_as_sql
    )
    # What is random would make every run of the same files different.
    del sandbox.globals["lipsum"]
    del sandbox.filters["random"]
    sandbox.filters["literal"] = literal
    return sandbox


class Value(str):
    """A text from `var` or `env`. It renders only when it cannot change the query around it."""

    label = ""

    def __str__(self) -> str:
        if _UNSAFE.search(self):
            hint = f"write {{{{ {self.label} | literal }}}}, without quotes around it"
            raise _Wrong(f"the value of {self.label} could end a text or start a comment", self.label, hint)
        return str.__str__(self)


def literal(value: Any) -> str:
    """A value as SQL: 'O''Brien', 12, true, null; a list as its values with commas."""
    if isinstance(value, str):
        return "'" + str.replace(value, "'", "''").replace("\x00", "") + "'"
    if isinstance(value, (list, tuple)):
        return ", ".join(literal(item) for item in value)
    return str(_as_sql(value))


def _as_sql(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return value


def _labelled(value: Any, label: str) -> Any:
    if isinstance(value, str):
        labelled = Value(value)
        labelled.label = label
        return labelled
    if isinstance(value, list):
        return [_labelled(item, label) for item in value]
    if isinstance(value, Mapping):
        return {key: _labelled(item, label) for key, item in value.items()}
    return value


class _This:
    def __init__(self, bindings: Bindings) -> None:
        self._bindings = bindings

    def __str__(self) -> str:
        return self._bindings.this()


def _functions(bindings: Bindings, values: Values) -> dict[str, Any]:
    def ref(name: Any = "") -> str:
        return bindings.ref(_text("ref", name, "silver.sales"))

    def source(name: Any = "") -> str:
        text = _text("source", name, "landing/sales/*.csv")
        try:
            return bindings.source(find_source(text, values.sources, values.databases))
        except ValueError as error:
            raise _Wrong(str(error), text) from None

    def watermark(column: Any = "") -> str:
        return bindings.watermark(_text("watermark", column, "sold_at"))

    def changes(name: Any = "") -> str:
        return bindings.changes(_text("changes", name, "silver.sales"))

    def var(name: Any = "", default: Any = _MISSING) -> Any:
        name = _text("var", name, "country")
        return _labelled(value_of_var(name, default, values), f"var('{name}')")

    def env(name: Any = "", default: Any = _MISSING) -> Any:
        name = _text("env", name, "COUNTRY")
        return _labelled(value_of_env(name, default, values), f"env('{name}')")

    def is_incremental() -> bool:
        return bindings.is_incremental()

    named = {"ref": ref, "source": source, "watermark": watermark, "changes": changes, "var": var, "env": env}
    return {**named, "is_incremental": is_incremental, "this": _This(bindings)}


def _text(function: str, value: Any, example: str) -> str:
    if not isinstance(value, str) or not value:
        raise _Wrong(f"{function} needs a name: {function}('{example}')", function)
    return str.__str__(value)


def value_of_var(name: str, default: Any, values: Values) -> Any:
    try:
        return thresholds.value_of(name, values.variables)
    except ValueError as error:
        if default is not _MISSING:
            return default
        hint = near_miss(name, values.variables).strip() or "add it to `vars:` in workspace.yaml, or give a default"
        raise _Wrong(str(error), name, hint) from None


def value_of_env(name: str, default: Any, values: Values) -> Any:
    if name not in values.allowed:
        hint = near_miss(name, values.allowed).strip() or f"add {name} to `env:` in workspace.yaml"
        raise _Wrong(f"templates may not read the environment variable {name}", name, hint)
    if name in values.environment:
        return values.environment[name]
    if default is not _MISSING:
        return default
    raise _Wrong(f"the environment variable {name} is not set", name, "set it, or give a default: env(name, default)")


def _place(file: TextFile, trace: TracebackType | None, span: str) -> Place:
    """Jinja rewrites tracebacks: the last frame called <template> carries the template's line."""
    line = 0
    while trace:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return _line(file, line, span)


def _line(file: TextFile, line: int, span: str = "") -> Place:
    if not 0 < line <= len(file.lines):
        return Place(file.path)
    text = file.lines[line - 1]
    start = text.find(span) if span else -1
    if start >= 0:
        return file.at(line, start + 1, len(span))
    bare = text.strip()
    return file.at(line, text.find(bare) + 1, max(1, len(bare)))
