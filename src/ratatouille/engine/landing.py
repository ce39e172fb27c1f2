"""Landing files: read each one exactly once, and account for every row in it.

stock       the files that match a source, compared with what the asset's current version came from
inspection  one pass over a file's bytes: checksum, header, number of records
reject      a row that cannot be read (wrong number of columns, a value that does not fit its type)
set aside   a file that cannot be trusted as a whole; it is reported, left where it is, and tried again
            when it changes

CSV is never sniffed: a sniffer that guesses wrong loses rows without a word. Names come from the header,
types from the source's `columns:` (text where there are none), and rows in = rows read + rejects is checked
against a count that does not come from the same reader.
"""

from __future__ import annotations

import codecs
import csv
import glob as globbing
import gzip
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from ratatouille.engine.nesting import refuse_deep
from ratatouille.errors import RatError, StepFailed
from ratatouille.lake import LandingFile, Session
from ratatouille.lake.quoting import ident, literal, text, texts
from ratatouille.lake.stage import glob_safe
from ratatouille.project.records import ORIGIN_COLUMNS, Source

_CHUNK = 1 << 22  # 4 MiB
_MAX_LINE = 10_000_000  # bytes of one CSV record; DuckDB's own limit is 2 MB
csv.field_size_limit(_MAX_LINE)  # of Python's reader, which counts again: its own is 128 KiB
_BUFFER = 32_000_000  # bytes; left alone it would be 16 of the longest lines
UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".filepart", "~")


@dataclass(frozen=True, slots=True)
class Stock:
    """Files of one source by what is known of them; paths relative to the workspace root."""

    fresh: tuple[str, ...] = ()  # never read by this asset
    changed: tuple[str, ...] = ()  # read before, with other content
    known: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()  # read before, not there any more
    aside: tuple[str, ...] = ()  # could not be read, and did not change since

    @property
    def to_read(self) -> tuple[str, ...]:
        return self.fresh + self.changed

    @property
    def all(self) -> tuple[str, ...]:
        """What a rebuild reads: files that were set aside get another chance."""
        return self.fresh + self.changed + self.known + self.aside


@dataclass(slots=True)
class Inspection:
    """What one pass over a file's bytes says. `records` is None where only the reader can count."""

    file: str
    source: Source
    bytes: int
    modified_ns: int
    sha256: str
    header: tuple[str, ...] = ()
    records: int | None = None
    rows_read: int = 0
    rejects: int = 0


@dataclass(slots=True)
class Landing:
    """What one step reads from landing files, and what became of it."""

    files: dict[str, Inspection] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)  # file -> reason
    reject_tables: list[str] = field(default_factory=list)


def take_stock(
    root: Path,
    sources: Iterable[Source],
    remembered: Iterable[LandingFile],
    set_aside: Mapping[str, tuple[int, int]],
) -> Stock:
    """Compare the files that match `sources` with what the asset remembers. Only touched files are hashed.

    `set_aside` holds (bytes, modification time) of files that could not be read.
    """
    memory = {file.file: file for file in remembered}
    found = {file: None for source in sources for file in matching_files(root, source.glob)}
    fresh, changed, known, aside = [], [], [], []
    for file in found:
        old = memory.get(file)
        status = os.stat(root / file)
        if set_aside.get(file) == (status.st_size, status.st_mtime_ns):
            aside.append(file)
            continue
        if old is None:
            fresh.append(file)
            continue
        same = (status.st_size, status.st_mtime_ns) == (old.bytes, old.modified_ns)
        if same or (
            status.st_size == old.bytes
            and _known_sha256(str(root / file), status.st_size, status.st_mtime_ns) == old.sha256
        ):
            known.append(file)
        else:
            changed.append(file)
    gone = [file for file in memory if file not in found]
    return Stock(tuple(fresh), tuple(changed), tuple(known), tuple(gone), tuple(aside))


def matching_files(root: Path, pattern: str) -> list[str]:
    """Files below `root` that match, sorted; hidden and unfinished ones and links out of `root` are left out."""
    found = []
    for name in globbing.glob(pattern, root_dir=root, recursive=True):
        path = root / name
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if hidden or name.endswith(UNFINISHED) or not path.is_file():
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            continue
        found.append(Path(name).as_posix())
    return sorted(found)


@lru_cache(maxsize=10_000)
def _known_sha256(path: str, size: int, modified_ns: int) -> str:
    """Of a file that was touched: one run asks several times."""
    return _sha256(Path(path))


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# One pass over the bytes


