"""The SELECT over landing files that an asset's SQL reads, and which of their rows do not fit their types.

part    files that are read in one go, because they have the same columns
misfit  a row with a value that its declared type cannot say exactly (engine/fitting.py)

A misfit is left out of the relation, and a sequence of the session counts it while the rows stream by, so files
without any are read once. Where it counted, rejects.py reads again and says which rows they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from ratatouille.engine import fitting
from ratatouille.engine.evolve import fits_into
from ratatouille.engine.landing import objects
from ratatouille.engine.landing.inspection import MAX_LINE, Inspection
from ratatouille.errors import RatError, StepFailed
from ratatouille.lake import QueryFailed, Session
from ratatouille.lake.quoting import ident, literal, text, texts
from ratatouille.lake.stage import glob_safe
from ratatouille.lake.types import Columns, nested_fields
from ratatouille.project.records import ORIGIN_COLUMNS, Source
from ratatouille.project.sources import names_in_files, spelling

_BUFFER = 32_000_000  # bytes; left alone it would be 16 of the longest lines
MISFITS = "rat_misfits"  # a sequence, of this session alone: how many misfits streamed by


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file as it is read (`have`) and as it is wanted."""

    name: str
    read: str  # an expression over what the reader gives
    have: str
    want: str
    format: str = ""
    exact: bool = False  # a double that is read is what a text said
    found: str = ""  # what the files hold, where that is not `have`

    @property
    def raw(self) -> str:
        return ident(f"_raw:{self.name}")

    def fitted(self, raw: str) -> fitting.Fit | None:
        return fitting.fit(raw, ident(self.name), self.have, self.want, self.format, exact=self.exact)

    @property
    def is_read(self) -> bool:
        """Whether the files have it."""
        return not self.read.startswith("cast(")

    @property
    def is_guarded(self) -> bool:
        return self.fitted(self.raw) is not None

    @property
    def fits(self) -> str:
        found = self.fitted(self.raw)
        return f"({self.raw} is null or {found.fits})" if found else "true"


@dataclass(frozen=True, slots=True)
class Part:
    """Files of one source that are read in one go. `reader` makes the table function for some of them."""

    source: Source
    files: tuple[str, ...]
    reader: str  # with {paths}, {shape} and {options}
    columns: tuple[Column, ...]
    shape: str = ""
    text_shape: str = ""  # all columns as texts, of CSV
    options: str = ""
    skipping: str = ""  # instead of `options`, where nobody asks what cannot be read
    line: str = ""  # an expression over what the reader gives: the row's number in its file

    def rows(self, paths: str, *, more: str = "", skip: bool = False) -> str:
        """Every row, its values as they are wanted, and as they were read where that may say more.

        `skip`: what the reader cannot read is passed over instead of kept.
        """
        options = self.skipping if skip else self.options
        read = self.reader.format(paths=paths, shape=self.shape, options=options)
        return f"select {self.both}{more}, _file from {read}"

    @property
    def both(self) -> str:
        found = []
        for column in self.columns:
            fit = column.fitted(column.read)
            if fit is not None:
                found.append(f"{column.read} as {column.raw}, {fit.value} as {ident(column.name)}")
            elif column.have != column.want and column.want:
                found.append(f"cast({column.read} as {column.want}) as {ident(column.name)}")
            else:
                found.append(f"{column.read} as {ident(column.name)}")
        return ", ".join(found)

    @property
    def guarded(self) -> list[Column]:
        return [column for column in self.columns if column.is_guarded]

    def select(self, paths: str) -> str:
        if not self.guarded:
            return self.rows(paths)
        names = ", ".join(ident(column.name) for column in self.columns)
        fits = " and ".join(column.fits for column in self.guarded)
        # nextval is volatile, so the filter stays above the conversions and each is done once.
        keep = f"case when {fits} then true else nextval('{MISFITS}') < 0 end"
        return f"select {names}, _file from ({self.rows(paths)}) where {keep}"


@dataclass(slots=True)
class Landing:
    """What one step reads from landing files, and what became of it."""

    files: dict[str, Inspection] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)  # file -> reason
    reject_tables: list[str] = field(default_factory=list)
    broken_lines: dict[str, list[int]] = field(default_factory=dict)  # file -> records that are no rows at all
    parts: list[Part] = field(default_factory=list)  # those with a column whose values may not fit
    unread: dict[str, str] = field(default_factory=dict)  # fields inside columns that their types lack -> type


