"""Tests that people write for their assets: YAML files in a `tests/` folder below `pipelines/`, as frozen records.

case       one test of one asset: what it is given, and what must come of it
given      rows that stand where a table or landing files would
published  the rows of the asset's current version: with them the case is an incremental run

A `tests/` folder, because discovery never looks into one: no mock file there can become a seed, and no test an asset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ratatouille.errors import RequestError, near_miss
from ratatouille.project.find import DBT_PROJECT, PIPELINES
from ratatouille.project.problems import as_error
from ratatouille.project.records import CHANGE, ORIGIN_COLUMNS, Asset, Problem, Project
from ratatouille.project.text_file import decode

FOLDER = "tests"
_FORMATS = (".csv", ".json", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as somebody wrote them: a list, the text of a CSV, or a file (absolute). `columns` are types by name."""

    rows: tuple[Mapping[str, Any], ...] | None = None
    csv: str = ""
    file: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expect:
    """What must come of a case; only what is said is looked at."""

    rows: Rows | None = None  # of the table as readers would see it
    count: int | None = None
    new_rows: Rows | None = None  # of what this run adds
    new_count: int | None = None
    columns: tuple[str, ...] = ()  # those that are compared; those of the expected rows, if none are named
    ordered: bool = False
    gates: str | Mapping[str, Any] = field(default_factory=dict)  # pass, or name -> pass | fail | number of bad rows
    quarantined: int | None = None
    error: str = ""  # a part of the message


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    asset: str
    path: str  # of the file, relative to the workspace
    line: int
    expect: Expect
    given: Mapping[str, Rows] = field(default_factory=dict)
    published: Rows | None = None
    watermark: Mapping[str, Any] = field(default_factory=dict)
    data: str = "given"  # given | published: the rows that are published now
    vars: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def find_cases(project: Project) -> list[Case]:
    """Every case of the workspace, by file and as written. RequestError for the first mistake in a test file."""
    root = Path(project.workspace.root)
    found: list[Case] = []
    problems: list[Problem] = []
    for path in sorted(_test_files(root / PIPELINES)):
        for one in _read(project, root, path):
            (found if isinstance(one, Case) else problems).append(one)  # type: ignore[arg-type]
    if problems:
        error = as_error(problems[0])
        more = f"{len(problems) - 1} more mistakes in test files" if len(problems) > 1 else ""
        raise RequestError(
            error.what, where=error.where, next="\n".join(s for s in (error.next, more) if s) or "rat test"
        )
    return found


def _test_files(folder: Path, inside: bool = False) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    if any(entry.name == DBT_PROJECT for entry in entries):
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _test_files(entry, inside or entry.name == FOLDER)
        elif inside and entry.suffix in (".yaml", ".yml"):
            yield entry


