"""dbt projects below `pipelines/`: what of them cannot be guarded, found in their files alone.

A dbt project is a folder with `dbt_project.yml`. Its models are built as candidates, tested, and published together;
that only holds for what leaves nothing behind when it is thrown away. So hooks, Python models, snapshots, second
databases and statements that write are errors that name the construct. What a template makes up is left to the run,
which looks at dbt's own manifest once more. This imports no dbt and opens no database.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ratatouille.project.find import DBT_PROJECT
from ratatouille.project.records import Problem
from ratatouille.project.text_file import Place, TextFile, decode

_SKIPPED = {"dbt_packages", "dbt_modules", "target", "logs", "node_modules", "__pycache__", "venv"}
_READ = (".sql", ".yml", ".yaml", ".py")
_MATERIALIZATIONS = ("table", "incremental", "view", "ephemeral", "seed")
_STRATEGIES = ("append", "delete+insert", "merge", "default")
_PARTIAL = ("merge_update_columns", "merge_exclude_columns", "merge_clauses", "incremental_predicates", "predicates")
_CURES = {
    "hook": "put it into the model, or into an asset of its own",
    "python": "write it as SQL, or as a file asset with a `build`",
    "database": "leave it out: everything is in the lake",
    "snapshot": "keep history with a file asset that merges",
    "write": "a model is a query; what writes belongs into an asset of its own",
    "partial": "leave it out: whole rows are replaced by their unique_key",
    "external": "read the files with an asset of its own, and name its table as the source",
    "materialization": "use the one that dbt has",
}
_EXTERNAL = ("external_location", "plugin")
_LISTS = ("models", "tables", "columns", "tests", "data_tests")
# Keys of these are names of something else: columns, parts of a name, words of a person.
_NO_OPTIONS = {"columns", "tests", "data_tests", "docs", "quoting", "column_types", "grants", "vars", "persist_docs"}
# For each option that may not be set, what to do about it.
_OPTIONS = {
    **dict.fromkeys(("pre_hook", "post_hook", "sql_header", "on_run_start", "on_run_end"), "hook"),
    **dict.fromkeys(_PARTIAL, "partial"),
    **dict.fromkeys(_EXTERNAL, "external"),
    "database": "database",
}
_VALUES = {"materialized": _MATERIALIZATIONS, "incremental_strategy": _STRATEGIES}
_COMMENTS = re.compile(r"\{#.*?#\}|--[^\n]*|/\*.*?\*/", re.DOTALL)
_CONFIG = re.compile(r"\bconfig\s*\(")
_OPTION = re.compile(r"\b(?P<name>\w+)\s*=\s*(?P<value>'[^']*'|\"[^\"]*\"|none\b|None\b|\[\s*\]|[^\s,)])", re.DOTALL)
_BLOCK = re.compile(r"\{%-?\s*(?P<name>snapshot|materialization)\b")
_RUN_QUERY = re.compile(r"\brun_query\s*\(")
_STATEMENT = re.compile(r"\{%-?\s*call\s+statement\b[^%]*%\}(?P<sql>.*?)\{%-?\s*endcall", re.DOTALL)
_SET_BLOCK = r"\{{%-?\s*set\s+{name}\s*-?%\}}(?P<sql>.*?)\{{%-?\s*endset"
_SET_VALUE = r"\{{%-?\s*set\s+{name}\s*=\s*(?P<quote>['\"])(?P<sql>.*?)(?P=quote)"
_WRITES = re.compile(
    r"(?:\A|;)\s*(?:\{[%{].*?[%}]\}\s*)*(?P<name>insert|update|delete|create|drop|copy|attach|alter|truncate|merge|install|load)\b",
    re.IGNORECASE | re.DOTALL,
)


def project_files(root: Path, folders: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The files of the dbt projects in `folders` that are looked at: (path from the root, bytes)."""
    for folder in folders:
        for path in sorted(_walk(root, folder)):
            try:
                yield path, (root / path).read_bytes()
            except OSError:
                continue  # dbt says so itself


def _walk(root: Path, folder: str) -> Iterator[str]:
    try:
        with os.scandir(root / folder) as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries:
        path = f"{folder}/{entry.name}"
        if entry.name in _SKIPPED or entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path)
        elif entry.name.endswith(_READ) and entry.name != "profiles.yml":
            yield path


def refused(contents: Mapping[str, bytes]) -> list[Problem]:
    """Every construct in these files that cannot be guarded, with its place."""
    found: list[Problem] = []
    for path, raw in contents.items():
        file = decode(path, raw)
        if isinstance(file, Problem):
            found.append(replace(file, severity="warn"))
        elif path.endswith(".sql"):
            found += _in_sql(file)
        elif path.endswith(".py"):
            found += _in_python(file)
        else:
            found += _in_yaml(file)
    return found


def _problem(place: Place, construct: str, cure: str) -> Problem:
    return place.problem(f"{construct} cannot be guarded in a dbt project", hint=_CURES[cure])


def _in_python(file: TextFile) -> Iterator[Problem]:
    model = re.compile(r"^def\s+(?P<name>model)\s*\(\s*dbt\b", re.MULTILINE)
    if model.search(file.text):
        yield _problem(file.find(model), "a Python model", "python")


