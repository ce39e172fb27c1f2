"""Python assets, read without running them: `build(context)`, what it asks for, and what it imports."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ratatouille.errors import near_miss
from ratatouille.project.records import Problem
from ratatouille.project.text_file import Mention, Place, TextFile, decode

_HAS_BUILD = re.compile(rb"^(async\s+)?def\s+build\b", re.MULTILINE)
_NETWORK = ("httpx", "requests", "urllib", "urllib3", "aiohttp", "socket", "ftplib", "boto3")
_CLOCK = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.time_ns"}
_RANDOM = ("random", "secrets", "uuid.uuid1", "uuid.uuid4", "np.random", "numpy.random", "os.urandom")


@dataclass(slots=True)
class PythonCode:
    """What the code of one Python asset says."""

    canonical: str = ""
    mentions: list[Mention] = field(default_factory=list)
    sources: list[tuple[str, Place]] = field(default_factory=list)
    values: list[tuple[str, str]] = field(default_factory=list)  # (var or env, name)
    hidden: list[Place] = field(default_factory=list)  # names that are not plain text
    volatile: tuple[str, ...] = ()
    incremental: bool = False


def has_build(raw: bytes) -> bool:
    """Whether the module defines `build` at its top level. A file that cannot be parsed counts by its looks."""
    if not _HAS_BUILD.search(raw):
        return False
    try:
        body = ast.parse(raw).body
    except (SyntaxError, ValueError, RecursionError):
        return True
    return any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == "build" for node in body)


def odd_modules(modules: Mapping[str, bytes], layers: Collection[str], assets: Collection[str]) -> Iterator[Problem]:
    """Python files that are no assets though somebody may think so: unreadable ones, and a `build` that is misspelt.

    `assets` are the paths of those that are: they speak for themselves.
    """
    for path, raw in modules.items():
        if path in assets:
            continue
        file = decode(path, raw)
        if isinstance(file, Problem):
            yield file
            continue
        try:
            body = ast.parse(file.text).body
        except SyntaxError as error:
            yield file.at(error.lineno or 0, error.offset or 1).problem(f"Python syntax: {error.msg}")
            continue
        except (ValueError, RecursionError) as error:
            yield Problem(f"{path} cannot be read as Python: {error}", path)
            continue
        if PurePosixPath(path).parent.name in layers:
            functions = [node for node in body if isinstance(node, ast.FunctionDef)]
            for node in functions:
                if near_miss(node.name, ["build"]) and [a.arg for a in node.args.args] == ["context"]:
                    message = f"{path} has no build(context), so it builds nothing"
                    yield _place(file, node).problem(message, hint=f"'{node.name}' looks like build", severity="warn")


def read_python(file: TextFile) -> PythonCode | Problem:
    """What the file asks for, or why it cannot be read."""
    try:
        tree = ast.parse(file.text)
    except SyntaxError as error:
        place = file.at(error.lineno or 0, error.offset or 1)
        return place.problem(f"Python syntax: {error.msg}")
    except (ValueError, RecursionError) as error:
        return Problem(f"{file.path} cannot be read as Python: {error}", file.path)
    code = PythonCode()
    build = next(node for node in tree.body if getattr(node, "name", "") == "build")
    if isinstance(build, ast.AsyncFunctionDef):
        return _place(file, build).problem("build must be a plain function, not async")
    if not isinstance(build, ast.FunctionDef) or len(build.args.args) + len(build.args.posonlyargs) != 1:
        return _place(file, build).problem("build takes one argument: def build(context)")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "is_incremental":
            code.incremental = True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            _read_call(file, node, node.func.attr, code)
    code.volatile = tuple(sorted(_volatile(tree)))
    code.canonical = canonical(tree)
    return code


def _read_call(file: TextFile, node: ast.Call, name: str, code: PythonCode) -> None:
    code.incremental |= name in ("watermark", "changes")
    receiver = isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
    if name not in ("ref", "changes", "source", "var", "env") or not receiver or not node.args:
        return
    argument = node.args[0]
    if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
        if name in ("ref", "changes", "source"):
            code.hidden.append(_place(file, argument))
    elif name in ("ref", "changes"):
        code.mentions.append(Mention(name, argument.value, _place(file, argument)))
    elif name == "source":
        code.sources.append((argument.value, _place(file, argument)))
    else:
        code.values.append((name, argument.value))


def canonical(tree: ast.Module) -> str:
    """The module's code without comments, layout and docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        first = body[0] if body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def imported_hash(path: str, pipeline: str, modules: Mapping[str, bytes]) -> str:
    """One hash of every workspace module that the file imports, directly or through another.

    `modules` maps the path of each `.py` file below `pipelines/` to its bytes.
    """
    seen: dict[str, str] = {}
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        try:
            tree = ast.parse(modules[current])
        except (SyntaxError, ValueError, RecursionError):
            seen[current] = hashlib.sha256(modules[current]).hexdigest()
            continue
        waiting += _imports(tree, PurePosixPath(current), pipeline, modules)
        seen[current] = canonical(tree)
    del seen[path]
    return hashlib.sha256("\n".join(f"{k}\n{seen[k]}" for k in sorted(seen)).encode()).hexdigest() if seen else ""


def _imports(tree: ast.Module, importer: PurePosixPath, pipeline: str, modules: Mapping[str, bytes]) -> Iterator[str]:
    folders = [importer.parent, PurePosixPath("pipelines") / pipeline, PurePosixPath("pipelines"), PurePosixPath(".")]
    for node in ast.walk(tree):
        names: list[str] = []
        starts: Sequence[PurePosixPath] = folders
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = [base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)]
            starts = [importer.parents[node.level - 1]] if 0 < node.level <= len(importer.parents) else folders
        for name in filter(None, names):
            inside = name.replace(".", "/")
            for start in starts:
                paths = (str(start / f"{inside}.py"), str(start / inside / "__init__.py"))
                yield from (path for path in paths if path in modules)


def _volatile(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"network: {root}" for name in names if (root := name.split(".")[0]) in _NETWORK)
        elif isinstance(node, ast.Call):
            called = _dotted(node.func)
            if any(called == name or called.endswith(f".{name}") for name in _CLOCK):
                yield f"clock: {called}"
            elif called.startswith(tuple(f"{name}." for name in _RANDOM)) or called in _RANDOM:
                yield f"random: {called}"


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _place(file: TextFile, node: ast.AST) -> Place:
    line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
    text = file.lines[line - 1] if 0 < line <= len(file.lines) else ""
    start = len(text.encode()[:column].decode("utf-8", "ignore"))  # ast counts bytes
    same_line = getattr(node, "end_lineno", 0) == line and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    end = len(text.encode()[: getattr(node, "end_col_offset", 0)].decode("utf-8", "ignore")) if same_line else len(text)
    return file.at(line, start + 1, max(1, end - start))
