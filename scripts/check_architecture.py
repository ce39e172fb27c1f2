"""The architecture, as a script: who may import whom, who may print, what a file may be called and how long it is.
No two modules import each other.

errors <- {project, lake} <- engine <- {upkeep, testing, dbt_project, observe} <- {dagster, pages <- cli, the Python face}

Run it from anywhere: `python scripts/check_architecture.py`. It prints each violation and exits 1 if there is one.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

FACE = "face"  # every module that lies beside errors.py: `__init__`, `run`, `tools`, ...
ENGINE_AND_BELOW = {"errors", "project", "lake", "engine"}
BESIDE = {"upkeep", "testing", "dbt_project"}
MAY_IMPORT = {
    "errors": set[str](),
    "project": {"errors"},
    "lake": {"errors"},
    "engine": {"errors", "project", "lake"},
    # What uses the engine and is used by nobody in it.
    "upkeep": ENGINE_AND_BELOW,
    "testing": ENGINE_AND_BELOW,
    "dbt_project": ENGINE_AND_BELOW,
    "observe": ENGINE_AND_BELOW,
    "dagster": ENGINE_AND_BELOW | BESIDE | {"observe", FACE},
    "pages": ENGINE_AND_BELOW | BESIDE | {"observe", FACE},
    "cli": ENGINE_AND_BELOW | BESIDE | {"observe", "dagster", "pages", FACE},
    "definitions": {"dagster"},
    FACE: ENGINE_AND_BELOW | BESIDE | {"observe", FACE},
}
ONLY_IN = {"duckdb": "lake", "dagster": "dagster"}  # package -> the one part that may import it
FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "core", "common", "manager", "managers", "misc"}
LONGEST_FILE = 500
GENERATED = "# generated"  # the first line of a file that no person reads top to bottom
# Rules of safety. A hole is where an f-string puts a value; a constant (a name in capitals) is none of a person's.
HOLE = "\0"
QUOTED_HOLE = re.compile(f"'[^' {HOLE}]*{HOLE}[^' {HOLE}]*'|\"{HOLE}\"")
SQL_WORDS = re.compile(
    r"\b(select .*from|select '|insert into|delete from|update \S+ set|create (or replace )?(temp )?(table|view|schema)"
    r"|drop (table|view|schema)|alter table|attach|copy \(|^ ?(from|where|and|or|call|set) )",
    re.IGNORECASE | re.DOTALL,
)
RUNS_WHAT_IT_IS_GIVEN = {
    *(
        "eval",
        "exec",
        "os.system",
        "os.popen",
        "marshal.loads",
        "pickle.load",
        "pickle.loads",
        "shelve.open",
        "dill.load",
    ),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "joblib.load", "cloudpickle.loads", "jinja2.Environment"),
}
LATE = ("dagster", "pandas", "torch", "polars", "sqlglot")  # `import ratatouille` loads none of them


def violations(root: Path) -> list[str]:
    """Everything in the repository at `root` that breaks a rule, as `path:line: what` sentences."""
    source = root / "src" / "ratatouille"
    found = [line for path in sorted(source.rglob("*.py")) for line in in_file(path, source)]
    found += [line for path in sorted(root.glob("pipelines/**/*.py")) for line in in_pipeline(path, root)]
    found += [f"{p.relative_to(root)}:1: no __init__.py below tests" for p in sorted(root.glob("tests/**/__init__.py"))]
    found += [f"src/ratatouille:1: modules import each other: {one}" for one in circles(modules_below(source))]
    return found + loaded_early(root)


def in_file(path: Path, source: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    shown = path.relative_to(source.parent.parent)
    inside = path.relative_to(source)
    if inside.parts[:2] == ("cli", "template"):
        return  # what `rat init` copies is not our code
    for name in {part.removesuffix(".py") for part in inside.parts} & FORBIDDEN_NAMES:
        yield f"{shown}:1: '{name}' says nothing about what is inside"
    if (lines := text.count("\n")) > LONGEST_FILE and not text.startswith(GENERATED):
        yield f"{shown}:1: {lines} lines, {LONGEST_FILE} at most"
    part = part_of(inside)
    for node in ast.walk(ast.parse(text, str(path))):
        line = getattr(node, "lineno", 0)
        for module in imported(node, inside):
            top, *rest = module.split(".")
            target = part_named(rest[0], source) if top == "ratatouille" and rest else FACE
            if top in ONLY_IN and part != ONLY_IN[top]:
                yield f"{shown}:{line}: only {ONLY_IN[top]} imports {top}"
            if top == "pipelines":
                yield f"{shown}:{line}: src never imports pipelines"
            if top == "ratatouille" and target != part and target not in MAY_IMPORT[part]:
                yield f"{shown}:{line}: {part} may not import {target}"
        yield from (f"{shown}:{line}: {what}" for what in unsafe(node))
        if part != "cli" and isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.stdout.write"}:
            yield f"{shown}:{line}: only cli prints"


def unsafe(node: ast.AST) -> Iterator[str]:
    """What lets a value become code: SQL with holes between quotes, and calls that run or unpickle what they are given."""
    if isinstance(node, ast.JoinedStr):
        shape = "".join(
            v.value if isinstance(v, ast.Constant) and isinstance(v.value, str) else HOLE for v in node.values
        )
        holes = [v for v in node.values if isinstance(v, ast.FormattedValue)]
        constant = [ast.unparse(hole.value).rpartition(".")[2].strip("_").isupper() for hole in holes]
        for found in QUOTED_HOLE.finditer(shape) if SQL_WORDS.search(shape) else ():
            if not constant[shape[: found.end()].count(HOLE) - 1]:
                yield "a value between quotes in SQL: text() or ident() of lake/quoting.py writes them"
    yield from runs_anything(node)


def runs_anything(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name in RUNS_WHAT_IT_IS_GIVEN or any(
            k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords
        ):
            yield f"{name}(...) runs what it is given"


def in_pipeline(path: Path, root: Path) -> Iterator[str]:
    shown = path.relative_to(root)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        yield from (f"{shown}:{getattr(node, 'lineno', 0)}: {what}" for what in runs_anything(node))
        for module in imported(node, Path()) if not getattr(node, "level", 0) else []:
            top, *rest = module.split(".")
            if top == "pipelines" and shown.parts[1] != "tests" and rest[:1] != [shown.parts[1]]:
                yield f"{shown}:{node.lineno}: pipelines never import each other"  # type: ignore[attr-defined]
            if top == "ratatouille" and rest and part_named(rest[0], root / "src/ratatouille") not in {FACE, "dagster"}:
                yield f"{shown}:{node.lineno}: a pipeline uses the public names of ratatouille"  # type: ignore[attr-defined]


def part_of(inside: Path) -> str:
    first = inside.parts[0].removesuffix(".py")
    return first if first in MAY_IMPORT else FACE


def part_named(name: str, source: Path) -> str:
    """The part that `ratatouille.<name>` belongs to; a plain attribute, as in `from ratatouille import run`, is the face."""
    return name if name in MAY_IMPORT and any(source.glob(f"{name}*")) else FACE


def imported(node: ast.AST, inside: Path) -> list[str]:
    """Absolute dotted names that an import statement names, relative ones resolved."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = ["ratatouille", *inside.parent.parts]
    base = package[: len(package) - node.level + 1] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    return [f"{module}.{alias.name}" for alias in node.names] if module == "ratatouille" else [module]