def relation(
    session: Session,
    root: Path,
    landing: Landing,
    source: Source,
    files: Sequence[str],
    existing: Mapping[str, str],
    stamp: tuple[str, datetime],
) -> str:
    """A parenthesised SELECT over `files`, with `_file`, `_loaded_at` and `_run_id` on every row.

    `existing` holds the types of the asset's current columns: JSON values are read as those. `stamp` is the
    run's id and its time.
    """
    inspected = [landing.files[file] for file in files if file in landing.files]
    if not inspected:
        return _nothing(source, existing)
    session.execute(f"create temp sequence if not exists {MISFITS}")
    declared = _as_described(session, source)
    if source.format == "csv":
        parts = _csv_parts(landing, source, inspected, declared)
    elif source.format == "json":
        parts = _json_parts(session, root, source, inspected, existing, declared)
    else:
        parts = [_parquet_part(session, root, source, inspected, declared)]
    landing.parts += [part for part in parts if part.guarded]
    for part in parts:
        for column in part.columns:
            landing.unread |= _lost_fields(column)
    selects = [part.select(paths(root, part.files)) for part in parts]
    origin = (
        f"* exclude (_file), {objects.name_sql(root, source.glob)} as _file,"
        f" {literal(stamp[1])} as _loaded_at, {text(stamp[0])} as _run_id"
    )
    return f"(select {origin} from ({' union all by name '.join(selects)}))"


def _lost_fields(column: Column) -> dict[str, str]:
    """The fields inside a column that its wanted type has no place for: a cast would drop them without a word."""
    if column.found == column.want or not (fitting.is_nested(column.found) and fitting.is_nested(column.want)):
        return {}
    place = {name.lower() for name in nested_fields(column.want)}
    return {f"{column.name}.{n}": kind for n, kind in nested_fields(column.found).items() if n.lower() not in place}


def _as_described(session: Session, source: Source) -> dict[str, str]:
    """The declared types as DuckDB spells them: `int` is INTEGER, `decimal` is DECIMAL(18,3)."""
    if not source.columns:
        return {}
    nulls = ", ".join(f"cast(null as {kind}) as {ident(name)}" for name, kind in source.columns)
    return dict(session.describe(f"select {nulls}"))


def _nothing(source: Source, existing: Mapping[str, str]) -> str:
    columns = dict(source.columns) or {n: k for n, k in existing.items() if n not in ORIGIN_COLUMNS}
    if not columns:
        raise _unknown_columns(source)
    columns |= {"_file": "VARCHAR", "_loaded_at": "TIMESTAMP", "_run_id": "VARCHAR"}
    empty = ", ".join(f"cast(null as {kind}) as {ident(name)}" for name, kind in columns.items())
    return f"(select {empty} where false)"


def _unknown_columns(source: Source) -> StepFailed:
    return StepFailed(
        f"no landing file with rows matches {source.glob}, so its columns are unknown",
        where=source.glob,
        state="Nothing was built.",
        next="put a file there, or declare the columns under `sources:` in the asset's YAML file",
    )


def _csv_parts(
    landing: Landing, source: Source, inspected: Sequence[Inspection], declared: Mapping[str, str]
) -> list[Part]:
    """One read per distinct header: files with other columns, or in another order, are read by name."""
    by_header: dict[tuple[str, ...], list[str]] = {}
    for one in inspected:
        by_header.setdefault(one.header, []).append(one.file)
    return [_csv_part(landing, source, header, files, declared) for header, files in by_header.items()]