def inspect(root: Path, file: str, source: Source) -> Inspection:
    """Read a file once. Raises ValueError with the reason if it cannot be trusted as a whole."""
    path = root / file
    try:
        before = os.stat(path)
        inspection = Inspection(file, source, before.st_size, before.st_mtime_ns, "")
        if source.format == "csv":
            _inspect_csv(path, source, inspection)
        else:
            inspection.sha256 = _sha256(path)
            if before.st_size == 0:
                raise ValueError("the file is empty")
            if source.format == "json":
                _refuse_open_array(path)
                with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
                    refuse_deep(stream)  # type: ignore[arg-type]
        after = os.stat(path)
    except (OSError, EOFError, csv.Error) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ValueError("it changed while it was being read; it is still being written")
    return inspection


def _inspect_csv(path: Path, source: Source, inspection: Inspection) -> None:
    digest = hashlib.sha256()
    packed = path.suffix == ".gz"
    with open(path, "rb") as raw:
        if packed:
            # The checksum is of the file as it lies there, the count of what is in it.
            digest = hashlib.file_digest(raw, "sha256")
            raw.seek(0)
        stream: IO[bytes] = gzip.open(raw) if packed else raw  # type: ignore[assignment]
        records, open_quote, start = _count_records(stream, source.quote.encode(), None if packed else digest)
    inspection.sha256 = digest.hexdigest()
    if not start:
        raise ValueError("the file is empty")
    if open_quote:
        _explain_open_quote(path, source)
    inspection.header = _header(start, source) if source.header else ()
    inspection.records = max(0, records - (1 if source.header else 0))


def _refuse_open_array(path: Path) -> None:
    """DuckDB takes an array that ends after a comma for a whole one, and a file that is being written often does."""
    first, last = b"", b""
    with open(path, "rb") as raw:
        if path.suffix == ".gz":
            with gzip.open(raw) as stream:
                while chunk := stream.read(_CHUNK):
                    first, last = first or chunk.lstrip()[:1], chunk.rstrip()[-1:] or last
        else:
            first = raw.read(_CHUNK).lstrip()[:1]
            raw.seek(-min(_CHUNK, path.stat().st_size), os.SEEK_END)
            last = raw.read().rstrip()[-1:]
    if first == b"[" and last != b"]":
        raise ValueError("its array is not closed: the file is still being written, or was cut off")


def _count_records(stream: IO[bytes], quote: bytes, digest: Any) -> tuple[int, bool, bytes]:
    """Line ends outside quotes, whether a quote is left open, and the first bytes. All in C, per chunk."""
    newlines, inside, start, last = 0, False, b"", b""
    # Hashing lets go of the interpreter, so it runs beside the counting of the same chunk.
    with ThreadPoolExecutor(1, thread_name_prefix="checksum") as beside:
        hashed: Future[None] | None = None
        while chunk := stream.read(_CHUNK):
            if hashed is not None:
                hashed.result()
            if digest is not None:
                hashed = beside.submit(digest.update, chunk)
            start = start or chunk[:1_000_000]
            last = chunk[-1:]
            if quote and quote in chunk:
                parts = chunk.split(quote)
                outside = parts[1::2] if inside else parts[0::2]
                newlines += b"".join(outside).count(b"\n")
                inside ^= len(parts) % 2 == 0
            elif not inside:
                newlines += chunk.count(b"\n")
    return newlines + (1 if start and last != b"\n" else 0), inside, start


def _explain_open_quote(path: Path, source: Source) -> None:
    """A lone quote inside an unquoted value is harmless; one that is never closed swallows the rest."""
    with _text(path, source) as handle:
        reader = csv.reader(handle, delimiter=source.delimiter, quotechar=source.quote, strict=True)
        line = 0
        try:
            for _ in reader:
                line = reader.line_num
        except csv.Error as error:
            raise ValueError(f"a quote opened after line {line} is never closed ({error})") from error


def careful_count(path: Path, source: Source) -> int:
    """Records by Python's own CSV reader: slow, and independent of the one that loads the rows."""
    with _text(path, source) as handle:
        reader = csv.reader(handle, delimiter=source.delimiter, quotechar=source.quote)
        return sum(1 for record in reader if record) - (1 if source.header else 0)


def _text(path: Path, source: Source) -> io.TextIOWrapper:
    opened: Any = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")
    return io.TextIOWrapper(opened, encoding=source.encoding, errors="replace", newline="")


