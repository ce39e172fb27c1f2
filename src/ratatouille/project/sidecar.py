"""A sidecar: the YAML file beside an asset, as the fields of its record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from ratatouille.project import checks, modes
from ratatouille.project.records import Check, Column, OrderTerm, Problem, Retries, Source
from ratatouille.project.sources import make_source
from ratatouille.project.text_file import Mention, Place, TextFile
from ratatouille.project.thresholds import with_variables
from ratatouille.project.yaml_models import AssetModel, validated
from ratatouille.project.yaml_text import Document, Path, read_yaml

_LATER = (
    "depends_on",
    "sources",
    "columns",
    "checks",
    "freshness",
    "triggers",
    "chunks",
    "retries",
    "version",
    "refresh_every",
    "retention",
)


@dataclass(slots=True)
class Sidecar:
    """`fields` are those of Asset. Mentions are names that only other files can confirm."""

    fields: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    declares_inputs: bool = False
    gate_queries: list[tuple[str, str, Place]] = field(default_factory=list)  # check name, SQL, place
    mentions: list[Mention] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    places: Mapping[str, Place] = field(default_factory=dict)  # of the top keys' values


def read_sidecar(file: TextFile, kind: str, variables: Mapping[str, Any] = MappingProxyType({})) -> Sidecar:
    """The settings of an asset of `kind`, with every mistake among `problems`. `variables` are for its checks."""
    sidecar = Sidecar()
    document = read_yaml(file)
    if isinstance(document, Problem):
        sidecar.problems.append(document)
        return sidecar
    model = validated(AssetModel, document)
    if isinstance(model, list):
        sidecar.problems += model
        return sidecar
    sidecar.places = {str(path[0]): place for path, place in document.values.items() if len(path) == 1}
    fields = {key: value for key, value in model.model_dump().items() if key not in _LATER}
    fields |= {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    fields["columns"] = tuple(_columns(model, document, sidecar))
    fields["checks"] = tuple(_checks(model, document, sidecar, variables))
    fields["retries"] = Retries(model.retries.max, model.retries.delay, model.retries.backoff)
    fields["chunk_rows"] = model.chunks.rows or 0
    fields["triggers"] = tuple(trigger.model_dump(exclude_none=True) for trigger in model.triggers)
    fields["version"] = model.version.model_dump(exclude_none=True) if model.version else {}
    fields["freshness"] = _freshness(model)
    fields["refresh_every_s"] = model.refresh_every
    fields["retention"] = model.retention.model_dump(exclude_none=True)
    sidecar.fields = fields
    _read_inputs(model, document, sidecar)
    _apply_rules(model, document, sidecar, kind)
    return sidecar


def _freshness(model: AssetModel) -> dict[str, float]:
    given = model.freshness.model_dump(exclude_none=True) if model.freshness else {}
    return {f"{key}_s": value for key, value in given.items()}


def _columns(model: AssetModel, document: Document, sidecar: Sidecar) -> list[Column]:
    columns = []
    for name, column in model.columns.items():
        if column.type and not is_type(column.type):
            path: Path = ("columns", name, "type")
            place = document.place(path if path in document.values else ("columns", name))
            sidecar.problems.append(place.problem(f"'{column.type}' is not a type that DuckDB knows"))
        columns.append(Column(name, column.type, column.description, column.sensitive))
        sidecar.mentions.append(Mention("column", name, document.place(("columns", name), key=True)))
    return columns


@lru_cache(maxsize=1024)
def is_type(text: str) -> bool:
    """Whether DuckDB would know the type, as far as the parser can tell."""
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        built = exp.DataType.build(text, dialect="duckdb")
    except (SqlglotError, ValueError, RecursionError):
        return False
    return built.this not in (exp.DataType.Type.USERDEFINED, exp.DataType.Type.UNKNOWN)


def _is_text(type: str) -> bool:
    return type.lower().partition("(")[0].strip() in ("varchar", "text", "string", "char", "bpchar")


def order_terms(order: str) -> tuple[OrderTerm, ...]:
    """`updated_at desc, abs(x)` -> the terms `updated_at` and `abs(x)`. ValueError if it is no order."""
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    try:
        window = parse_one(f"row_number() over (order by {order})", read="duckdb")
    except (SqlglotError, RecursionError) as error:
        raise ValueError(str(error).splitlines()[0]) from error
    terms = window.args["order"].expressions if isinstance(window, exp.Window) and window.args.get("order") else []
    if not all(isinstance(term, exp.Ordered) for term in terms) or not terms:
        raise ValueError(f"'{order}' cannot be sorted by")
    return tuple(
        OrderTerm(term.this.sql(dialect="duckdb"), tuple(sorted({c.name for c in term.find_all(exp.Column)})))
        for term in terms
    )


def _checks(model: AssetModel, document: Document, sidecar: Sidecar, variables: Mapping[str, Any]) -> list[Check]:
    found: dict[str, Check] = {}

    def add(check: Check, path: Path) -> None:
        if check.name in found:
            place = document.place(path, key=True)
            sidecar.problems.append(place.problem(f"the check '{check.name}' is there twice"))
        found[check.name] = check
        if check.kind == "relationships":
            target = f"{check.arguments['to']}.{check.arguments['column']}"
            sidecar.mentions.append(Mention("relationship", target, _inside(document, path, "to")))
        for said in (check.arguments.get(name) for name in checks.EXPRESSIONS):
            sidecar.mentions += [Mention("column", column, _inside(document, path, "where")) for column in _read(said)]
        if check.kind == "sql":
            sidecar.gate_queries.append((check.name, check.arguments["sql"], _inside(document, path, "sql")))

    for column, settings in model.columns.items():
        for index, written in enumerate(settings.checks):
            path: Path = ("columns", column, "checks", index)
            try:
                check = checks.column_check(column, with_variables(written, variables))
                if checks.compares_numbers(check) and _is_text(settings.type):
                    message = f"{check.kind} compares numbers, and {column} is a {settings.type}"
                    place = document.place(path, key=True)
                    sidecar.problems.append(
                        place.problem(message, hint="declare a number's type, or cast in the query")
                    )
                add(check, path)
            except checks.Mistake as mistake:
                sidecar.problems.append(_mistake(document, path, mistake))
    for name, written in model.checks.items():
        try:
            check = checks.table_check(name, with_variables(written, variables))
        except checks.Mistake as mistake:
            sidecar.problems.append(_mistake(document, ("checks", name), mistake))
            continue
        add(check, ("checks", name))
        place = _inside(document, ("checks", name), "columns")
        sidecar.mentions += [Mention("column", column, place) for column in check.columns]
    return list(found.values())


def _read(expression: Any) -> tuple[str, ...]:
    """The columns that an expression of a check reads."""
    from ratatouille.project.sql import columns_of_expression

    return columns_of_expression(expression) if isinstance(expression, str) else ()


def _inside(document: Document, path: Path, name: str) -> Place:
    """The place of the argument `name` of the check at `path`, or of the check."""
    deep = next((p for p in document.values if p[: len(path)] == path and p[-1:] == (name,)), path)
    return document.place(deep)


def _mistake(document: Document, path: Path, mistake: checks.Mistake) -> Problem:
    return document.place((*path, *mistake.path), key=True).problem(str(mistake), hint=mistake.hint)


def _read_inputs(model: AssetModel, document: Document, sidecar: Sidecar) -> None:
    sidecar.declares_inputs = "depends_on" in document.data if isinstance(document.data, dict) else False
    sidecar.depends_on = tuple(model.depends_on)
    for index, name in enumerate(model.depends_on):
        sidecar.mentions.append(Mention("ref", name, document.place(("depends_on", index))))
    for name, options in model.sources.items():
        try:
            sidecar.sources[name] = make_source(name, options.model_dump())
        except ValueError as error:
            place = document.place(("sources", name, "files"), key=True)
            sidecar.problems.append(place.problem(str(error)))
        for column, type in (options.columns or {}).items():
            if not is_type(type):
                place = document.place(("sources", name, "columns", column))
                sidecar.problems.append(place.problem(f"'{type}' is not a type that DuckDB knows"))


def _apply_rules(model: AssetModel, document: Document, sidecar: Sidecar, kind: str) -> None:
    """What two keys say together."""

    def wrong(key: str, message: str, hint: str = "") -> None:
        sidecar.problems.append(document.place((key,)).problem(message, hint=hint))

    for key, message, hint in modes.mistakes(model, kind):
        wrong(key, message, hint)
    if model.chunks.rows and kind != "python":
        wrong("chunks", "only a Python asset has chunks", "DuckDB streams a query by itself; remove chunks")
    if model.deduplicate and not model.unique_key:
        wrong("deduplicate", "deduplicate needs a unique_key", "say which columns identify a row: unique_key: id")
    if model.version and len(model.version.model_dump(exclude_none=True)) != 1:
        wrong("version", "version is exactly one of sql, python, files")
    declared = [name.lower() for name in model.columns]
    for name in {n for n in model.columns if declared.count(n.lower()) > 1}:
        place = document.place(("columns", name), key=True)
        sidecar.problems.append(place.problem(f"the column '{name}' is there twice: case does not tell names apart"))
    if model.deduplicate:
        try:
            sidecar.fields["order"] = order_terms(model.deduplicate)
        except ValueError as error:
            wrong("deduplicate", f"deduplicate is an order, like updated_at desc: {error}")
        for term in sidecar.fields.get("order", ()):
            place = document.place(("deduplicate",))
            sidecar.mentions += [Mention("column", column, place) for column in term.columns]
    for name in (n for n in model.partition_by if not re.fullmatch(r"[A-Za-z0-9_]+", n)):
        message = f"'{name}' cannot name the folders of partitions: use letters, digits and _"
        wrong("partition_by", message, f'give the column another name in the query: "{name}" as part')
    for key in ("unique_key", "partition_by", "sort_by", "updated_at"):
        said = getattr(model, key)
        for name in [said] if isinstance(said, str) and said else said:
            sidecar.mentions.append(Mention("column", name, document.place((key,))))
    for owner in (o for o in model.owners if not o.strip()):
        wrong("owners", f"'{owner}' is not an owner")
