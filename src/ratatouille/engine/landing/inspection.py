"""One pass over a landing file's bytes: checksum, header, number of records. It trusts no reader of rows."""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, Any

from ratatouille.engine.landing import objects
from ratatouille.engine.landing.nesting import refuse_deep
from ratatouille.project.records import ORIGIN_COLUMNS, Source

_CHUNK = 1 << 22  # 4 MiB
MAX_LINE = 10_000_000  # bytes of one CSV record; DuckDB's own limit is 2 MB
csv.field_size_limit(MAX_LINE)  # of Python's reader, which counts again: its own is 128 KiB


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


def sha256_of(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def inspect(root: Path, file: str, source: Source) -> Inspection:
    """Read a file once. Raises ValueError with the reason if it cannot be trusted as a whole."""
    try:
        path = objects.fetched(root, file)
        before = os.stat(path)
        inspection = Inspection(file, source, before.st_size, before.st_mtime_ns, "")
        if source.format == "csv":
            _inspect_csv(path, source, inspection)
        else:
            inspection.sha256 = sha256_of(path)
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
    return sum(1 for blank in _records(path, source) if not blank) - (1 if source.header else 0)


def blank_lines(path: Path, source: Source) -> list[int]:
    """Which records of a CSV file are empty lines, counted from 1; the reader of rows skips them."""
    if not _may_have_blank_lines(path, source):
        return []
    return [number for number, blank in enumerate(_records(path, source), 1) if blank]


def _may_have_blank_lines(path: Path, source: Source) -> bool:
    if path.suffix == ".gz" or source.encoding == "utf-16":
        return True
    with open(path, "rb") as raw, mmap(raw.fileno(), 0, access=ACCESS_READ) as bytes_of_it:
        return any(bytes_of_it.find(pair) >= 0 for pair in (b"\n\n", b"\n\r\n"))


def _records(path: Path, source: Source) -> Iterator[bool]:
    """For each record whether it is blank."""
    with _text(path, source) as handle:
        reader = csv.reader(handle, delimiter=source.delimiter, quotechar=source.quote)
        for record in reader:
            yield not record


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
    if any("\x00" in name for name in names):
        raise ValueError("a name in the header holds a NUL character")
    lower = [name.lower() for name in names]
    twice = next((name for name in lower if lower.count(name) > 1), None)
    if twice:
        raise ValueError(f"the header names the column {twice} twice")
    reserved = next((name for name in lower if name in ORIGIN_COLUMNS), None)
    if reserved:
        raise ValueError(f"the header has a column {reserved}, a name that is added to every row")
    return tuple(names)
