"""The nouns: what the files in `pipelines/` say, as frozen records.

workspace   a folder with `workspace.yaml` and `pipelines/`
asset       what one file builds: a table or a view called `<layer>.<name>`
check       a question about an asset's rows; a query that returns the bad ones
source      landing files that an asset reads, each remembered exactly once
problem     something wrong in a file, with its place

Plain values only: a record is written to the project cache as JSON and read back equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ASSET_KINDS = ("sql", "python", "seed")
SEED_FORMATS = ("csv", "json", "parquet", "xlsx")
# A version is kept while it is one of the newest so many, or younger than so many days.
RETENTION: Mapping[str, float] = {"versions": 10, "days": 30}
# Columns that `source()` adds to every row, so that a row knows where it came from.
CHANGE = "_change"  # the column that `changes()` adds: insert | update | delete
ORIGIN_COLUMNS = ("_file", "_loaded_at", "_run_id")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file. `line` and `column` count from 1; 0 means the whole file."""

    message: str
    path: str
    line: int = 0
    column: int = 0
    length: int = 1
    text: str = ""  # that line of the file
    hint: str = ""  # the near miss, or what to do
    severity: str = "error"  # error | warn
    asset: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str = ""  # DuckDB spelling; empty: whatever the query gives
    description: str = ""
    sensitive: bool = False  # masked in samples, quarantine pages and metadata


@dataclass(frozen=True, slots=True)
class Check:
    """One gate of an asset.

    `kind` is one of project.checks.KINDS; `arguments` holds what that kind needs, JSON-safe.
    """

    name: str  # unique within the asset: `sale_id_not_null`, `completeness`, `no_future_sales`
    kind: str
    columns: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    severity: str = "error"  # error | warn
    warn_if: str = ""  # "> 10" bad rows, "> 1%" of the rows; '' and '': severity for any bad row
    error_if: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Landing files read by an asset. `glob` is relative to the workspace root."""

    glob: str
    format: str  # csv | json | parquet
    columns: tuple[tuple[str, str], ...] = ()  # (name, type); empty: CSV columns are text
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    header: bool = True
    nulls: tuple[str, ...] = ("",)
    date_format: str = ""
    timestamp_format: str = ""
    optional: tuple[str, ...] = ()  # of `columns`: a file may lack them
    aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (one of `columns`, how files may call it)
    name: str = ""  # as the code says it: the glob, or the name it has under `sources:`
    table: tuple[str, ...] = ()  # no files but a table of a database: (crm, public, customers)


@dataclass(frozen=True, slots=True)
class Database:
    """A database beside the lake whose tables assets may read. Its password is only named, by a variable."""

    name: str
    type: str  # sqlite | postgres | mysql
    path: str = ""  # of sqlite: relative to the workspace root, or absolute
    host: str = ""
    port: int = 0
    database: str = ""
    user: str = ""
    password_env: str = ""


@dataclass(frozen=True, slots=True)
class Retries:
    max: int = 3
    delay_s: float = 1.0
    backoff: str = "exponential"  # exponential | constant


@dataclass(frozen=True, slots=True)
class OrderTerm:
    """One expression of an ORDER BY, without its direction, and the columns in it."""

    sql: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asset:
    """One file asset. `path` is relative to the workspace root, with forward slashes."""

    name: str  # silver.sales
    layer: str
    table: str
    kind: str  # sql | python | seed
    path: str
    sidecar: str = ""  # its YAML file, if any
    pipeline: str = ""
    group: str = ""
    description: str = ""
    materialize: str = "table"
    unique_key: tuple[str, ...] = ()
    deduplicate: str = ""  # order by expression; of the rows with one unique_key the first is kept
    updated_at: str = ""  # of a snapshot: the column that says since when a row is so
    deletions: str = "keep"  # keep; of a snapshot: close, of a merge: remove
    partition_by: tuple[str, ...] = ()
    sort_by: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    checks: tuple[Check, ...] = ()
    on_fail: str = "block"  # block | quarantine
    max_quarantine: float = 0.05  # share of the candidate's rows
    on_change: str = "rebuild"  # rebuild | forward
    owners: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    chunk_rows: int = 0  # of context.chunks; 0: what fits into memory
    retries: Retries = Retries()
    freshness: Mapping[str, float] = field(default_factory=dict)  # warn_after_s, error_after_s
    triggers: tuple[Mapping[str, Any], ...] = ()
    refresh_every_s: float = 0.0  # volatile assets are fresh for this long
    version: Mapping[str, Any] = field(default_factory=dict)  # {sql|python|files: ...}
    retention: Mapping[str, float] = field(default_factory=dict)  # versions, days; what is not said is the workspace's
    export_as: str = ""  # its file in an export, below the folder and without an ending; empty: its name
    order: tuple[OrderTerm, ...] = ()  # what `deduplicate` says
    # What the code says.
    depends_on: tuple[str, ...] = ()  # lake assets it reads, `this` not included
    sources: tuple[Source, ...] = ()
    tables: tuple[str, ...] = ()  # tables of databases that it reads: crm.public.customers
    volatile: tuple[str, ...] = ()  # functions whose result changes without a change of input
    incremental: bool = False  # asks is_incremental() or watermark()
    lineage: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)  # column -> (asset, column)
    code_hash: str = ""  # canonical code and everything in the sidecar that changes the rows or the gates
    text_hash: str = ""  # descriptions: a change rewrites comments, not data
    file_hash: str = ""  # sha256 of the file's bytes: what is rendered is what was analysed
    outputs: tuple[str, ...] = ()  # the columns its query gives; empty when they cannot be known from the files

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name.lower() == name.lower()), None)

    @property
    def hidden(self) -> frozenset[str]:
        """The columns, in lower case, whose values are not shown."""
        return frozenset(column.name.lower() for column in self.columns if column.sensitive)


@dataclass(frozen=True, slots=True)
class Native:
    """A table that Python code of an orchestrator makes, as far as its file tells. No file asset builds it."""

    name: str  # silver.orders
    path: str  # of the Python file
    line: int


@dataclass(frozen=True, slots=True)
class Resources:
    """The resource profile. Memory in bytes; 0 means: take it from the machine."""

    memory_bytes: int = 0
    threads: int = 0
    spill: str = ".rat/spill"


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a figure is worth a warning, and from where on it counts as a failure. 0: never."""

    warn: float
    fail: float


