"""Files of extracted sessions: where they lie, how they come to be whole, and what the manifest says of them.

layout     where a session's files go: `year=2024/meeting=1237/session=9531/laps.json`, or the flat names of the document
aside      the hidden folder where a session gathers before it is visible; it survives a failure and a kill
part       what was fetched of one entity so far: chunks of rows and a log of the windows they came from
manifest   written last: what a session consists of, file by file, and whether it is complete

A file under its final name is always whole. A session is to be loaded when its manifest says `complete`.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Literal, get_args

from .openf1 import BadRequest, OpenF1Error, Row

Naming = Literal["session", "document"]
FORMAT = 1
COPY_BYTES = 1 << 20
PLURAL = {"location": "locations"}  # the document's file is called locations, the endpoint is not
ENRICHED = ("laps", "location")  # their rows carry session_name and batch_day, as the document's do

_flat = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
_indented = json.JSONEncoder(ensure_ascii=False, separators=(",\n    ", ": "), sort_keys=True).encode


@dataclass(frozen=True)
class Session:
    """A session as its row describes it. `batch_day`: the day it starts in UTC; `local_day`: at the circuit."""

    key: int
    meeting_key: int
    year: int
    name: str
    location: str
    start: datetime
    end: datetime
    cancelled: bool
    row: Row

    @property
    def batch_day(self) -> str:
        return self.start.date().isoformat()

    @property
    def local_day(self) -> str:
        return (self.start + _offset(self.row.get("gmt_offset"))).date().isoformat()

    @classmethod
    def of(cls, row: Row) -> Session:
        """Raises ValueError with the reason when the row has no usable keys or times."""
        keys = [row.get(name) for name in ("session_key", "meeting_key", "year")]
        for name, key in zip(("session_key", "meeting_key", "year"), keys, strict=True):
            # They become folder names, so nothing but a number may pass.
            if not isinstance(key, int) or isinstance(key, bool) or not 0 <= key < 10**9:
                raise ValueError(f"session {row.get('session_key')!r} has {name} {key!r}")
        times = [_utc(row.get(name)) for name in ("date_start", "date_end")]
        if times[0] is None or times[1] is None:
            raise ValueError(f"session {keys[0]} has no readable date_start and date_end")
        name, location = (str(row.get(column) or "Unknown") for column in ("session_name", "location"))
        cancelled = row.get("is_cancelled") is True
        return cls(keys[0], keys[1], keys[2], name, location, times[0], times[1], cancelled, row)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Windows:
    """How the fetching went: windows with rows, without, failed, and how often one had to be halved."""

    fetched: int = 0
    empty: int = 0
    failed: int = 0
    split: int = 0
    resumed: int = 0  # of fetched and empty: those that an earlier attempt had brought

    def plus(self, other: Windows) -> Windows:
        """The sums."""
        return Windows(*(mine + theirs for mine, theirs in zip(self.counts(), other.counts(), strict=True)))

    def counts(self) -> tuple[int, ...]:
        return self.fetched, self.empty, self.failed, self.split, self.resumed


@dataclass(frozen=True)
class EntityFile:
    """What a manifest says of one entity. `file` and `sha256` are None when the API has no rows. Times in seconds."""

    rows: int
    file: str | None
    bytes: int
    sha256: str | None
    extracted_at: str
    api_s: float
    requests: int
    retries: int
    windows: Windows


@dataclass(frozen=True)
class Manifest:
    """A session on disk. `complete` False: do not load; a rerun goes on. `missing`: entities or windows not there yet."""

    session_key: int
    meeting_key: int
    year: int
    session_name: str
    location: str
    batch_day: str
    local_day: str
    date_start: str
    date_end: str
    complete: bool
    written_at: str
    naming: Naming
    entities: Mapping[str, EntityFile] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True)
class Layout:
    """Where things lie below `root`."""

    root: Path
    naming: Naming = "session"
    compressed: bool = False

    def home(self, session: Session) -> Path:
        """The folder of a session's data files."""
        if self.naming == "document":
            return self.root
        return self.root / f"year={session.year}" / f"meeting={session.meeting_key}" / f"session={session.key}"

    def aside(self, session: Session) -> Path:
        """The hidden folder where it gathers, on the same disk, so that a rename is enough."""
        return self.root / ".aside" / f"session={session.key}"

    def manifest(self, session: Session) -> Path:
        """In the document's layout the manifests hide, so that *.json finds data only."""
        if self.naming == "document":
            return self.root / ".manifests" / f"session={session.key}.json"
        return self.home(session) / "manifest.json"

    def file(self, session: Session, entity: str) -> Path:
        """`laps.json`, or `laps_2024-06-09_Montréal_Race.json`."""
        ending = ".json.gz" if self.compressed else ".json"
        if self.naming == "document":
            words = (PLURAL.get(entity, entity), session.batch_day, _word(session.location), _word(session.name))
            return self.root / ("_".join(words) + ending)
        return self.home(session) / f"{entity}{ending}"