def _read(project: Project, root: Path, path: Path) -> Iterator[Case | Problem]:
    from ratatouille.project.case_models import CasesModel
    from ratatouille.project.yaml_models import validated
    from ratatouille.project.yaml_text import read_yaml

    shown = path.relative_to(root).as_posix()
    file = decode(shown, path.read_bytes())
    document = file if isinstance(file, Problem) else read_yaml(file)
    if isinstance(document, Problem):
        yield document
        return
    if not isinstance(document.data, dict) or "tests" not in document.data:
        # YAML of something else: mock data, say. But not where it looks like tests.
        keys = [str(key) for key in document.data] if isinstance(document.data, dict) else []
        if document.data is not None and (_named_like(project, path) or {"given", "expect"} & set(keys)):
            hint = near_miss("tests", keys).strip() or "write tests: and, below it, a name for each test"
            yield document.place(()).problem(f"{shown} has no tests: in it", hint=hint)
        return
    model = validated(CasesModel, document)
    if isinstance(model, list):
        yield from model
        return
    for name, written in model.tests.items():
        place = document.place(("tests", name), key=True)
        asset = (written.asset or model.asset or _named_like(project, path)).strip().replace("/", ".")
        if asset not in project.assets:
            what = f"'{asset}' is not an asset" if asset else "this does not say which asset it tests"
            at = document.place(
                ("tests", name, "asset") if written.asset else ("asset",) if model.asset else ("tests", name),
                key=not asset,
            )
            hint = near_miss(asset, project.assets).strip() or "write asset: silver.sales at the top of the file"
            yield at.problem(what, hint=hint)
            continue
        try:
            known = {*project.assets, *project.natives, *(s.name for s in project.assets[asset].sources)}
            at_of = partial(_place_given, document, name)
            known |= {source.glob for source in project.assets[asset].sources} | set(project.assets[asset].tables)
            for table in written.given:
                if table not in known:
                    at = document.place(("tests", name, "given", table), key=True)
                    yield at.problem(f"'{table}' is no table or source", hint=near_miss(table, known).strip())
                elif table in project.assets:
                    yield from _unknown_columns(project.assets[table], written.given[table], at_of(table))
            yield Case(
                name, asset, shown, place.line,
                expect=_expect(written.expect, path),
                given={table: _rows(rows, path) for table, rows in written.given.items()},
                published=None if written.published is None else _rows(written.published, path),
                watermark=written.watermark, data=written.data, vars=written.vars,
                env={key: str(value) for key, value in written.env.items()},
            )  # fmt: skip
        except ValueError as error:
            yield place.problem(f"{name}: {error}")


def _place_given(document: Any, name: str, table: str) -> Any:
    return document.place(("tests", name, "given", table), key=True)


def _unknown_columns(asset: Asset, written: Any, place: Any) -> Iterator[Problem]:
    """Columns that rows are given for and that the table has not, where all of its columns are known."""
    rows = written if isinstance(written, list) else getattr(written, "rows", None) or []
    names = dict.fromkeys(str(name) for row in rows if isinstance(row, dict) for name in row)
    have = {name.lower() for name in (*asset.outputs, *ORIGIN_COLUMNS, CHANGE)}
    for name in names:
        if asset.outputs and name.lower() not in have:
            hint = near_miss(name, asset.outputs).strip() or f"its columns are {', '.join(asset.outputs)}"
            yield place.problem(f"{asset.name} has no column '{name}'", hint=hint)


def _named_like(project: Project, path: Path) -> str:
    """`tests/silver.sales.yaml` is about silver.sales."""
    return path.stem if path.stem in project.assets else ""


def _expect(model: Any, path: Path) -> Expect:
    said = model.model_dump(exclude_none=True)
    plain = {
        name: said[name] for name in ("count", "new_count", "ordered", "gates", "quarantined", "error") if name in said
    }
    rows = None if model.rows is None else _rows(model.rows, path)
    new_rows = None if model.new_rows is None else _rows(model.new_rows, path)
    return Expect(rows=rows, new_rows=new_rows, columns=tuple(model.columns), **plain)


def _rows(written: Any, path: Path) -> Rows:
    if isinstance(written, list):
        return Rows(rows=tuple(_checked(written)))
    said = [name for name in ("rows", "csv", "file") if getattr(written, name) is not None]
    if len(said) != 1:
        raise ValueError(f"rows are a list, or one of rows, csv, file; this has {', '.join(said) or 'none'}")
    file = ""
    if written.file is not None:
        target = (path.parent / written.file).resolve()
        if target.suffix not in _FORMATS:
            raise ValueError(f"'{written.file}' is none of {', '.join(_FORMATS)}")
        if not target.is_file():
            raise ValueError(f"there is no file {written.file} beside {path.name}")
        file = str(target)
    rows = None if written.rows is None else tuple(_checked(written.rows))
    return Rows(rows, written.csv or "", file, dict(written.columns))


def _checked(rows: Any) -> list[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} must be columns and values, like {{id: 1, city: Rome}}")
    return list(rows)
