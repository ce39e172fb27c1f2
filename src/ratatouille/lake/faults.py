"""DuckDB's exceptions as errors a person can act on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratatouille.errors import LakeError, RatError, StepFailed, TransientError

_TRANSIENT = re.compile(
    r"database is locked|Could not set lock|Transaction conflict|Connection refused|Timeout was reached"
    r"|could not connect|unable to connect|server closed the connection|terminating connection|no connection to the server"
    r"|could not (?:receive|send) data|database system is (?:starting|shutting|in recovery)|connection .*(?:reset|lost)"
    # A server gives a reason. Where there is none, the connection had ended before.
    r"|Failed to [^\"]{1,40}\"[\s\S]*\": *\Z|HTTP.*(?:50[0234]|429)|Server sent no data|Failure when receiving",
    re.IGNORECASE,
)
_FULL = re.compile(r"No space left on device|database or disk is full|disk quota", re.IGNORECASE)
_READ_ONLY = re.compile(
    r"Permission denied|Read-only file system|attempt to write a readonly database|read-only mode|unable to open database file",
    re.IGNORECASE,
)
_MISSING_FILE = re.compile(r"(?:file|pattern) \"([^\"\n]+)\"", re.IGNORECASE)
_POSITION = re.compile(r"^LINE (\d+): ?(.*)\n( *)\^", re.MULTILINE)
_FAILED_TO_ALLOCATE = re.compile(r"failed to allocate|could not allocate|failed to (?:pin|offload)", re.IGNORECASE)


class QueryFailed(StepFailed):
    """SQL that DuckDB refused. `line` counts from 1 in the SQL that was run, 0 if unknown."""

    line = 0
    column = 0
    message = ""


# What DuckDB says of a Parquet file that is not what it was.
_DAMAGED = re.compile(r"TProtocolException|No magic bytes|Parquet|Snappy|ZSTD|footer", re.IGNORECASE)


def explain(error: Exception, doing: str, *, next: str = "", folder: Path | None = None) -> RatError:
    """The error that a person should see for a DuckDB, SQLite or OS exception raised while `doing` something.

    `folder` is looked at when SQLite says no more than "disk I/O error".
    """
    if isinstance(error, RatError):
        return error
    import duckdb

    text = first_line(error)
    if "disk I/O error" in text:
        if folder is not None and not has_room(folder):
            text = f"No space left on device: {folder}"
        else:
            return LakeError(f"{doing}: {text}", where=str(folder or "the disk"), next=next or "check the disk")
    if isinstance(error, duckdb.OutOfMemoryException) or _FAILED_TO_ALLOCATE.search(text):
        return LakeError(
            f"{doing}: the memory limit was reached: {text}",
            where="resources: in workspace.yaml",
            next=next or "raise `memory:` or lower `threads:` under `resources:`, then run the same command again",
        )
    if _FULL.search(str(error)) or _FULL.search(text):
        return LakeError(
            f"{doing}: the disk is full",
            where=text,
            next=next or "free some space, then run the same command again; finished assets are not rebuilt",
        )
    if _READ_ONLY.search(str(error)):
        return LakeError(
            f"{doing}: the folder cannot be written to",
            where=text,
            next=next or "make the workspace writable for this user, then run the same command again",
        )
    if _TRANSIENT.search(str(error)):
        return TransientError(f"{doing}: {text}", where="the lake", next=next or "run the same command again")
    if isinstance(error, duckdb.Error):
        return _query_failed(error, text, doing, next)
    where = str(getattr(error, "filename", "") or type(error).__name__)
    if isinstance(error, FileExistsError | NotADirectoryError):
        text = "a file stands where a folder is needed"
        next = next or "move the file away, then run the same command again"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return LakeError(f"{doing}: {text}", where=where, next=next or "run the same command again")


@contextmanager
def plainly(doing: str) -> Iterator[None]:
    """What the operating system refuses within is told in four lines."""
    try:
        yield
    except OSError as error:
        raise explain(error, doing) from error


def has_room(folder: Path) -> bool:
    """Whether the folder's disk has the megabyte free that SQLite may need beside its file."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize > 1 << 20


def can_be_written(folder: Path) -> bool:
    """Whether this user may write in the folder, on a disk that is neither read-only nor full."""
    return os.access(folder, os.W_OK) and has_room(folder) and not os.statvfs(folder).f_flag & os.ST_RDONLY


def _query_failed(error: Exception, text: str, doing: str, next: str) -> RatError:
    import duckdb

    full = str(error)
    failed = QueryFailed(f"{doing}: {text}", where=f"while {doing}", next=next or _next_for(full))
    if isinstance(error, duckdb.IOException):
        named = _MISSING_FILE.search(text)
        failed.where = named.group(1) if named else "the disk"
        failed.next = next or "check the disk, then run the same command again"
    position = _POSITION.search(full)
    if position:
        failed.line = int(position.group(1))
        shown, caret = position.group(2), max(0, len(position.group(3)) - len(f"LINE {position.group(1)}: "))
        failed.column = caret + 1
        failed.where = f"line {failed.line} of the SQL that was run:\n    {shown}\n    {' ' * caret}^"
    failed.message = text
    return failed


def _next_for(message: str) -> str:
    """Which command helps with a query that failed."""
    if "does not exist" in message:
        return "see what there is: rat show"
    if _DAMAGED.search(message):
        return "see which file is damaged: rat verify"
    return "mend the query, then run the same command again"


def first_line(error: Exception) -> str:
    """The message without DuckDB's position lines, on one line, with its hint."""
    text = _POSITION.split(str(error), maxsplit=1)[0] if _POSITION.search(str(error)) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines)[:600]
