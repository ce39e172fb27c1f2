"""Linking: the drafts of all assets become one graph. Names are looked up, cycles found, columns followed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ratatouille.errors import near_miss
from ratatouille.project.draft import Draft, digest
from ratatouille.project.graph import find_cycle, in_order
from ratatouille.project.modes import HISTORY, MODES
from ratatouille.project.records import CHANGE, ORIGIN_COLUMNS, Asset, Problem
from ratatouille.project.text_file import Mention, Place

if TYPE_CHECKING:
    from ratatouille.project.lineage import Relation

Lineage = Mapping[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Columns:
    """What following the columns of one asset gave. `key` names the draft and the inputs' columns it comes from."""

    key: str = ""
    names: tuple[str, ...] = ()
    complete: bool = False  # `names` are all
    lineage: Lineage = field(default_factory=dict)
    tables: tuple[Mention, ...] = ()  # tables that were used without ref
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Linked:
    assets: dict[str, Asset]  # those without errors, in dependency order
    problems: list[Problem]
    columns: dict[str, Columns]


def link(
    drafts: Mapping[str, Draft],
    natives: Collection[str],
    known: Mapping[str, Columns],
    read_again: Callable[[str], Draft],
) -> Linked:
    """Links the drafts. They may also read `natives`, tables that no file builds.

    `known` holds columns followed earlier; `read_again` gives a draft its parsed queries.
    """
    named = {*drafts, *natives}
    views = {name for name, draft in drafts.items() if not MODES[draft.asset.materialize].stores_rows}
    problems = [problem for draft in drafts.values() for problem in draft.problems]
    for draft in drafts.values():
        problems += _unknown_names(draft, named, views)
    inputs = {name: draft.asset.depends_on for name, draft in drafts.items()}
    problems += _cycles(inputs, drafts)
    columns: dict[str, Columns] = {}
    order = in_order(inputs)
    for name in order:
        columns[name] = _columns(drafts[name], columns, known.get(name), read_again)
        problems += columns[name].problems
        problems += [_undeclared(mention, name, named) for mention in columns[name].tables]
    for name in order:
        problems += _missing_columns(drafts[name], columns)
    broken = {problem.asset for problem in problems if problem.severity == "error"}
    assets = {name: _finished(drafts[name].asset, columns[name]) for name in order if name not in broken}
    return Linked(assets, list(dict.fromkeys(problems)), columns)


def _finished(asset: Asset, columns: Columns) -> Asset:
    outputs = columns.names if columns.complete else ()
    return replace(asset, outputs=outputs, lineage=columns.lineage)


# --- names ----------------------------------------------------------------------------------------------------------


def _unknown_names(draft: Draft, named: Collection[str], views: Collection[str]) -> Iterator[Problem]:
    asset = draft.asset
    for mention in draft.mentions:
        name = mention.name.rpartition(".")[0] if mention.kind == "relationship" else mention.name
        reads_itself = name == asset.name and mention.kind == "ref" and mention.place.path == asset.path
        if mention.kind == "changes" and name in views:
            hint = "name the tables that it reads"
            yield mention.place.problem(f"{name} is a view, so nobody knows its changes", hint=hint, asset=asset.name)
        if mention.kind in ("ref", "changes", "relationship") and (name not in named or reads_itself):
            yield replace(_unknown(mention, name, asset, named), asset=asset.name)


def _unknown(mention: Mention, name: str, asset: Asset, named: Collection[str]) -> Problem:
    if name == asset.name:
        return mention.place.problem(f"{name} reads itself", hint="use {{ this }}")
    if "." not in name:
        same = [known for known in sorted(named) if known.endswith(f".{name}")]
        hint = f"did you mean '{same[0]}'?" if same else "name the layer too: silver.sales"
        return mention.place.problem(f"'{name}' is not the name of an asset", hint=hint)
    others = [known for known in named if known != asset.name]
    return mention.place.problem(f"there is no asset called '{name}'", hint=near_miss(name, others).strip())


def _undeclared(mention: Mention, asset: str, named: Collection[str]) -> Problem:
    written = mention.name.lower()
    meant = [known for known in sorted(named) if known.lower() == written or known.lower().endswith(f".{written}")]
    if meant:
        hint = f"write {{{{ ref('{meant[0]}') }}}}"
    else:
        hint = near_miss(mention.name, named).strip() or "say where it comes from: {{ ref('...') }}"
    message = f"the table '{mention.name}' is used without ref"
    return replace(mention.place.problem(message, hint=hint), asset=asset)


def _cycles(inputs: Mapping[str, tuple[str, ...]], drafts: Mapping[str, Draft]) -> Iterator[Problem]:
    rest = dict(inputs)
    while cycle := find_cycle(rest):
        first, second = cycle[0], cycle[1]
        mentions = [m for m in drafts[first].mentions if m.kind in ("ref", "relationship")]
        place = next((m.place for m in mentions if m.name == second or m.name.rpartition(".")[0] == second), None)
        place = place or Place(drafts[first].asset.path)
        message = f"these assets read each other: {' -> '.join(cycle)}"
        yield replace(place.problem(message, hint="remove one of the refs"), asset=first)
        for name in set(cycle):
            del rest[name]


