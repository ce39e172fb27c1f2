"""Following columns through a query: what it gives, where each column comes from, what it asks for in vain.

relation   what an item of FROM offers: its columns, and whether those are all of them
origin     (asset, column): where a value comes from

Best effort, and careful: a column is called missing only when every relation in sight is known completely. What
this walk does not understand makes a relation incomplete, never a problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from ratatouille.errors import near_miss
from ratatouille.project.sql import Query, Span, SqlMistake

Origins = frozenset[tuple[str, str]]
_NOTHING: Origins = frozenset()
_VIRTUAL = {"rowid", "filename", "file_row_number", "snapshot_id"}  # DuckDB offers these beside the columns


@dataclass(frozen=True, slots=True)
class Relation:
    """`columns` maps a lower-case name to the name as written and its origins."""

    columns: Mapping[str, tuple[str, Origins]] = field(default_factory=dict)
    complete: bool = False
    label: str = ""  # the asset, for messages and for columns that are not known


@dataclass(slots=True)
class Trace:
    """What one query gives and uses."""

    relation: Relation = field(default_factory=Relation)
    tables: list[Span] = field(default_factory=list)  # tables that come neither from ref nor from the query itself
    mistakes: list[SqlMistake] = field(default_factory=list)


Scope = dict[str, Relation]  # lower-case alias -> what it offers
Lookup = Callable[[str, str], Relation]  # ("ref", "silver.sales") or ("source", name) or ("this", "this")


def relation_of(asset: str, columns: Iterable[str], complete: bool) -> Relation:
    """What reading an asset offers."""
    return Relation({name.lower(): (name, frozenset({(asset, name)})) for name in columns}, complete, asset)


def trace(query: Query, look_up: Lookup) -> Trace:
    """Follows the columns of `query`; `look_up` knows the tables that templates name."""
    walker = _Walker(query, look_up)
    try:
        walker.found.relation = walker.query(query.tree, {}, ())
    except RecursionError:  # thousands of nested or united selects: nothing is known then
        return Trace()
    return walker.found


class _Walker:
    def __init__(self, query: Query, look_up: Lookup) -> None:
        self.text = query.text
        self.look_up = look_up
        self.found = Trace()

    # --- queries ----------------------------------------------------------------------------------------------------

    def query(self, tree: Any, ctes: Mapping[str, Relation], outer: tuple[Scope, ...]) -> Relation:
        """What a query offers. Visits everything in it once."""
        ctes = self.with_ctes(tree, ctes, outer)
        if isinstance(tree, exp.Select):
            return self.select(tree, ctes, outer)
        if isinstance(tree, exp.SetOperation):
            left = self.query(tree.left, ctes, outer)
            right = self.query(tree.right, ctes, outer)
            return _united(left, right, by_name=bool(tree.args.get("by_name")))
        if isinstance(tree, exp.Subquery):
            if isinstance(tree.this, exp.Table):  # (a join b): nobody needs its columns as one relation
                self.item(tree.this, ctes, outer)
                return Relation()
            relation = self.query(tree.this, ctes, outer)
            return Relation() if tree.args.get("pivots") else _renamed(relation, tree)
        for table in tree.find_all(exp.Table):  # PIVOT, VALUES: what comes out is not known
            self.item(table, ctes, outer)
        return Relation()

    def with_ctes(self, tree: Any, ctes: Mapping[str, Relation], outer: tuple[Scope, ...]) -> Mapping[str, Relation]:
        clause = tree.args.get("with_")
        if clause is None:
            return ctes
        known = dict(ctes)
        for cte in clause.expressions:
            name = cte.alias.lower()
            # Only a recursive one may read itself; any other `sales` inside it means the real table.
            inside = {**known, name: Relation()} if clause.args.get("recursive") else known
            known[name] = _renamed(self.query(cte.this, inside, outer), cte)
        return known

    def select(self, tree: exp.Select, ctes: Mapping[str, Relation], outer: tuple[Scope, ...]) -> Relation:
        scope: Scope = {}
        hidden: set[str] = set()  # the right side of a semi join can be compared, not selected
        clause = tree.args.get("from_")
        items = [clause.this] if clause is not None else []
        joins = list(tree.args.get("joins") or ())
        for item in items + joins + list(tree.args.get("laterals") or ()):
            node = item.this if isinstance(item, exp.Join) else item
            for alias, relation in list(self.items(node, ctes, (scope, *outer))):
                scope[alias] = relation
                if isinstance(item, exp.Join) and item.kind in ("SEMI", "ANTI"):
                    hidden.add(alias)
        chain = (scope, *outer)
        offered = self.projections(tree, ctes, chain, {k: v for k, v in scope.items() if k not in hidden})
        aliases: Scope = {"": offered}
        for join in joins:
            self.walk(join.args.get("on"), ctes, chain, aliases)
        for key, value in tree.args.items():
            if key not in ("with_", "from_", "joins", "laterals", "expressions", "kind", "hint"):
                self.walk(value, ctes, chain, aliases)
        return offered

    def projections(
        self, tree: exp.Select, ctes: Mapping[str, Relation], chain: tuple[Scope, ...], visible: Scope
    ) -> Relation:
        columns: dict[str, tuple[str, Origins]] = {}
        complete = True
        for node in tree.expressions:
            star = node if isinstance(node, exp.Star) else node.this if isinstance(node, exp.Column) else None
            if isinstance(star, exp.Star):
                alias = node.table.lower() if isinstance(node, exp.Column) else ""
                chosen = [visible.get(alias, Relation())] if alias else list(visible.values())
                complete &= self.star(star, chosen, columns, ctes, chain)
                continue
            # An earlier alias of the same select may be used by a later expression.
            aliases: Scope = {"": Relation(dict(columns), complete=True)}
            origins = self.walk(node, ctes, chain, aliases)
            name = node.alias or (node.name if isinstance(node, (exp.Column, exp.Dot)) else "")
            if not name or (node.find(exp.Columns, exp.Star, exp.Explode) and not _counts(node)):
                complete = False
            if name:
                columns.setdefault(name.lower(), (name, origins))
        return Relation(columns, complete)

    def star(
        self,
        star: exp.Star,
        chosen: list[Relation],
        columns: dict[str, tuple[str, Origins]],
        ctes: Mapping[str, Relation],
        chain: tuple[Scope, ...],
    ) -> bool:
        """Adds what the star stands for; False when that is not all."""
        dropped = {node.name.lower() for node in star.args.get("except_") or ()}
        renamed = {node.this.name.lower(): node.alias for node in star.args.get("rename") or ()}
        replaced = {n.alias.lower(): self.walk(n.this, ctes, chain, {}) for n in star.args.get("replace") or ()}
        for relation in chosen:
            for key, (name, origins) in relation.columns.items():
                if key not in dropped:
                    name = renamed.get(key, name)
                    columns.setdefault(name.lower(), (name, replaced.get(key, origins)))
        return bool(chosen) and all(relation.complete for relation in chosen)

    # --- items of FROM ----------------------------------------------------------------------------------------------

    def items(
        self, node: Any, ctes: Mapping[str, Relation], chain: tuple[Scope, ...]
    ) -> Iterator[tuple[str, Relation]]:
        """(alias, relation) of an item of FROM and of what is joined inside it."""
        if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Table) and not node.alias:
            yield from self.items(node.this, ctes, chain)
            return
        yield self.item(node, ctes, chain)
        for join in node.args.get("joins") or ():
            yield from self.items(join.this, ctes, chain)

    def item(self, node: Any, ctes: Mapping[str, Relation], chain: tuple[Scope, ...]) -> tuple[str, Relation]:
        alias = node.alias_or_name.lower()
        if isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier):
            relation = self.table(node, ctes)
        elif isinstance(node, (exp.Subquery, exp.Select, exp.SetOperation)):
            return alias, self.query(node, ctes, chain[1:])
        elif isinstance(node, exp.Lateral) and isinstance(node.this, exp.Subquery):
            relation = self.query(node.this, ctes, chain)
        else:  # a table function, values, unnest: what goes in is followed, what comes out is not known
            self.walk([value for key, value in node.args.items() if key not in ("alias", "joins")], ctes, chain, None)
            relation = Relation()
        return alias or f"?{id(node)}", Relation() if node.args.get("pivots") else _renamed(relation, node)

    def table(self, node: exp.Table, ctes: Mapping[str, Relation]) -> Relation:
        catalog, schema, name = node.catalog, node.db, node.name
        if catalog in ("ref:", "changes:"):
            return self.look_up(catalog[:-1], f"{schema}.{name}")
        if schema in ("source:", "this:") and not catalog:
            return self.look_up(schema[:-1], name)
        if not schema and name.lower() in ctes:
            return ctes[name.lower()]
        parts = [part.meta for part in node.parts if "start" in part.meta]
        start = parts[0]["start"] if parts else 0
        if self.text[start : start + 1] != "'":  # those are files, and reported as files
            shown = ".".join(part for part in (catalog, schema, name) if part)
            self.found.tables.append(Span(shown, start, (parts[-1]["end"] - start + 1) if parts else 1))
        return Relation()

    # --- expressions ------------------------------------------------------------------------------------------------

    def walk(self, node: Any, ctes: Mapping[str, Relation], chain: tuple[Scope, ...], aliases: Scope | None) -> Origins:
        """The origins of everything in an expression. `aliases` None: what is missing is not reported."""
        if isinstance(node, (list, tuple)):
            return _NOTHING.union(*(self.walk(item, ctes, chain, aliases) for item in node))
        if not isinstance(node, exp.Expression):
            return _NOTHING
        if isinstance(node, exp.Column):
            return _NOTHING if isinstance(node.this, exp.Star) else self.column(node, chain, aliases)
        if isinstance(node, (exp.Select, exp.SetOperation, exp.Subquery)):
            relation = self.query(node, ctes, chain)
            return _NOTHING.union(*(origins for _, origins in relation.columns.values()))
        if isinstance(node, exp.Comprehension):  # its own variables look like columns
            aliases = None
        return self.walk([v for v in node.args.values() if isinstance(v, (list, exp.Expression))], ctes, chain, aliases)

    def column(self, node: exp.Column, chain: tuple[Scope, ...], aliases: Scope | None) -> Origins:
        if node.table:
            for scope in chain:
                if node.table.lower() in scope:
                    return self.of_table(node, scope[node.table.lower()], aliases is not None)
            # Not an alias: `address.street` takes a field of the column `address`.
            return self.bare(node.parts[0].name, node, chain, aliases, report=False)
        return self.bare(node.name, node, chain, aliases, report=aliases is not None)

    def of_table(self, node: exp.Column, relation: Relation, report: bool) -> Origins:
        name = node.name.lower()
        if name in relation.columns:
            return relation.columns[name][1]
        if not relation.complete:
            return frozenset({(relation.label, node.name)}) if relation.label else _NOTHING
        if report and name not in _VIRTUAL:
            self.missing(node, [relation], near=[shown for shown, _ in relation.columns.values()])
        return _NOTHING

    def bare(
        self, name: str, node: exp.Column, chain: tuple[Scope, ...], aliases: Scope | None, *, report: bool
    ) -> Origins:
        key = name.lower()
        in_sight: list[Relation] = []
        for depth, scope in enumerate(chain):
            having = [relation.columns[key][1] for relation in scope.values() if key in relation.columns]
            if having:
                return _NOTHING.union(*having)
            in_sight += scope.values()
            if depth == 0 and aliases and key in aliases[""].columns:
                return aliases[""].columns[key][1]
            open_ones = [relation for relation in scope.values() if not relation.complete]
            if len(scope) == 1 and open_ones and open_ones[0].label:
                return frozenset({(open_ones[0].label, name)})
            if open_ones:
                return _NOTHING
            if key in scope:  # the row itself
                return _NOTHING.union(*(origins for _, origins in scope[key].columns.values()))
        if report and in_sight and key not in _VIRTUAL:
            near = [shown for relation in in_sight for shown, _ in relation.columns.values()]
            near += [shown for shown, _ in aliases[""].columns.values()] if aliases else []
            self.missing(node, in_sight, near)
        return _NOTHING

    def missing(self, node: exp.Column, relations: list[Relation], near: list[str]) -> None:
        meta = node.this.meta
        if "start" not in meta:  # made by the parser, not written by a person
            return
        labels = list(dict.fromkeys(relation.label for relation in relations if relation.label))
        where = f" in {' or '.join(labels)}" if labels and len(labels) == len(relations) else " here"
        hint = near_miss(node.name, near).strip() or f"the columns are {', '.join(dict.fromkeys(near))}"
        start, end = meta["start"], meta["end"]
        self.found.mistakes.append(SqlMistake(f"there is no column '{node.name}'{where}", start, end - start + 1, hint))


def _united(left: Relation, right: Relation, *, by_name: bool) -> Relation:
    if by_name:
        columns = dict(left.columns)
        for key, (name, origins) in right.columns.items():
            known = columns.get(key, (name, _NOTHING))
            columns[key] = (known[0], known[1] | origins)
        return Relation(columns, left.complete and right.complete)
    if not (left.complete and right.complete and len(left.columns) == len(right.columns)):
        return Relation(left.columns, left.complete)
    pairs = zip(left.columns.items(), right.columns.values(), strict=True)
    return Relation({key: (name, origins | other[1]) for (key, (name, origins)), other in pairs}, complete=True)


def _renamed(relation: Relation, node: Any) -> Relation:
    """`t(a, b)`: the first columns get other names."""
    alias = node.args.get("alias")
    names = [column.name for column in (alias.args.get("columns") or ())] if isinstance(alias, exp.TableAlias) else []
    if not names:
        return relation
    offered = list(relation.columns.values()) if relation.complete else []
    columns = {}
    for index in range(max(len(names), len(offered))):
        name, origins = offered[index] if index < len(offered) else ("", _NOTHING)
        name = names[index] if index < len(names) else name
        columns[name.lower()] = (name, origins)
    return Relation(columns, relation.complete)


def _counts(node: Any) -> bool:
    """`count(*)`: a star that does not stand for columns."""
    stars = list(node.find_all(exp.Star))
    return bool(stars) and all(isinstance(s.parent, exp.Count) for s in stars) and not node.find(exp.Columns)
