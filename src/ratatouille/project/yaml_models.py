"""What `workspace.yaml` and a sidecar may say: closed models, also the source of the editors' JSON Schema.

Only imported when a YAML file changed: the project cache holds their result.
"""
# ruff: noqa: RUF012  pydantic copies the defaults

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin
from zoneinfo import ZoneInfo

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from ratatouille.errors import near_miss
from ratatouille.project.checks import column_checks_schema, table_checks_schema
from ratatouille.project.cron import cron_line
from ratatouille.project.observe_models import AlertsModel, ObserveModel
from ratatouille.project.records import Problem
from ratatouille.project.yaml_fields import Character, Closed, Duration, Expandable, Texts, a_list
from ratatouille.project.yaml_text import Document, Path


def _a_column(value: Any) -> Any:
    return {} if value is None else {"type": value} if isinstance(value, str) else value


def _a_schedule(value: Any) -> Any:
    return cron_line(value) if isinstance(value, str) else value


class SourceModel(Closed):
    format: Literal["csv", "json", "parquet"] | None = None
    """Taken from the file's ending when left out."""
    columns: dict[str, str] | None = None
    """Names and types, in the order of the file. Without them every CSV column is text. A row with a value that does
    not fit its type exactly is a reject."""
    optional: Texts | None = None
    """Those of `columns` that a file may lack; they are null then. A file without one of the others is set aside."""
    aliases: dict[str, Texts] | None = None
    """Other names that files have for those of `columns`: {amount: [Award Amount, award_amt]}. With it names are compared
    without case, blanks and punctuation, so that Award Amount is award_amount too."""
    delimiter: Character | None = None
    """What separates the values of a CSV line (default: a comma; a tab for .tsv)."""
    quote: Character | None = None
    """What surrounds a CSV value that holds the delimiter (default: a double quote)."""
    encoding: Literal["utf-8", "latin-1", "utf-16"] | None = None
    """How the text is encoded (default utf-8)."""
    header: bool | None = None
    """Whether the first CSV line holds the names (default true)."""
    nulls: Texts | None = None
    """Texts that mean null in CSV (default: the empty text)."""
    date_format: str | None = None
    """How dates are written, like %m-%d-%Y."""
    timestamp_format: str | None = None
    """How timestamps are written."""


class NamedSourceModel(SourceModel):
    files: str | None = None
    """The landing files, like landing/sales/*.csv, when the key above is a name and not the files themselves."""


class DatabaseModel(Closed):
    type: Literal["sqlite", "postgres", "mysql"]
    """What it is."""
    path: str = ""
    """Of sqlite: the file, relative to the workspace."""
    host: str = ""
    """Of postgres and mysql: the machine."""
    port: Expandable = 0
    """Its port, where it is not the usual one."""
    database: str = ""
    """The database on that machine."""
    user: str = ""
    """Who reads. A user that may only read is enough."""
    password: str = ""
    """The variable that holds the password, like ${CRM_PASSWORD}. The password itself does not belong here."""


class LakeModel(Closed):
    catalog: str = ".rat/catalog.sqlite"
    """Where the catalog is: a file, or postgres://..."""
    data: str = ".rat/data"
    """Where the data files are: a folder, or s3://..."""


class ResourcesModel(Closed):
    memory: Expandable = 0
    """The most memory that a run may use, Python and DuckDB together, like 4GB. Left out: the machine's, or its container's."""
    threads: Expandable = 0
    """The most threads. Left out: every core."""
    spill: str = ".rat/spill"
    """The folder for what does not fit into memory."""


class EnvironmentModel(Closed):
    lake: LakeModel | None = None
    """Where its tables are stored (default: .rat/environments/NAME/)."""
    resources: ResourcesModel | None = None
    """What a run in it may take from the machine."""
    vars: dict[str, Any] = {}
    """Values for {{ var('name') }} that differ in it."""


