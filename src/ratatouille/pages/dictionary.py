"""The data dictionary: what every table is said to hold, beside what it holds. Facts only; site.py makes pages of them.

listed      a column that the YAML file of its asset names under `columns:`
there       a column that the current version has; of what was never built, one that its query gives
difference  a listed column that is not there, or of another type; a column that is there and not listed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ratatouille.engine import look
from ratatouille.lake import Entry, ledger
from ratatouille.lake.types import spelled
from ratatouille.observe.events import in_words
from ratatouille.pages.asset import ColumnFact, columns
from ratatouille.project.modes import HISTORY
from ratatouille.project.records import ORIGIN_COLUMNS, Asset, Project

# Columns that nobody has to describe: every table that has them has them from here.
ADDED = {
    **dict(zip(ORIGIN_COLUMNS, ("The landing file of the row", "When it was loaded (UTC)", "The run that loaded it"), strict=True)),
    **dict(zip(HISTORY, ("Since when the row is so", "Until when it was so; empty: it still is", "Whether it still is so"), strict=True)),
}  # fmt: skip
GONE, TYPE, UNLISTED = "not there", "another type", "not listed"


@dataclass(frozen=True, slots=True)
class Difference:
    asset: str
    column: str
    kind: str  # GONE | TYPE | UNLISTED
    listed: str = ""  # the type that the YAML file says; '' where it says none
    there: str = ""  # the type of the current version
    path: str = ""  # of the YAML file, or of the file that it would lie beside

    @property
    def said(self) -> str:
        if self.kind == GONE:
            return f"{self.asset}.{self.column} is listed in {self.path}, and the table has no such column"
        if self.kind == TYPE:
            return f"{self.asset}.{self.column} is listed as {self.listed.lower()}, and is {self.there.lower()}"
        return f"{self.asset}.{self.column} ({self.there.lower() or 'no type known'}) is not listed in {self.path}"


@dataclass(frozen=True, slots=True)
class CheckLine:
    name: str
    kind: str
    columns: tuple[str, ...]
    severity: str  # error | warn
    threshold: str = ""
    passed: bool | None = None  # of the current version; None: it was not asked
    bad: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """One asset of the dictionary. `asset` is None of a table that no file of the workspace builds."""

    name: str
    layer: str
    kind: str  # sql | python | seed | dagster
    asset: Asset | None
    columns: tuple[ColumnFact, ...]
    there: bool  # whether it was built
    listed: Mapping[str, str]  # column in lower case -> the type that the YAML file says, or ''
    checks: tuple[CheckLine, ...]
    reads: tuple[str, ...]
    read_by: tuple[str, ...]
    differences: tuple[Difference, ...] = ()
    version: int | None = None
    rows: int | None = None
    published_at: datetime | None = None

    @property
    def description(self) -> str:
        return self.asset.description if self.asset else ""

    @property
    def described(self) -> int:
        """How many columns say what they mean."""
        return sum(1 for column in self.columns if column.description)


@dataclass(frozen=True, slots=True)
class Dictionary:
    workspace: str
    environment: str
    layers: tuple[str, ...]
    made_at: datetime  # UTC
    tables: tuple[Table, ...]  # by layer, then by name
    version: int | None = None  # of the lake; None: nothing was built

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Of tables whose YAML files list columns."""
        return tuple(one for table in self.tables if table.listed for one in table.differences)

    @property
    def silent(self) -> tuple[Table, ...]:
        """Tables of ours whose YAML files list no column at all."""
        return tuple(table for table in self.tables if table.asset is not None and not table.listed)

    @property
    def owners(self) -> Mapping[str, tuple[str, ...]]:
        return _grouped((owner, t.name) for t in self.tables if t.asset for owner in t.asset.owners)

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        return _grouped((t.asset.group, t.name) for t in self.tables if t.asset and t.asset.group)

    @property
    def tags(self) -> Mapping[str, tuple[str, ...]]:
        return _grouped((tag, t.name) for t in self.tables if t.asset for tag in t.asset.tags)


def dictionary(project: Project) -> Dictionary:
    """Everything from one version of the lake; a workspace in which nothing was built has a dictionary too."""
    heads: Mapping[str, Entry] = {}
    version = None
    with look.reading_lake(project.workspace) as lake:
        if lake is not None:
            with lake.pinned("writing the data dictionary") as session:
                heads = ledger.heads(session)
                version = session.snapshot
    read_by = _read_by(project, heads)
    others = sorted(set(heads) | set(project.natives))
    names = [*project.assets, *(one for one in others if one not in project.assets and _is_ours(project, heads, one))]
    order = {layer: number for number, layer in enumerate(project.workspace.layers)}
    tables = [_table(project, name, heads.get(name), read_by.get(name, ())) for name in names]
    return Dictionary(
        workspace=project.workspace.name,
        environment=project.workspace.environment,
        layers=project.workspace.layers,
        made_at=datetime.now(UTC),
        tables=tuple(sorted(tables, key=lambda one: (order.get(one.layer, len(order)), one.name))),
        version=version,
    )