def _header(start: bytes, source: Source) -> tuple[str, ...]:
    start = start.removeprefix(codecs.BOM_UTF8)
    try:
        decoded = start.decode(source.encoding, errors="replace")
    except LookupError as error:
        raise ValueError(f"its encoding {source.encoding} is not known") from error
    names = next(csv.reader(io.StringIO(decoded, newline=""), delimiter=source.delimiter, quotechar=source.quote), [])
    names = [name.strip() for name in names]
    if any(not name for name in names):
        raise ValueError(f"column {names.index('') + 1} has no name in the header")
    lower = [name.lower() for name in names]
    twice = next((name for name in lower if lower.count(name) > 1), None)
    if twice:
        raise ValueError(f"the header names the column {twice} twice")
    reserved = next((name for name in lower if name in ORIGIN_COLUMNS), None)
    if reserved:
        raise ValueError(f"the header has a column {reserved}, a name that is added to every row")
    return tuple(names)


# The relation that an asset's SQL reads


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
    if source.format == "csv":
        selects = _csv_selects(root, landing, source, inspected)
    elif source.format == "json":
        selects = [_json_select(session, root, source, inspected, existing)]
    else:
        paths = _paths(root, inspected)
        selects = [f"select * from read_parquet([{paths}], union_by_name = true, filename = '_file')"]
    origin = (
        f"* exclude (_file), substr(_file, {len(str(root)) + 2}) as _file,"
        f" {literal(stamp[1])} as _loaded_at, {text(stamp[0])} as _run_id"
    )
    return f"(select {origin} from ({' union all by name '.join(selects)}))"


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


def _csv_selects(root: Path, landing: Landing, source: Source, inspected: Sequence[Inspection]) -> list[str]:
    """One read per distinct header: files with other columns, or in another order, are read by name."""
    by_header: dict[tuple[str, ...], list[Inspection]] = {}
    for one in inspected:
        by_header.setdefault(one.header, []).append(one)
    return [_csv_select(root, landing, source, header, group) for header, group in by_header.items()]


def _csv_select(
    root: Path, landing: Landing, source: Source, header: tuple[str, ...], group: Sequence[Inspection]
) -> str:
    declared = {name.lower(): (name, kind) for name, kind in source.columns}
    names = header or tuple(name for name, _ in source.columns)
    columns = {name: declared.get(name.lower(), (name, "VARCHAR")) for name in names}
    number = len(landing.reject_tables)
    landing.reject_tables.append(f"rejects_{number}")
    shape = ", ".join(f"{text(name)}: {text(kind)}" for name, (_, kind) in columns.items())
    options = [
        "auto_detect = false",
        f"header = {str(source.header).lower()}",
        f"delim = {text(source.delimiter)}",
        f"quote = {text(source.quote)}",
        f"escape = {text(source.quote)}",
        f"nullstr = {texts(source.nulls)}",
        f"encoding = {text(source.encoding)}",
        f"columns = {{{shape}}}",
        f"max_line_size = {_MAX_LINE}",
        f"buffer_size = {_BUFFER}",
        "store_rejects = true",
        "rejects_limit = 0",
        f"rejects_table = 'rejects_{number}'",
        f"rejects_scan = 'scans_{number}'",
        "filename = '_file'",
    ]
    if source.date_format:
        options.append(f"dateformat = {text(source.date_format)}")
    if source.timestamp_format:
        options.append(f"timestampformat = {text(source.timestamp_format)}")
    renamed = ", ".join(f"{ident(n)} as {ident(new)}" for n, (new, _) in columns.items())
    lacking = [name for name in source.optional if name.lower() not in {have.lower() for have in names}]
    renamed += "".join(f", cast(null as {declared[name.lower()][1]}) as {ident(name)}" for name in lacking)
    return f"select {renamed}, _file from read_csv([{_paths(root, group)}], {', '.join(options)})"


def absent_fields(session: Session, root: Path, one: Inspection, wanted: Sequence[str]) -> list[str]:
    """Those of `wanted` that no object of a JSON file has. None, if it has no objects or cannot be read."""
    if not wanted:
        return []
    objects = (
        f"read_json_objects([{_paths(root, [one])}], maximum_object_size = {_object_size([one])}, format = 'auto')"
    )
    keys = "select lower(unnest(json_keys(json))) as name from ({0})"
    try:
        # The first objects say it nearly always; all of them are looked at only for what those do not have.
        have = {
            name for (name,) in session.rows(f"select distinct name from ({keys.format(f'from {objects} limit 100')})")
        }
        absent = [name for name in wanted if name.lower() not in have]
        if have and absent:
            have |= {name for (name,) in session.rows(f"select distinct name from ({keys.format(f'from {objects}')})")}
    except RatError:
        return []  # the read itself will say what is wrong with the file
    return [name for name in absent if name.lower() not in have] if have else []