class RetentionModel(Closed):
    versions: Annotated[int | None, Field(ge=1)] = None
    """How many of the newest versions `rat clean` keeps (default 10)."""
    days: Annotated[float | None, Field(ge=0)] = None
    """For how many days it keeps a version, however many there are (default 30)."""


class VarsFilesModel(Closed):
    files: Texts
    """YAML files of the workspace, each laid over the ones before; ${NAME:-default} chooses among them."""
    environment: Annotated[str, Field(pattern="^[A-Z][A-Z0-9_]*$")] | None = None
    """The start of the environment variables that override: with SHOP it is SHOP__QUALITY__COMPLETENESS=0.9."""


class WorkspaceModel(Closed):
    name: str | None = None
    """The workspace's name (default: its folder's)."""
    layers: Texts = ["bronze", "silver", "gold"]
    """The folders whose files are assets, lowest first."""
    lake: LakeModel = LakeModel()
    """Where tables are stored."""
    resources: ResourcesModel = ResourcesModel()
    """What a run may take from the machine."""
    env: Texts = []
    """The environment variables that templates may read. Secrets do not belong here."""
    vars: dict[str, Any] = {}
    """Values for {{ var('name') }}."""
    vars_files: dict[str, VarsFilesModel] = {}
    """Variables by name whose values are in files of their own: {{ var('name.section.key') }}."""
    sources: dict[str, NamedSourceModel] = {}
    """Landing files by name, for {{ source('name') }}."""
    environments: dict[str, EnvironmentModel] = {}
    """Other lakes of the same files, for rat --env NAME; what was not built there is read from the default lake."""
    databases: dict[str, DatabaseModel] = {}
    """Databases by name, for {{ source('name.table') }}; they are only read."""
    verify_every: Duration = 86_400.0
    """How often a table's files are compared with their checksums before they are read (default 1d)."""
    retention: RetentionModel = RetentionModel()
    """Which old versions `rat clean` keeps: those that either key keeps."""
    observe: ObserveModel = ObserveModel()
    """What counts as unusual in a run, and how long its history is kept."""
    alerts: AlertsModel = AlertsModel()
    """Who is told of what."""


class ColumnModel(Closed):
    type: str = ""
    """The DuckDB type that the column must have, like varchar or decimal(12,2)."""
    description: str = ""
    """What the column means; stored as the column's comment."""
    sensitive: bool = False
    """Whether values are masked in samples, quarantine pages and metadata."""
    checks: Annotated[list[Any], BeforeValidator(a_list), WithJsonSchema(column_checks_schema())] = []
    """The gates of this column."""