# YAML


def _in_yaml(file: TextFile) -> Iterator[Problem]:
    from ratatouille.project.yaml_text import Document, read_yaml

    document = read_yaml(file)
    if isinstance(document, Problem):
        yield replace(document, severity="warn")
        return
    assert isinstance(document, Document)  # noqa: S101  for the type checker
    said = document.data if isinstance(document.data, dict) else {}
    for key in ("on-run-start", "on-run-end"):
        if said.get(key):
            yield _problem(document.place((key,), key=True), key, "hook")
    top = file.path.endswith(f"/{DBT_PROJECT}")
    if said.get("snapshots") and not top:
        yield _problem(document.place(("snapshots",), key=True), "a snapshot", "snapshot")
    for section in ("models", "seeds", "sources"):
        for path, name, value in _options(said.get(section), (section,)):
            construct = _refusal(name, value)
            if construct is not None:
                yield _problem(document.place(path, key=True), *construct)


def _options(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str, Any]]:
    """Every key below a section of a YAML file with a plain value, as an option."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            if isinstance(one, dict):
                yield from _options(one, (*path, number))
    if not isinstance(value, dict):
        return
    for key, one in value.items():
        name = str(key).removeprefix("+").replace("-", "_")
        if path[-1] == "meta" and name not in _EXTERNAL:
            continue
        if isinstance(one, dict) or name in _LISTS:
            if name not in _NO_OPTIONS:
                yield from _options(one, (*path, "meta" if name == "meta" else key))
        else:
            yield (*path, key), name, one


def _refusal(name: str, value: Any) -> tuple[str, str] | None:
    """(construct, cure) for an option that may not have this value."""
    if value is None or value in ("", [], "none", "None") or (isinstance(value, str) and "{{" in value):
        return None  # a template: the run looks at what it gives
    shown = f"{name}: {value}" if isinstance(value, str) else name
    if name in _OPTIONS:
        hook = _OPTIONS[name] == "hook"
        return (name if name == "sql_header" else name.replace("_", "-") if hook else shown), _OPTIONS[name]
    if name in _VALUES and isinstance(value, str) and value not in _VALUES[name]:
        return shown, "materialization"
    return None


# SQL and Jinja


def _in_sql(file: TextFile) -> Iterator[Problem]:
    # Comments become blanks, so that every place stays where it is.
    text = _COMMENTS.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), file.text)
    for block in _BLOCK.finditer(text):
        name, place = block.group("name"), _place(file, block.start("name"), len(block.group("name")))
        if name == "snapshot":
            yield _problem(place, "a snapshot", "snapshot")
        else:
            yield _problem(place, "a materialization of your own", "materialization")
    for config in _CONFIG.finditer(text):
        start, end = config.end(), _closing(text, config.end())
        for option in _OPTION.finditer(text, start, end):
            if _depth(text, start, option.start()):
                continue
            if option.group("name") in _VALUES and option.group("value")[0] not in "'\"[nN":
                continue  # a call: the run looks at what it gives
            value = option.group("value").strip("'\"") if option.group("value") != "[" else ["..."]
            value = (
                None if value in ("none", "None") else [] if option.group("value").replace(" ", "") == "[]" else value
            )
            construct = _refusal(option.group("name"), value)
            if construct is not None:
                place = _place(file, option.start("name"), len(option.group("name")))
                yield _problem(place, *construct)
    yield from _written(file, text)


def _written(file: TextFile, text: str) -> Iterator[Problem]:
    for call in _RUN_QUERY.finditer(text):
        said = text[call.end() : _closing(text, call.end())].strip()
        start = call.end() + text[call.end() :].index(said) if said else call.end()
        if re.fullmatch(r"\w+", said):
            for shape in (_SET_BLOCK, _SET_VALUE):
                for block in re.finditer(shape.format(name=said), text, re.DOTALL):
                    yield from _write(file, block.group("sql"), block.start("sql"), "run_query")
        elif said[:1] in ("'", '"'):
            yield from _write(file, said[1:], start + 1, "run_query")
    for block in _STATEMENT.finditer(text):
        yield from _write(file, block.group("sql"), block.start("sql"), "call statement")


def _write(file: TextFile, sql: str, start: int, called: str) -> Iterator[Problem]:
    found = _WRITES.search(sql)
    if found is not None:
        word = found.group("name")
        place = _place(file, start + found.start("name"), len(word))
        yield _problem(place, f"{called} with {word.upper()}", "write")


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that was opened before `start` closes; quotes hide parentheses."""
    depth, quote = 1, ""
    for place in range(start, len(text)):
        char = text[place]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if not depth:
                return place
    return len(text)


def _depth(text: str, start: int, end: int) -> int:
    """How many brackets or quotes are open between `start` and `end`."""
    depth, quote = 0, ""
    for char in text[start:end]:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            depth += (char in "([{") - (char in ")]}")
    return depth + bool(quote)


def _place(file: TextFile, offset: int, length: int) -> Place:
    line = file.text.count("\n", 0, offset) + 1
    return file.at(line, offset - file.text.rfind("\n", 0, offset), length)
