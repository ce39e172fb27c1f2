"""Comparing two versions of an asset: its columns, and its rows by key, or as multisets where there is no key.

added, removed    a key that only the later, or only the earlier version has
changed           a key that both have, with other values in some column that both have
sampled           of large tables only the rows whose key falls into one of many buckets: the same ones on both sides
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ratatouille.engine.gates import MASK
from ratatouille.engine.workbench import storage_of
from ratatouille.errors import RequestError, near_miss
from ratatouille.lake import Entry, Session, artifacts, ledger, open_lake
from ratatouille.lake.care import upkeep
from ratatouille.lake.catalogs.lock import looking_back
from ratatouille.lake.quoting import ident, idents, table, text
from ratatouille.project.records import Project

SAMPLE_ROWS = 2_000_000  # of both versions together; of larger tables about so many are compared


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """A column that is not in both versions with one type. "" where a version does not have it."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Example:
    """A row that differs. kind: added | removed | changed; of a changed row only the columns that changed."""

    kind: str
    key: Mapping[str, Any]
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diff:
    """What version `after` has that `before` has not. Counts are of the rows that were compared."""

    asset: str
    before: int
    after: int
    columns: tuple[ColumnChange, ...] = ()
    rows_before: int = 0
    rows_after: int = 0
    key: tuple[str, ...] = ()  # empty: compared as multisets
    added: int = 0
    removed: int = 0
    changed: int = 0
    changed_columns: Mapping[str, int] = field(default_factory=dict)  # column -> rows in which it changed
    examples: tuple[Example, ...] = ()
    share: float = 1.0  # of the rows, that was compared
    note: str = ""  # why no key was used

    @property
    def same(self) -> bool:
        return not (self.columns or self.added or self.removed or self.changed)


def diff(
    project: Project,
    asset: str,
    before: int | None = None,
    after: int | None = None,
    *,
    key: Sequence[str] = (),
    examples: int = 5,
    sample_rows: int = SAMPLE_ROWS,
) -> Diff:
    """Compare two versions, by default the current one with the one before it.

    `key` replaces the asset's unique_key. Sensitive columns are masked in the examples. RequestError for a version
    that there is not, or that is not kept any more, and for a view.
    """
    storage = storage_of(project.workspace)
    with looking_back(storage.catalog), open_lake(storage) as lake, lake.pinned("comparing versions") as session:
        name, known = _published(session, project, asset, artifacts.names(lake.storage))
        old, new = _pair(name, known, upkeep.versions(session), before, after)
        return _Comparison(session, project, name, key, examples, sample_rows).of(old.version, new.version)


def diff_on(session: Session, project: Project, name: str, before: int, after: int, *, examples: int = 5) -> Diff:
    """The same on an open session, of two versions of a table that can be read; the caller keeps them from expiring."""
    return _Comparison(session, project, name, (), examples, SAMPLE_ROWS).of(before, after)


def _published(session: Session, project: Project, asset: str, others: Sequence[str]) -> tuple[str, list[Entry]]:
    name = asset.strip().replace("/", ".")
    known = ledger.entries(session, name)
    if not known:
        every = {*project.assets, *ledger.heads(session)}
        if name in others:
            raise RequestError(
                f"{name} is an artifact: only tables are compared", where=name, next=f"rat history {name}"
            )
        if name in every:
            raise RequestError(f"{name} was never built", where=name, next=f"rat run +{name}")
        raise RequestError(f"There is no asset called '{name}'.{near_miss(name, every)}", where=name, next="rat show")
    if known[0].materialize == "view":
        raise RequestError(f"{name} is a view and holds no rows", where=name, next="compare the tables that it reads")
    return name, known


def _pair(
    name: str, known: Sequence[Entry], readable: set[int], before: int | None, after: int | None
) -> tuple[Entry, Entry]:
    by_version = {entry.version: entry for entry in known}
    for version in (before, after):
        if version is not None and (version not in by_version or version not in readable):
            gone = "is not kept any more" if version in by_version else "was never published"
            some = ", ".join(str(v) for v in by_version if v in readable)
            where = f"versions that can be read: {some or 'none'}"
            raise RequestError(f"version {version} of {name} {gone}", where=where, next=f"rat history {name}")
    new = by_version[after] if after is not None else known[0]
    if before is not None:
        return by_version[before], new
    earlier = [e for e in known if e.version < new.version and e.version in readable and e.action != upkeep.COMPACT]
    if not earlier:
        where = f"version {new.version} is the only one that can be read"
        raise RequestError(f"there is nothing to compare {name} with", where=where, next=f"rat history {name}")
    return earlier[0], new