def _csv_part(
    landing: Landing, source: Source, header: tuple[str, ...], files: Sequence[str], declared: Mapping[str, str]
) -> Part:
    meant = names_in_files(source)
    names = header or tuple(declared)
    formats = {"DATE": source.date_format} | dict.fromkeys(fitting.TIMESTAMPS, source.timestamp_format)
    columns = []
    for name in names:
        new = meant.get(spelling(source, name), name)
        kind = declared.get(new, "VARCHAR")
        columns.append(Column(new, ident(name), fitting.read_as(kind), kind, formats.get(kind) or "", exact=True))
    have = {column.name for column in columns}
    nulls = [_null(name, declared[name]) for name in source.optional if name not in have]
    number = len(landing.reject_tables)
    landing.reject_tables.append(f"rejects_{number}")
    options = [
        "store_rejects = true",
        "rejects_limit = 0",
        f"rejects_table = 'rejects_{number}'",
        f"rejects_scan = 'scans_{number}'",
    ]
    read = [
        "auto_detect = false",
        f"header = {str(source.header).lower()}",
        f"delim = {text(source.delimiter)}",
        f"quote = {text(source.quote)}",
        f"escape = {text(source.quote)}",
        f"nullstr = {texts(source.nulls)}",
        f"encoding = {text(source.encoding)}",
        f"max_line_size = {MAX_LINE}",
        f"buffer_size = {_BUFFER}",
        "filename = '_file'",
    ]
    shape = ", ".join(f"{text(name)}: {text(column.have)}" for name, column in zip(names, columns, strict=True))
    return Part(
        source,
        tuple(files),
        f"read_csv([{{paths}}], {_plain(', '.join(read))}, columns = {{{{{{shape}}}}}}, {{options}})",
        (*columns, *nulls),
        shape=shape,
        text_shape=", ".join(f"{text(name)}: 'VARCHAR'" for name in names),
        options=", ".join(options),
        skipping="ignore_errors = true",
    )


def _null(name: str, kind: str) -> Column:
    """A column that the files lack."""
    return Column(name, f"cast(null as {kind})", kind, kind)


def _plain(said: str) -> str:
    """Text that str.format leaves as it is."""
    return said.replace("{", "{{").replace("}", "}}")


def fields_of(session: Session, root: Path, one: Inspection, wanted: Sequence[str]) -> list[str]:
    """The fields of the objects of a JSON file, as far as it takes to find `wanted`. None, if it has no objects, or
    cannot be read: the read itself will say what is wrong."""
    objects = (
        f"read_json_objects([{paths(root, [one.file])}], maximum_object_size = {_object_size([one])}, format = 'auto')"
    )
    keys = "select distinct unnest(json_keys(json)) as name from ({0})"
    try:
        # The first objects say it nearly always; all of them are looked at only for what those do not have.
        have = [name for (name,) in session.rows(keys.format(f"from {objects} limit 100"))]
        found = {spelling(one.source, name) for name in have}
        meant = names_in_files(one.source)
        if have and not set(wanted) <= {meant.get(name) for name in found}:
            have = [name for (name,) in session.rows(keys.format(f"from {objects}"))]
    except RatError:
        return []
    return have


def _object_size(inspected: Sequence[Inspection]) -> int:
    """An array is one object to the reader, so its buffer must hold the largest file; gzip packs JSON about 20-fold."""
    largest = max(one.bytes * (20 if one.file.endswith(".gz") else 1) for one in inspected)
    return min(max(largest, 1 << 24), 1 << 31)


def _json_parts(
    session: Session,
    root: Path,
    source: Source,
    inspected: Sequence[Inspection],
    existing: Mapping[str, str],
    declared: Mapping[str, str],
) -> list[Part]:
    """One read; where files spell a field in different cases, one for each spelling.

    DuckDB calls the second spelling `Amount_1`, and then finds no such field in the files.
    """
    found = _json_fields(session, root, inspected)
    clashing = _spelled_twice(found)
    groups: dict[frozenset[str], list[Inspection]] = {}
    for one in inspected if clashing else ():
        its = _json_fields(session, root, [one])
        if twice := _spelled_twice(its):
            error = QueryFailed(
                f"it has fields whose names differ in case only: {', '.join(sorted(twice))}", where=one.file
            )
            error.message = error.what
            raise error
        groups.setdefault(frozenset(name for name, _ in its if name.lower() in clashing), []).append(one)
    if not clashing:
        return [_json_part(source, inspected, found, existing, declared)]
    return [_json_part(source, its, _json_fields(session, root, its), existing, declared) for its in groups.values()]


def _spelled_twice(found: Columns) -> set[str]:
    """Names, in lower case, that DuckDB has told apart by a number at the end."""
    names = {name for name, _ in found}
    lower = {name.lower() for name in names}
    bases = {name.rpartition("_")[0] for name in names if name.rpartition("_")[2].isdigit()}
    return {base.lower() for base in bases if base.lower() in lower and base not in names}


def _json_reader(inspected: Sequence[Inspection], files: str) -> str:
    return f"read_json([{files}], maximum_object_size = {_object_size(inspected)}, filename = '_file'"