@dataclass(frozen=True, slots=True)
class Observe:
    """What is unusual. Shares are 0 to 1 and above, sizes bytes, times seconds."""

    window: int = 30  # comparable steps that a step is compared with
    at_least: int = 6  # with fewer nothing is said
    confirm: int = 2  # steps in a row that must be too slow, or too large, before it counts
    time: Limits = Limits(0.10, 0.25)
    memory: Limits = Limits(0.20, 0.50)
    quality: Limits = Limits(0.05, 0.10)  # of all rows, that were lost
    rows: Limits = Limits(0.50, 0.0)
    nulls: Limits = Limits(0.05, 0.0)  # of all rows, more or less
    memory_used: Limits = Limits(0.80, 0.95)
    disk_left: Limits = Limits(2e9, 5e8)
    keep_runs_s: float = 90 * 86_400.0
    keep_figures_s: float = 730 * 86_400.0


@dataclass(frozen=True, slots=True)
class AlertRule:
    name: str
    when: tuple[str, ...]
    to: tuple[str, ...]  # names of channels
    assets: str = ""  # a selector; "": all
    level: str = "warn"  # warn | fail: of what has levels
    over: float = 0.0  # of quarantine: a share of the rows
    cooldown_s: float = 3600.0
    repeat_s: float = 86_400.0  # while it lasts; 0: never
    title: str = ""  # a template
    message: str = ""


@dataclass(frozen=True, slots=True)
class Alerts:
    channels: Mapping[str, str] = field(default_factory=dict)  # name -> the variable that holds the address
    rules: tuple[AlertRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Workspace:
    """`root` is absolute; the other paths are as written, relative to it."""

    root: str
    name: str
    layers: tuple[str, ...] = ("bronze", "silver", "gold")
    catalog: str = ".rat/catalog.sqlite"
    data: str = ".rat/data"
    environment: str = ""  # "" is the default one
    base_catalog: str = ""  # of an environment: the default lake, from which it reads what was not built in it
    base_data: str = ""
    resources: Resources = Resources()
    env: tuple[str, ...] = ()  # names that templates may read
    vars: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)  # named sources that every asset may read
    databases: Mapping[str, Database] = field(default_factory=dict)
    macros: Mapping[str, str] = field(default_factory=dict)  # path -> text of each file of macros/
    verify_every_s: float = 86_400.0
    retention: Mapping[str, float] = field(default_factory=lambda: dict(RETENTION))  # versions, days
    observe: Observe = Observe()
    alerts: Alerts = Alerts()


@dataclass(frozen=True, slots=True)
class Project:
    """A workspace and its assets in dependency order (upstream first, then by name).

    `natives` are tables that assets may read and that an orchestrator's own code builds.
    """

    workspace: Workspace
    assets: Mapping[str, Asset]
    problems: tuple[Problem, ...] = ()
    natives: Mapping[str, Native] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity == "error")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A template made into SQL: exactly one select, without a semicolon or a comment at its end."""

    sql: str