class _Comparison:
    """One comparison in progress, in one pinned session."""

    def __init__(
        self, session: Session, project: Project, name: str, key: Sequence[str], examples: int, sample_rows: int
    ) -> None:
        self.session = session
        self.name = name
        asset = project.assets.get(name)
        self.key = tuple(key) or (asset.unique_key if asset else ())
        self.asked_key = bool(key)
        self.hidden = asset.hidden if asset else frozenset[str]()
        self.n_examples = examples
        self.sample_rows = sample_rows

    def of(self, old: int, new: int) -> Diff:
        at = [f"{table(self.name)} at (version => {int(version)})" for version in (old, new)]
        before, after = (dict(self.session.describe(f"select * from {one}")) for one in at)
        self.types = before, after
        self.shared = [name for name in after if name in before]
        gone = [ColumnChange(n, k, after.get(n, "")) for n, k in before.items() if after.get(n) != k]
        come = [ColumnChange(n, "", k) for n, k in after.items() if n not in before]
        counts = [int(self.session.value(f"select count(*) from {one}")) for one in at]
        found = Diff(self.name, old, new, (*gone, *come), counts[0], counts[1])
        if not self.shared:
            return replace(found, removed=counts[0], added=counts[1], note="they have no column in common")
        buckets = math.ceil(sum(counts) / self.sample_rows)
        self.key, note = self._usable_key(at, buckets)
        self.sides = [self._side(one, buckets) for one in at]
        found = replace(found, key=self.key, share=1 / buckets, note=note)
        return self._by_key(found) if self.key else self._as_multisets(found)

    def _usable_key(self, at: Sequence[str], buckets: int) -> tuple[tuple[str, ...], str]:
        if not self.key:
            return (), "it has no unique_key"
        missing = [name for name in self.key if name not in self.shared]
        if missing and self.asked_key:
            raise RequestError(
                f"{self.name} has no column {missing[0]} in both versions.{near_miss(missing[0], self.shared)}",
                where="--key",
                next=f"rat show {self.name}",
            )
        if missing:
            return (), f"its key {missing[0]} is not in both versions"
        nulls = " or ".join(f"{ident(name)} is null" for name in self.key)
        for one in at:
            sampled = self._sampled(one, self.key, buckets)
            rows, keys, empty = self.session.one(
                f"select count(*), count(distinct row({idents(self.key)})), count(*) filter ({nulls}) from ({sampled})"
            )
            if rows != keys or empty:
                return (), f"{', '.join(self.key)} is not unique in both versions"
        return self.key, ""

    def _sampled(self, relation: str, by: Sequence[str], buckets: int) -> str:
        # By their text: one key must fall into one bucket whatever its type was.
        some = f" where hash({', '.join(f'{ident(n)}::varchar' for n in by)}) % {buckets} = 0" if buckets > 1 else ""
        return f"select * from {relation}{some}"

    def _side(self, relation: str, buckets: int) -> str:
        """The shared columns of one version; those whose type has changed as text, so that they can be compared."""
        by = self.key or self.shared
        columns = ", ".join(
            ident(n) if self.types[0][n] == self.types[1][n] else f"{ident(n)}::varchar as {ident(n)}"
            for n in self.shared
        )
        return f"select {columns} from ({self._sampled(relation, by, buckets)})"

    def _by_key(self, found: Diff) -> Diff:
        rest = [name for name in self.shared if name not in self.key]
        on = " and ".join(f"a.{ident(n)} = b.{ident(n)}" for n in self.key)
        changed = [f"a.{ident(n)} is distinct from b.{ident(n)}" for n in rest]
        first = ident(self.key[0])
        kind = f"case when a.{first} is null then 'added' when b.{first} is null then 'removed' else 'changed' end"
        names = ", ".join(f"case when {one} then {text(n)} end" for n, one in zip(rest, changed, strict=True))
        both = f"a.{first} is not null and b.{first} is not null"
        joined = (
            f"select a, b, {kind} as kind, case when {both} then"
            f" list_filter([{names or 'null::varchar'}], lambda c: c is not null) else [] end as columns"
            f" from ({self.sides[0]}) a full join ({self.sides[1]}) b on {on}"
            f" where not ({both}) or {' or '.join(changed) or 'false'}"
        )
        counts = dict(self.session.rows(f"select kind, count(*) from ({joined}) group by kind"))
        per_column = self.session.rows(
            f"select c, count(*) from (select unnest(columns) as c from ({joined})) group by c order by count(*) desc, c"
        )
        order = ", ".join(f"coalesce(a.{ident(n)}, b.{ident(n)})" for n in self.key)
        rows = self.session.rows(
            f"select kind, columns, {self._shown('a')}, {self._shown('b')} from ({joined})"
            f" qualify row_number() over (partition by kind order by {order}) <= {int(self.n_examples)}"
            f" order by kind, {order}"
        )
        return replace(
            found,
            added=counts.get("added", 0),
            removed=counts.get("removed", 0),
            changed=counts.get("changed", 0),
            changed_columns=dict(per_column),
            examples=tuple(self._example(*row) for row in rows),
        )

    def _shown(self, side: str) -> str:
        """A row as a JSON text, sensitive values masked."""
        each = ", ".join(
            f"{ident(n)} := case when {side}.{ident(n)} is not null then {text(MASK)} end"
            if n.lower() in self.hidden
            else f"{ident(n)} := {side}.{ident(n)}"
            for n in self.shared
        )
        return f"to_json(struct_pack({each}))::varchar"

    def _example(self, kind: str, columns: Sequence[str], before: str, after: str) -> Example:
        old, new = json.loads(before), json.loads(after)
        row = new if kind == "added" else old
        key = {name: row[name] for name in self.key}
        if kind == "changed":
            return Example(kind, key, {n: old[n] for n in columns}, {n: new[n] for n in columns})
        return Example(kind, key, *((old, {}) if kind == "removed" else ({}, new)))

    def _as_multisets(self, found: Diff) -> Diff:
        a, b = self.sides
        sides = {"removed": f"{a} except all {b}", "added": f"{b} except all {a}"}
        counts, examples = {}, []
        for kind, rows in sides.items():
            counts[kind] = int(self.session.value(f"select count(*) from ({rows})"))
            shown = f"select {self._shown('r')} from ({rows} order by all limit {int(self.n_examples)}) r"
            for (row,) in self.session.rows(shown) if counts[kind] else ():
                said = json.loads(row)
                examples.append(Example(kind, {}, *((said, {}) if kind == "removed" else ({}, said))))
        return replace(found, added=counts["added"], removed=counts["removed"], examples=tuple(examples))