def _json_fields(session: Session, root: Path, inspected: Sequence[Inspection]) -> Columns:
    """The fields of the objects, with types that hold all values of all files."""
    read = _json_reader(inspected, paths(root, [one.file for one in inspected]))
    found = session.describe(f"select * exclude (_file) from {read}, sample_size = -1, union_by_name = true)")
    if ("json", "JSON") in found and not session.rows(f"select 1 from {read}, format = 'auto') limit 1"):
        return tuple(one for one in found if one[0] != "json")  # DuckDB's name for what an empty array holds
    return tuple(found)


def _json_part(
    source: Source,
    inspected: Sequence[Inspection],
    found: Columns,
    existing: Mapping[str, str],
    declared: Mapping[str, str],
) -> Part:
    """Types from all values of all files, found once; columns that the asset has already keep their types."""
    wanted = {n: k for n, k in existing.items() if n not in ORIGIN_COLUMNS} | dict(declared)
    there = dict(found)
    meant = {name.lower(): name for name in wanted} | names_in_files(source)
    fields: dict[str, list[str]] = {}  # column -> what files call it
    for name in there:
        fields.setdefault(meant.get(spelling(source, name), name), []).append(name)
    missing = {name: kind for name, kind in declared.items() if name not in fields}
    types = {name: wanted.get(name, there[its[0]]) for name, its in fields.items()} | missing if found else wanted
    if not types:
        raise _unknown_columns(source)
    columns: list[Column] = []
    read_as: dict[str, str] = {}
    for name, kind in types.items():
        its = fields.get(name, [name])
        kinds = {there.get(field, kind) for field in its}
        column = _json_column(name, kinds.pop() if len(kinds) == 1 else "VARCHAR", kind)
        columns.append(replace(column, read=_first_of(its)))
        read_as |= dict.fromkeys(its, column.have)
    shape = ", ".join(f"{text(field)}: {text(kind)}" for field, kind in read_as.items())
    return Part(
        source,
        tuple(one.file for one in inspected),
        f"{_json_reader(inspected, '{paths}')}, columns = {{{{{{shape}}}}}}, format = 'auto')",
        tuple(columns),
        shape=shape,
    )


def _first_of(fields: Sequence[str]) -> str:
    """The value of a column that files call by several names."""
    names = ", ".join(ident(field) for field in fields)
    return names if len(fields) == 1 else f"coalesce({names})"


def _json_column(name: str, found: str, want: str) -> Column:
    """Read as wanted where all values that were found fit that, else as something that says what was written."""
    if found == want or fits_into(found, want) or not (fitting.is_guarded(want) or want in ("DOUBLE", "FLOAT")):
        have = want
    elif want in ("DOUBLE", "FLOAT"):
        have = want if fitting.is_number(found) else "VARCHAR"
    elif (fitting.is_whole(found) and fitting.is_whole(want)) or fitting.is_nested(want):
        have = found if not fitting.is_nested(want) or fitting.fit("x", "x", found, want) else want
    else:
        have = "VARCHAR"
    return Column(name, ident(name), have, want, found=found)


def _parquet_part(
    session: Session, root: Path, source: Source, inspected: Sequence[Inspection], declared: Mapping[str, str]
) -> Part:
    files = tuple(one.file for one in inspected)
    reader = "read_parquet([{paths}], union_by_name = true, filename = '_file'{options})"
    found = session.describe(f"select * exclude (_file) from {reader.format(paths=paths(root, files), options='')}")
    meant, fields = names_in_files(source), dict(found)
    spelled: dict[str, list[str]] = {}  # column -> what files call it
    for name in fields:
        spelled.setdefault(meant.get(spelling(source, name), name), []).append(name)
    columns = [
        Column(n, _first_of(its), kind := fields[its[0]], declared.get(n, kind), found=kind)
        for n, its in spelled.items()
    ]
    columns += [_null(name, kind) for name, kind in declared.items() if name not in spelled]
    return Part(source, files, reader, tuple(columns), skipping=", file_row_number = true", line="file_row_number + 1")


def paths(root: Path, files: Sequence[str]) -> str:
    return ", ".join(text(glob_safe(str(objects.path_of(root, file)))) for file in files)


def columns_of(session: Session, root: Path, one: Inspection) -> list[str]:
    """The columns of a Parquet file; those of an unreadable one say nothing, the read itself will."""
    try:
        return [name for name, _ in session.describe(f"select * from read_parquet([{paths(root, [one.file])}])")]
    except RatError:
        return [name for name, _ in one.source.columns]
