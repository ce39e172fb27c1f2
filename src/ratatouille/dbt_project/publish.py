"""From what dbt has staged and tested to one publication for each model, all for the same commit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratatouille.dbt_project.copy import hash_of
from ratatouille.dbt_project.project import Model, Selection
from ratatouille.dbt_project.results import Told
from ratatouille.engine.plan import Outer
from ratatouille.engine.records import as_json
from ratatouille.engine.stages import user
from ratatouille.lake import Entry, Hold, Publication, Staged
from ratatouille.lake.quoting import LAKE, ident
from ratatouille.lake.stage import StagedFile

DBT = "dbt"
SCRATCH = "memory"  # dbt's own database, as in the plugin


@dataclass(frozen=True, slots=True)
class Now:
    """The lake as a run begins: everything that is read, at one version."""

    version: int
    heads: Mapping[str, Entry]
    holds: Mapping[str, Hold]
    standing: Mapping[str, str]
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # of the selection's tables


@dataclass(frozen=True, slots=True)
class Batch:
    """What is published together. `made` holds the sealed files of each model, `damaged` tables to be made anew."""

    selection: Selection
    told: Told
    now: Now
    outer: Outer
    tokens: Mapping[str, int]
    made: Mapping[str, Staged | None]
    damaged: Mapping[str, str]


def inputs_of(selection: Selection, model: Model, now: Now) -> dict[str, int]:
    """The versions of the lake's tables that reach a model, also through the others of its selection and views."""
    by_name = {one.name: one for one in selection.models}
    found: dict[str, int] = {}
    seen: set[str] = set()
    waiting = [model.name]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in by_name:
            waiting += [*by_name[name].above, *by_name[name].outside, *by_name[name].compared]
        elif name in now.heads:
            found[name] = now.heads[name].data_version
            if now.standing.get(name) == "view":
                waiting += list(now.heads[name].inputs)
    return dict(sorted(found.items()))


def publication(batch: Batch, model: Model) -> Publication:
    said, now = batch.told.staged[model.name], batch.now
    columns = tuple((name, kind) for name, kind in said["columns"])
    have = now.columns.get(model.name, {})
    add = tuple((name, kind) for name, kind in said.get("add", ()))
    drop = tuple(said.get("drop", ()))
    if said["how"] == "replace" and have:
        want = dict(columns)
        add = tuple((name, kind) for name, kind in columns if have.get(name) != kind)
        drop = tuple(name for name, kind in have.items() if want.get(name) != kind)
    names = {*batch.selection.names, *batch.selection.needs}
    return Publication(
        entry=_entry(batch, model),
        how=said["how"],
        token=batch.tokens[model.name],
        columns=columns,
        staged=batch.made[model.name],
        view_sql=_in_the_lake(said["select"], names) if said["how"] == "view" else "",
        unique_key=tuple(said.get("unique_key", ())),
        add=add,
        drop=drop,
        comment=model.description,
        column_comments=dict(model.columns),
        was=now.standing.get(model.name, ""),
        # A table cannot lose its last column, so one of which nothing stays is made anew.
        recreate=model.name in batch.damaged or (bool(have) and len(drop) == len(have)),
    )


def _entry(batch: Batch, model: Model) -> Entry:
    said, now = batch.told.staged[model.name], batch.now
    head, inputs = now.heads.get(model.name), inputs_of(batch.selection, model, now)
    mine, by_test = batch.selection.tests_on(model.name), batch.told.by_test
    return Entry(
        asset=model.name,
        run_id=batch.outer.run_id,
        materialize=DBT if said["how"] != "view" else "view",
        token=DBT,  # a view of dbt's is one as well
        mode=said.get("mode", "full"),
        fingerprint=hash_of(model.code_hash, sorted(inputs.items()))[:32],
        code_hash=model.code_hash,
        text_hash=hash_of(model.description, model.columns)[:32],
        base_version=head.version if head else 0,
        inputs=inputs,
        checks=tuple(as_json(by_test[test.id]) for test in mine if test.id in by_test),
        rows_in=_rows_in(batch, model, said),
        seconds=batch.told.seconds.get(model.id, said["seconds"]),
        published_by=user(),
    )


def _rows_in(batch: Batch, model: Model, said: Mapping[str, Any]) -> int:
    """Rows read: those of its inputs in a full build, those that its query gave in an incremental one."""
    if said.get("mode") == "incremental" or not (model.above or model.outside):
        return sum(file[1] for file in said.get("files", ()))
    above = [made.rows for name in model.above if (made := batch.made.get(name)) is not None]
    return sum(above) + sum(batch.now.heads[name].rows_total for name in model.outside if name in batch.now.heads)


def staged(said: Mapping[str, Any]) -> Staged:
    """What the plugin has reported of a model, as staged files."""
    listed = tuple(StagedFile(path, rows, size) for path, rows, size in said["files"])
    return Staged(Path(said["folder"]), tuple((name, kind) for name, kind in said["columns"]), listed)


def _in_the_lake(select: str, names: Collection[str]) -> str:
    """A view's query with the names that dbt gave to the candidates turned into those that readers use."""
    from sqlglot import TokenType
    from sqlglot.dialects.duckdb import DuckDB

    known = {name.lower() for name in names}
    made, last = [], 0
    tokens = list(DuckDB().tokenize(select))
    for number, token in enumerate(tokens[:-4]):
        dotted = number > 0 and tokens[number - 1].token_type == TokenType.DOT
        first, dot, schema, also, name = tokens[number : number + 5]
        named = first.text.lower() == SCRATCH and dot.token_type == also.token_type == TokenType.DOT
        if named and not dotted and f"{schema.text}.{name.text}".lower() in known:
            made += [select[last : token.start], ident(LAKE)]
            last = token.end + 1
    return "".join([*made, select[last:]])