# --- columns --------------------------------------------------------------------------------------------------------


def _columns(
    draft: Draft, above: Mapping[str, Columns], known: Columns | None, read_again: Callable[[str], Draft]
) -> Columns:
    asset = draft.asset
    if asset.kind != "sql" and not any(check.kind == "sql" for check in asset.checks):
        return _declared(asset)
    offered = [(name, above[name].names, above[name].complete) for name in asset.depends_on if name in above]
    key = digest([draft.key, offered])
    if known is not None and known.key == key:
        return known
    if not draft.readings and not draft.gates and draft.key:
        draft = read_again(asset.name)
    return replace(_follow(draft, above), key=key)


def _declared(asset: Asset) -> Columns:
    """The columns of an asset that is not a query: a seed's header, or what the sidecar says."""
    names = asset.outputs or tuple(column.name for column in asset.columns)
    return Columns(names=names, complete=bool(asset.outputs))


def _follow(draft: Draft, above: Mapping[str, Columns]) -> Columns:
    from ratatouille.project.lineage import relation_of, trace

    asset = draft.asset
    names: dict[str, str] = {}
    lineage: dict[str, set[tuple[str, str]]] = {}
    complete = bool(draft.readings)
    tables: list[Mention] = []
    problems: list[Problem] = []
    this: Relation | None = None
    for reading in (*draft.readings, *draft.gates):
        if reading.gate and this is None:
            columns = _declared(asset) if asset.kind != "sql" else Columns("", tuple(names.values()), complete)
            this = relation_of(asset.name, [*columns.names, *_added_columns(asset)], columns.complete)
        found = trace(reading.query, _look_up(asset, above, this))
        tables += [Mention("table", t.name, reading.place(t.start, t.length)) for t in found.tables]
        problems += [replace(reading.problem(mistake), asset=asset.name) for mistake in found.mistakes]
        if not reading.gate:
            complete &= found.relation.complete
            for lower, (name, origins) in found.relation.columns.items():
                lineage.setdefault(names.setdefault(lower, name), set()).update(origins)
    if asset.kind != "sql":
        return replace(_declared(asset), tables=tuple(tables), problems=tuple(problems))
    names |= {column: column for column in _added_columns(asset) if column in HISTORY}
    if not complete:
        names |= {column.name.lower(): column.name for column in asset.columns if column.name.lower() not in names}
    traced = {column: tuple(sorted(origins)) for column, origins in lineage.items() if origins}
    once = (tuple(dict.fromkeys(tables)), tuple(dict.fromkeys(problems)))
    return Columns("", tuple(names.values()), complete, traced, *once)


def _added_columns(asset: Asset) -> tuple[str, ...]:
    """What a table has beside the columns of its query."""
    return (*(ORIGIN_COLUMNS if asset.sources else ()), *(HISTORY if asset.materialize == "snapshot" else ()))


def _look_up(asset: Asset, above: Mapping[str, Columns], this: Relation | None) -> Callable[[str, str], Relation]:
    from ratatouille.project.lineage import Relation, relation_of

    def look_up(kind: str, name: str) -> Relation:
        if kind == "this" and this is not None:
            return this
        if kind in ("ref", "changes") and name in above:
            more = (CHANGE,) if kind == "changes" else ()
            return relation_of(name, (*above[name].names, *more), above[name].complete)
        source = next((s for s in asset.sources if kind == "source" and s.name == name), None)
        if source is not None and source.columns and source.format != "parquet":
            names = [*(column for column, _ in source.columns), *ORIGIN_COLUMNS]
            return Relation({n.lower(): (n, frozenset()) for n in names}, True, source.name)
        return Relation(label=name if kind == "ref" else "")

    return look_up


def _without_origin(asset: Asset, found: Columns | None) -> Iterator[Problem]:
    if asset.kind != "sql" or not asset.sources or asset.materialize not in ("append", "merge"):
        return
    if found is not None and found.complete and "_file" not in found.names:
        message = "this query reads landing files but drops _file, so a rewritten file could not replace its rows"
        yield Place(asset.path).problem(message, hint="keep _file in the select (select * does)", asset=asset.name)


def _missing_columns(draft: Draft, columns: Mapping[str, Columns]) -> Iterator[Problem]:
    """Columns that a sidecar names and that the query evidently does not give."""
    asset = draft.asset
    yield from _without_origin(asset, columns.get(asset.name))
    for mention in draft.mentions:
        if mention.kind == "relationship":
            target, _, column = mention.name.rpartition(".")
        elif mention.kind == "column":
            target, column = asset.name, mention.name
        else:
            continue
        found = columns.get(target)
        if found is None or not found.complete or column.lower() in (name.lower() for name in found.names):
            continue
        if target == asset.name and asset.sources and column in ORIGIN_COLUMNS:
            continue
        hint = near_miss(column, found.names).strip() or f"its columns are {', '.join(found.names)}"
        yield mention.place.problem(f"{target} has no column '{column}'", hint=hint, asset=asset.name)