def manifests(root: Path) -> Iterator[tuple[Path, Manifest]]:
    """(folder of the data files, manifest) of every session below `root`, in either layout, by session key.

    Raises OpenF1Error for a manifest that cannot be read.
    """
    found = [(path.parent, read_manifest(path)) for path in root.glob("year=*/meeting=*/session=*/manifest.json")]
    found += [(root, read_manifest(path)) for path in root.glob(".manifests/session=*.json")]
    yield from sorted(
        ((home, manifest) for home, manifest in found if manifest), key=lambda pair: (pair[1].session_key, str(pair[0]))
    )


def read_manifest(path: Path) -> Manifest | None:
    """None when there is none. Raises OpenF1Error when it is damaged or newer than this code."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}")
        entities = {
            name: EntityFile(**{**entry, "windows": Windows(**entry["windows"])})
            for name, entry in found["entities"].items()
        }
        return Manifest(**{**found, "entities": entities, "missing": tuple(found["missing"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise OpenF1Error(
            f"The manifest cannot be read: {error}.",
            where=str(path),
            state="The session's files are as they were.",
            next="Remove the manifest and extract the session again.",
        ) from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Aside, to the disk, then renamed."""
    text = json.dumps(asdict(manifest), ensure_ascii=False, indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    with aside.open("wb") as file:
        file.write(text.encode("utf-8", errors="replace"))
        _to_disk(file)
    os.replace(aside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Renames and removals in `folder` are on the disk after this."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """One extraction at a time in a folder. The lock goes with the process, however that ends.

    Raises OpenF1Error when another one is at work.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OpenF1Error(
                "Another extraction is at work in this folder.",
                where=str(root),
                next="Wait until it is done, or give another folder.",
            ) from error
        yield


def chunk_of(rows: Sequence[Row], key: Sequence[str], naming: Naming, more: Mapping[str, Any] | None = None) -> bytes:
    """The text of rows between the brackets of a JSON array, sorted, so that equal rows are equal bytes.

    `key`: the columns to sort by; `more`: columns added to each row.
    """
    encode = _indented if naming == "document" else _flat
    if more:
        rows = [{**row, **more} for row in rows]
    texts = [encode(row) for row in rows]
    try:
        pairs = sorted(zip(map(itemgetter(*key), rows), texts, strict=True))
    except (KeyError, TypeError):  # a column is missing, or null here and a number there
        pairs = sorted(zip(([rank_of(row.get(name)) for name in key] for row in rows), texts, strict=True))
    ordered = (text for _, text in pairs)
    joined = (
        ",\n".join(f"  {{\n    {text[1:-1]}\n  }}" for text in ordered) if naming == "document" else ",\n".join(ordered)
    )
    return joined.encode("utf-8", errors="replace")  # JSON may spell half a character; UTF-8 cannot


def rank_of(value: Any) -> tuple[int, float, str]:
    """Sorts null before numbers before text, where a column holds all of them."""
    if value is None:
        return 0, 0, ""
    return (1, value, "") if isinstance(value, int | float) else (2, 0, str(value))


@dataclass(frozen=True)
class Piece:
    """One window in a part: its bytes, its rows, and what it cost."""

    id: str
    begin: int
    end: int
    rows: int
    crc: int
    api_s: float
    requests: int
    retries: int
    splits: int


class Part:
    """What was fetched of one entity, in windows that may come in any order and over several attempts."""

    def __init__(self, folder: Path, entity: str) -> None:
        self._bytes_path, self._log_path = folder / f"{entity}.part", folder / f"{entity}.windows"
        self.pieces: dict[str, Piece] = {}
        self._bytes = self._bytes_path.open("a+b")
        self._take_up()
        self.resumed = len(self.pieces)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        self._bytes.close()

    def _take_up(self) -> None:
        """Keep what an earlier attempt wrote whole, drop what broke off: the log may be ahead of the bytes."""
        logged = self._log_path.read_bytes().splitlines() if self._log_path.exists() else []
        kept, end = [], 0
        for line in logged:
            try:
                piece = Piece(**json.loads(line))
            except (ValueError, TypeError):
                break
            self._bytes.seek(piece.begin)
            if piece.begin != end or zlib.crc32(self._bytes.read(piece.end - piece.begin)) != piece.crc:
                break
            self.pieces[piece.id], end = piece, piece.end
            kept.append(line + b"\n")
        self._bytes.truncate(end)
        self._bytes.seek(end)
        self._log_path.write_bytes(b"".join(kept))

    def add(self, id: str, chunk: bytes, *, rows: int, api_s: float, requests: int, retries: int, splits: int) -> None:
        """A window's rows, then the line that says so."""
        begin = self._bytes.tell()
        self._bytes.write(chunk)
        self._bytes.flush()
        crc = zlib.crc32(chunk)
        piece = Piece(id, begin, begin + len(chunk), rows, crc, round(api_s, 4), requests, retries, splits)
        with self._log_path.open("ab") as log:
            log.write(json.dumps(asdict(piece)).encode() + b"\n")
        self.pieces[id] = piece

    def assemble(self, order: Iterable[str], target: Path) -> tuple[int, str]:
        """The windows in `order` as one JSON array in `target`, on the disk. Returns its bytes and sha256."""
        pieces = [self.pieces[id] for id in order if self.pieces[id].rows]
        with target.open("wb") as raw:
            counting = _Counting(raw)
            packed = gzip.GzipFile("", "wb", 6, counting, mtime=0) if target.suffix == ".gz" else None
            write: Callable[[bytes], object] = packed.write if packed else counting.write
            for index, piece in enumerate(pieces):
                write(b",\n" if index else b"[\n")
                self._bytes.seek(piece.begin)
                left = piece.end - piece.begin
                while left:
                    copied = self._bytes.read(min(left, COPY_BYTES))
                    write(copied)
                    left -= len(copied)
            write(b"\n]\n")
            if packed:
                packed.close()
            _to_disk(raw)
        self._bytes.seek(0, os.SEEK_END)
        return counting.size, counting.digest.hexdigest()


class _Counting(io.RawIOBase):
    """Counts and hashes what passes to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)


def start_aside(folder: Path, conditions: Mapping[str, Any], *, now: datetime, lasts: timedelta) -> datetime:
    """The aside folder of a session, new, or the one of an earlier attempt under the same conditions.

    Returns when the attempt began whose windows are in it: what it holds is as old as that.
    """
    note = folder / "attempt.json"
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        began = datetime.fromisoformat(found.pop("began_at"))
        if found == dict(conditions) and timedelta(0) <= now - began < lasts:
            return began
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    note.write_text(json.dumps({**conditions, "began_at": now.isoformat()}), encoding="utf-8")
    return now


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _word(text: str) -> str:
    """A part of a file name: blanks become underscores; nothing leaves the folder or is too long."""
    kept = "".join(sign if sign.isprintable() and sign not in '/\\:*?"<>|' else "_" for sign in text.strip())
    kept = unicodedata.normalize("NFC", kept).replace(" ", "_")
    return kept.encode("utf-8", errors="replace")[:60].decode("utf-8", errors="ignore") or "Unknown"


def _utc(text: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(text).strip())
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _offset(text: object) -> timedelta:
    """`-04:00:00` as a span of time; 0 when it cannot be read."""
    sign, digits = (-1, str(text)[1:]) if str(text).startswith("-") else (1, str(text))
    try:
        hours, minutes = digits.split(":")[:2]
        return sign * timedelta(hours=int(hours), minutes=int(minutes))
    except ValueError:
        return timedelta(0)


def checked_naming(naming: str) -> Naming:
    """Raises BadRequest for another word."""
    for known in get_args(Naming):
        if naming == known:
            return known  # type: ignore[no-any-return]
    raise BadRequest(f"There is no naming {naming!r}.", next="Use 'session' or 'document'.")