def modules_below(source: Path) -> dict[str, set[str]]:
    """Each module of the package and the names that it imports, also those of functions and of type checking.

    A package's own file only hands names on, so what it imports is left out.
    """
    found: dict[str, set[str]] = {}
    for path in sorted(source.rglob("*.py")):
        inside = path.relative_to(source)
        name = ".".join(["ratatouille", *inside.with_suffix("").parts]).removesuffix(".__init__")
        found[name] = set()
        if path.name == "__init__.py" or inside.parts[:2] == ("cli", "template"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            for target in imported(node, inside):
                # `from ratatouille.lake import ledger` names a module, or something in lake/__init__.py.
                names = [f"{target}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
                found[name].update([target, *names])
    return found


def circles(modules: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, also by way of others."""
    graph = {module: targets & set(modules) - {module} for module, targets in modules.items()}
    found = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = error.args[1]
            found.append(" -> ".join(name.removeprefix("ratatouille.") for name in circle))
            graph[circle[1]].discard(circle[0])
        else:
            return found


def loaded_early(root: Path) -> list[str]:
    """Heavy packages that a bare `import ratatouille` loads."""
    code = f"import sys, ratatouille; print(*sorted(set({LATE!r}) & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=root / "src", capture_output=True, text=True, check=False)
    if ran.returncode:
        return [f"src/ratatouille/__init__.py:1: cannot be imported: {ran.stderr.strip().splitlines()[-1]}"]
    return [f"src/ratatouille/__init__.py:1: `import ratatouille` loads {name}" for name in ran.stdout.split()]


if __name__ == "__main__":
    broken = violations(Path(__file__).resolve().parent.parent)
    print("\n".join(broken) or "Architecture: every rule holds.")
    sys.exit(1 if broken else 0)