def _object_size(inspected: Sequence[Inspection]) -> int:
    """An array is one object to the reader, so its buffer must hold the largest file; gzip packs JSON about 20-fold."""
    largest = max(one.bytes * (20 if one.file.endswith(".gz") else 1) for one in inspected)
    return min(max(largest, 1 << 24), 1 << 31)


def _json_select(
    session: Session, root: Path, source: Source, inspected: Sequence[Inspection], existing: Mapping[str, str]
) -> str:
    """Types from all values of all files, found once; columns that the asset has already keep their types."""
    read = f"read_json([{_paths(root, inspected)}], maximum_object_size = {_object_size(inspected)}, filename = '_file'"
    found = session.describe(f"select * exclude (_file) from {read}, sample_size = -1, union_by_name = true)")
    if ("json", "JSON") in found and not session.rows(f"select 1 from {read}, format = 'auto') limit 1"):
        found = tuple(one for one in found if one[0] != "json")  # DuckDB's name for what an empty array holds
    wanted = {n: k for n, k in existing.items() if n not in ORIGIN_COLUMNS} | dict(source.columns)
    missing = {name: kind for name, kind in source.columns if name not in dict(found)}
    columns = {name: wanted.get(name, kind) for name, kind in found} | missing if found else wanted
    if not columns:
        raise _unknown_columns(source)
    shape = ", ".join(f"{text(name)}: {text(kind)}" for name, kind in columns.items())
    return f"select * from {read}, columns = {{{shape}}}, format = 'auto')"


def _paths(root: Path, inspected: Sequence[Inspection]) -> str:
    return ", ".join(text(glob_safe(str(root / one.file))) for one in inspected)


# After reading


def collect_rejects(session: Session, root: Path, landing: Landing) -> list[dict[str, Any]]:
    """Every row that could not be read: {file, line, reason, row}. Counts them on their files."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for table in landing.reject_tables:
        scans = table.replace("rejects_", "scans_")
        rows = session.rows(
            f"select file_path, line, first(error_message), any_value(csv_line)"
            f" from {table} join {scans} using (scan_id, file_id) group by all order by all"
        )
        for path, line, reason, raw in rows:
            file = Path(path).relative_to(root).as_posix()
            if (file, line) not in found:
                found[(file, line)] = {"file": file, "line": line, "reason": reason, "row": (raw or "").strip("\r\n")}
    for one in landing.files.values():
        one.rejects = sum(1 for file, _ in found if file == one.file)
    return list(found.values())


def forget_rejects(session: Session, landing: Landing) -> None:
    for table in landing.reject_tables:
        for name in (table, table.replace("rejects_", "scans_")):
            session.execute(f"drop table if exists {name}")
    landing.reject_tables.clear()


def unreadable_files(session: Session, root: Path, landing: Landing, selects: Mapping[str, str]) -> dict[str, str]:
    """After a read failed: which files it is, and why. `selects` holds a relation for each file alone."""
    reasons = {}
    for file, select in selects.items():
        try:
            session.execute(f"select count(columns(*)) from {select}").fetchall()
        except RatError as error:
            session.rollback()
            session.execute("begin transaction")
            reasons[file] = _plainly(error, root)
    return reasons


def _plainly(error: RatError, root: Path) -> str:
    message = getattr(error, "message", "") or error.what
    return message.replace(f"{root}/", "")


def count_from_footers(session: Session, root: Path, landing: Landing) -> None:
    """Parquet files say how many rows they hold."""
    waiting = [one for one in landing.files.values() if one.source.format == "parquet" and one.records is None]
    if waiting:
        found = session.rows(f"select file_name, num_rows from parquet_file_metadata([{_paths(root, waiting)}])")
        rows = {os.path.relpath(path, root): int(count) for path, count in found}
        for one in waiting:
            one.records = rows.get(one.file)


def unaccounted(root: Path, landing: Landing, read: Mapping[str, int]) -> dict[str, str]:
    """Files whose records are not all read or rejected, with the reason; sets `rows_read` on each file."""
    lost = {}
    for file, one in landing.files.items():
        one.rows_read = read.get(file, 0)
        if one.records is None or one.rows_read + one.rejects == one.records:
            continue
        try:
            records = careful_count(root / file, one.source)
        except csv.Error as error:
            lost[file] = f"its records cannot be counted: {error}"
            continue
        if one.rows_read + one.rejects != records:
            lost[file] = f"it holds {records} records, but {one.rows_read} were read and {one.rejects} rejected"
        one.records = records
    return lost