class FreshnessModel(Closed):
    warn_after: Duration | None = None
    """The age of the current version that is worth a warning: a minute or more."""
    error_after: Duration | None = None
    """The age that is an error; longer than warn_after."""

    @field_validator("warn_after", "error_after")
    @classmethod
    def _watched_by_the_minute(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and value < 60:
            raise ValueError("must be a minute (1m) or more")
        warn_after = info.data.get("warn_after")
        if info.field_name == "error_after" and value is not None and warn_after is not None and value <= warn_after:
            raise ValueError("must be longer than warn_after")
        return value


class TriggerModel(Closed):
    schedule: Annotated[str, BeforeValidator(_a_schedule)] | None = None
    """When it starts: a cron line, like 0 2 * * *, or hourly, daily, weekly, monthly, yearly."""
    files: str | None = None
    """Landing files whose arrival starts the asset, like landing/sales/*.csv or s3://bucket/inbox/*.csv."""
    upstream: Annotated[bool | None, Field(validate_default=True)] = None
    """true: it starts when an asset that it reads has a new version."""
    timezone: str | None = None
    """The schedule's time zone, like Europe/Paris (default UTC)."""
    status: Literal["running", "stopped"] | None = None
    """Whether it is on when it is first loaded (default stopped)."""

    @field_validator("files")
    @classmethod
    def _below_the_workspace(cls, value: str | None) -> str | None:
        path = PurePosixPath("landing" if value is None else value)
        if path.is_absolute() or ".." in path.parts or not path.name.strip():
            raise ValueError("write files of this workspace, relative to its root, like landing/sales/*.csv")
        return value

    @field_validator("files", "upstream")
    @classmethod
    def _one_of_three(cls, value: str | bool | None, info: ValidationInfo) -> str | bool | None:
        others = [name for name in ("schedule", "files") if name != info.field_name and info.data.get(name)]
        if value and others:
            raise ValueError(f"a trigger is one thing: write {others[0]} and {info.field_name} as two triggers")
        return value

    @field_validator("timezone")
    @classmethod
    def _of_a_schedule(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("schedule") is None and "schedule" in info.data:
            raise ValueError("only a schedule has a time zone")
        if value is not None and not _is_timezone(value):
            raise ValueError(f"there is no time zone '{value}'; write one like Europe/Paris")
        return value

    @field_validator("upstream")
    @classmethod
    def _at_least_one(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        given = {"schedule", "files"} - set(info.data)  # what is wrong is not there, and has its own problem
        if not value and not given and info.data["schedule"] is None and info.data["files"] is None:
            raise ValueError("a trigger says one of schedule: ..., files: ..., upstream: true")
        return value


def _is_timezone(name: str) -> bool:
    for known in (name, "Europe/Paris"):
        try:
            return ZoneInfo(known).key == name
        except (KeyError, OSError, ValueError):  # "not found" is a KeyError, a folder's name an OSError
            continue
    return True  # this machine knows no time zones at all


class RetriesModel(Closed):
    max: Annotated[int, Field(ge=0, le=100)] = 3
    """How often a step is tried again after a transient failure."""
    delay: Duration = 1.0
    """How long it waits before the first retry."""
    backoff: Literal["exponential", "constant"] = "exponential"
    """How the waiting grows."""


class ChunksModel(Closed):
    rows: Annotated[int, Field(ge=1)] | None = None
    """How many rows a chunk has (default: what takes a thirty-second of the profile's memory)."""


class VersionModel(Closed):
    sql: str | None = None
    """A query whose result changes when the data outside changes."""
    python: str | None = None
    """A function of the file whose result changes when the data outside changes."""
    files: str | None = None
    """Files that the asset reads by itself."""


class AssetModel(Closed):
    description: str = ""
    """What the table holds, and what one row is; stored as the table's comment."""
    materialize: Literal["table", "view", "append", "merge", "partition", "snapshot"] = "table"
    """How a new version is stored."""
    unique_key: Texts = []
    """The column or columns that identify a row; merge and snapshot need them."""
    updated_at: str = ""
    """Of a snapshot: the column that says since when a row is so. Without it: since the run that saw it first."""
    deletions: Literal["keep", "close", "remove"] = "keep"
    """What happens to a key that the query no longer gives. close, of a snapshot: its last state ends. remove, of a merge: its
    row goes, and only rows that differ are written."""
    partition_by: Texts = []
    """The columns by whose values the table's files are cut; materialize: partition replaces by them."""
    sort_by: Texts = []
    """The columns by which rows are ordered inside the files."""
    deduplicate: str = ""
    """An order, like updated_at desc: of the rows with one unique_key the first is kept."""
    columns: dict[str, Annotated[ColumnModel, BeforeValidator(_a_column)]] = {}
    """The columns by name."""
    checks: Annotated[dict[str, Any], WithJsonSchema(table_checks_schema())] = {}
    """The gates of the whole table, by name."""
    on_fail: Literal["block", "quarantine"] = "block"
    """What a failed gate does: keep the candidate out, or keep the bad rows out."""
    max_quarantine: Annotated[float, Field(ge=0, le=1)] = 0.05
    """The largest share of rows that may be kept out."""
    on_change: Literal["rebuild", "forward"] = "rebuild"
    """What an edited asset does with the rows that are there: rebuild them, or keep them and go on from here."""
    freshness: FreshnessModel | None = None
    """How old the current version may be."""
    triggers: list[TriggerModel] = []
    """What starts the asset."""
    chunks: ChunksModel = ChunksModel()
    """How context.chunks of a Python asset cuts its rows."""
    retries: RetriesModel = RetriesModel()
    """What happens after a transient failure."""
    owners: Texts = []
    """Who to ask: people or teams."""
    tags: Texts = []
    """Words to select by: tag:daily."""
    group: str = ""
    """The group (default: the pipeline)."""
    version: VersionModel | None = None
    """How an asset that reads something outside the lake says whether that changed."""
    refresh_every: Duration = 0.0
    """How long an asset that reads something outside the lake counts as fresh."""
    depends_on: Texts = []
    """Assets that it reads in a way that its code does not show."""
    sources: dict[str, NamedSourceModel] = {}
    """How its landing files are read, by their glob or by a name."""
    retention: RetentionModel = RetentionModel()
    """Which of its old versions `rat clean` keeps; a key that is left out is the workspace's."""
    export_as: str = ""
    """Where `rat export` puts it below its folder, like validated/pass/awards (default: its name)."""

    @field_validator("export_as")
    @classmethod
    def _below_the_folder(cls, value: str) -> str:
        path = PurePosixPath(value)
        if value and (path.is_absolute() or ".." in path.parts or str(path) != value or path.name.startswith(".")):
            raise ValueError("write a path below the folder of the export, like validated/pass/awards")
        return value


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas for editors: `workspace` for workspace.yaml, `asset` for sidecars."""
    start = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        "workspace": {**start, **WorkspaceModel.model_json_schema()},
        "asset": {**start, **AssetModel.model_json_schema()},
    }


M = TypeVar("M", bound=Closed)


def validated(model: type[M], document: Document) -> M | list[Problem]:
    """The document as a record, or every mistake in it at its place, in plain words."""
    if document.data is None:
        return model()
    if not isinstance(document.data, dict):
        return [document.place(()).problem("this must be a mapping: lines of `key: value`")]
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        return [_problem(model, document, dict(detail)) for detail in error.errors(include_url=False)]


def _problem(model: type[Closed], document: Document, detail: dict[str, Any]) -> Problem:
    path: Path = tuple(detail["loc"])
    kind = detail["type"]
    name = next((key for key in reversed(path) if isinstance(key, str)), "this")  # of an item: its list's
    if kind == "extra_forbidden":
        known = _known_keys(model, path[:-1])
        hint = near_miss(name, known).strip() or f"the keys are {', '.join(known)}"
        return document.place(path, key=True).problem(f"unknown key '{name}'", hint=hint)
    place = document.place(path)
    if kind == "literal_error":
        value = _value_at(document.data, path)
        allowed = str(detail["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        hint = f"{name} is one of {', '.join(allowed)}.{near_miss(str(value), allowed)}"
        return place.problem(f"'{value}' is not a value of {name}", hint=hint)
    if kind == "value_error":
        return place.problem(f"'{name}': {detail['ctx']['error']}")
    for prefix, sentence in _SENTENCES.items():
        if kind.startswith(prefix):
            return place.problem(f"'{name}' must be {sentence.format_map(detail.get('ctx') or {})}")
    return place.problem(f"'{name}': {detail['msg'].lower()}")


_SENTENCES = {
    "string": "text; put it in quotes",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "list": "a list: [a, b]",
    "dict": "a mapping: lines of `key: value`",
    "model": "a mapping: lines of `key: value`",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "at most {le}",
}


def _known_keys(model: type[Closed], path: Path) -> list[str]:
    current: Any = model
    for step in path:
        fields = current.model_fields if _is_model(current) else {}
        annotation = fields[step].annotation if step in fields else current
        current = next((part for part in _parts(annotation) if _is_model(part)), current)
    return list(current.model_fields) if _is_model(current) else []


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _is_model(annotation: Any) -> bool:
    return get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, Closed)


def _value_at(data: Any, path: Path) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):  # a step that names a branch of the model, not of the file
            continue
    return data