def _is_ours(project: Project, heads: Mapping[str, Entry], name: str) -> bool:
    """Native tables and models of dbt; what was left by a file that is gone has no place in a dictionary."""
    head = heads.get(name)
    return name in project.natives or (head is not None and bool({"native", "dbt"} & {head.materialize, head.token}))


def _table(project: Project, name: str, head: Entry | None, read_by: tuple[str, ...]) -> Table:
    asset = project.assets.get(name)
    listed = {column.name.lower(): column.type for column in asset.columns} if asset else {}
    facts = tuple(_described(fact) for fact in columns(project, name, head))
    return Table(
        name=name,
        layer=name.partition(".")[0],
        kind=asset.kind if asset else "dagster",
        asset=asset,
        columns=facts,
        there=head is not None,
        listed=listed,
        checks=tuple(_checks(asset, head)),
        reads=asset.depends_on if asset else tuple(head.inputs) if head else (),
        read_by=read_by,
        differences=tuple(_differences(asset, facts, head is not None)) if asset else (),
        version=head.version if head else None,
        rows=head.rows_total if head and head.materialize != "view" else None,
        published_at=head.published_at if head else None,
    )


def _described(fact: ColumnFact) -> ColumnFact:
    return fact if fact.description or fact.name not in ADDED else replace(fact, description=ADDED[fact.name])


def _differences(asset: Asset, there: tuple[ColumnFact, ...], built: bool) -> Iterator[Difference]:
    """Of what was never built only what its query is known to give can be compared, and no types."""
    if not built and not asset.outputs:
        return
    path = asset.sidecar or asset.path
    real = {column.name.lower(): column for column in there}
    for column in asset.columns:
        found = real.get(column.name.lower())
        if found is None:
            yield Difference(asset.name, column.name, GONE, column.type, path=path)
        elif built and column.type and spelled(column.type) != spelled(found.type):
            yield Difference(asset.name, column.name, TYPE, spelled(column.type), found.type, path)
    listed = {column.name.lower() for column in asset.columns}
    for fact in there:
        if fact.name.lower() not in listed and fact.name not in ADDED:
            yield Difference(asset.name, fact.name, UNLISTED, "", fact.type, path)


def _checks(asset: Asset | None, head: Entry | None) -> Iterator[CheckLine]:
    """Those that the files ask, with the answers that the current version got; then others that it was asked."""
    answers = {str(one["name"]): one for one in head.checks} if head else {}
    for check in asset.checks if asset else ():
        said = answers.pop(check.name, {})
        yield CheckLine(
            check.name,
            check.kind,
            check.columns,
            check.severity,
            str(said.get("threshold", "")),
            said.get("passed"),
            int(said.get("bad", 0)),
        )
    for name, said in answers.items() if asset is None else ():
        yield CheckLine(
            name,
            str(said.get("kind", "")),
            tuple(said.get("columns", ())),
            str(said.get("severity", "error")),
            str(said.get("threshold", "")),
            said.get("passed"),
            int(said.get("bad", 0)),
        )


def _read_by(project: Project, heads: Mapping[str, Entry]) -> Mapping[str, tuple[str, ...]]:
    reads = {name: asset.depends_on for name, asset in project.assets.items()}
    reads |= {name: tuple(head.inputs) for name, head in heads.items() if name not in reads}
    return _grouped((above, name) for name, inputs in reads.items() for above in inputs)


def _grouped(pairs: Iterator[tuple[str, str]]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for key, value in pairs:
        found.setdefault(key, set()).add(value)
    return {key: tuple(sorted(found[key])) for key in sorted(found)}


def in_short(found: Dictionary) -> str:
    """One sentence for a terminal and the head of the site."""
    kinds = Counter(one.kind for one in found.differences)
    if not kinds:
        return "The listed columns are those of the tables."
    words = {GONE: "listed and not there", TYPE: "not of the type that is listed", UNLISTED: "there and not listed"}
    said = [f"{_columns_are(kinds[kind])} {words[kind]}" for kind in (GONE, TYPE, UNLISTED) if kinds[kind]]
    return f"{', '.join(said)}."


def _columns_are(number: int) -> str:
    return "1 column is" if number == 1 else f"{number:,} columns are"


def promises(asset: Asset) -> list[tuple[str, str]]:
    """What its files promise of it beyond columns and checks: (word, value)."""
    said = [("kept as", asset.materialize)]
    for word, values in (
        ("key", asset.unique_key),
        ("partitioned by", asset.partition_by),
        ("sorted by", asset.sort_by),
    ):
        said += [(word, ", ".join(values))] if values else []
    if asset.checks:
        said.append(("rows that fail a check", "are kept apart" if asset.on_fail == "quarantine" else "stop the build"))
    limits = [(word, asset.freshness.get(key)) for word, key in (("warn", "warn_after_s"), ("error", "error_after_s"))]
    if any(limit for _, limit in limits):
        said.append(("freshness", ", ".join(f"{word} after {in_words(limit)}" for word, limit in limits if limit)))
    if asset.refresh_every_s:
        said.append(("built again every", in_words(asset.refresh_every_s)))
    return said
