"""Which rows a query of OpenF1 means: operators, ranges, repeated fields, lenient dates, `latest`.

source      where rows come from: a generated season, or folders of files
condition   (field, operator, text) as it stood in the query string
"""

from __future__ import annotations

import gzip
import json
import operator
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote_plus

import polars as pl

from .season import ENDPOINTS
from .telemetry import TELEMETRY

Row = dict[str, Any]
Condition = tuple[str, str, str]
_CONDITION = re.compile(r"([^<>=]+)(>=|<=|>|<|=)(.*)", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_FILE = re.compile(r"(?P<endpoint>[a-z_]+)_(?P<key>\d+)\.(?P<kind>json|json\.gz|parquet)")


class Source(Protocol):
    """Rows by endpoint; telemetry by session as a frame sorted by driver and time."""

    def rows(self, endpoint: str) -> list[Row]: ...
    def telemetry(self, endpoint: str, session_key: int) -> pl.DataFrame: ...


class Folders:
    """Real rows: files named `<endpoint>_<session_key>.json`, `.json.gz` or `.parquet` in folders and those below."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._files: dict[tuple[str, int], Path] = {}
        for folder in folders:
            for path in sorted(folder.resolve(strict=True).rglob("*")):
                name = _FILE.fullmatch(path.name)
                if name and name["endpoint"] in ENDPOINTS and path.is_file():
                    # The first folder wins: one session may lie there twice, plain and compressed.
                    self._files.setdefault((name["endpoint"], int(name["key"])), path)
        self._rows: dict[str, list[Row]] = {}
        self._frames: dict[tuple[str, int], pl.DataFrame] = {}
        self._lock = threading.Lock()

    def rows(self, endpoint: str) -> list[Row]:
        """All rows of an endpoint, as they stand in the files."""
        with self._lock:
            if endpoint not in self._rows:
                files = [path for (name, _), path in self._files.items() if name == endpoint]
                self._rows[endpoint] = [row for path in files for row in _json(path)]
            return self._rows[endpoint]

    def telemetry(self, endpoint: str, session_key: int) -> pl.DataFrame:
        """One session's points. Raises KeyError when there is no file of it."""
        path = self._files[endpoint, session_key]
        with self._lock:
            if (endpoint, session_key) not in self._frames:
                frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.DataFrame(_json(path))
                if frame.schema["date"] != pl.String:
                    text = pl.col("date").dt.to_string("%Y-%m-%dT%H:%M:%S%.6f+00:00")
                    frame = frame.with_columns(date=text.str.replace(".000000+", "+", literal=True))
                self._frames[endpoint, session_key] = frame.sort("driver_number", "date")
            return self._frames[endpoint, session_key]


def _json(path: Path) -> list[Row]:
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as file:
        rows: list[Row] = json.load(file)
    return rows


def conditions_of(query: str) -> list[Condition]:
    """`a=1&date>=2024` -> [("a", "=", "1"), ("date", ">=", "2024")]. Field names are lower-cased."""
    found = []
    for part in query.split("&"):
        # A plus sign means a blank, so `+00:00` arrives broken, as it does at the real API.
        if match := _CONDITION.fullmatch(unquote_plus(part)):
            found.append((match[1].strip().lower(), match[2], match[3]))
    return found


def matching(
    source: Source, endpoint: str, conditions: Sequence[Condition], *, now: datetime
) -> tuple[list[Row], pl.DataFrame | None] | None:
    """(rows, None), or ([], frame) for telemetry; None when there is no such endpoint. An unknown field matches nothing."""
    if endpoint not in ENDPOINTS:
        return None
    conditions = [_latest(source, condition, now) for condition in conditions]
    if endpoint not in TELEMETRY:
        rows = source.rows(endpoint)
        for test in _tests(conditions):
            rows = [row for row in rows if test(row)]
        return sorted(rows, key=_order), None
    return [], _points(source, endpoint, conditions)


def _latest(source: Source, condition: Condition, now: datetime) -> Condition:
    """`session_key=latest` is the session that runs or has run last."""
    name, sign, text = condition
    if name not in ("session_key", "meeting_key") or text != "latest":
        return condition
    begun = [row for row in source.rows("sessions") if datetime.fromisoformat(row["date_start"]) <= now]
    last = max(begun, key=lambda row: datetime.fromisoformat(row["date_start"]), default=None)
    return name, sign, str(last[name]) if last else ""


def _order(row: Row) -> tuple[str, list[int]]:
    keys = (row.get(name) for name in ("meeting_key", "session_key", "position"))
    return str(row.get("date_start") or ""), [key if isinstance(key, int) else 0 for key in keys]


def _tests(conditions: Sequence[Condition]) -> list[Callable[[Row], bool]]:
    """One test per condition, and one for all `=` of the same field: they mean or."""
    equal: dict[str, list[str]] = {}
    tests: list[Callable[[Row], bool]] = []
    for name, sign, text in conditions:
        if sign == "=":
            equal.setdefault(name, []).append(text)
        else:
            tests.append(lambda row, name=name, sign=sign, text=text: _holds(row.get(name), sign, text))  # type: ignore[misc]
    for name, texts in equal.items():
        tests.append(lambda row, name=name, texts=texts: any(_holds(row.get(name), "=", text) for text in texts))  # type: ignore[misc]
    return tests


def _holds(value: Any, sign: str, text: str) -> bool:
    """Whether a value of a row meets `sign text`. Nothing compares with null or with a list."""
    if value is None or isinstance(value, list | dict):
        return False
    if isinstance(value, bool):
        return sign == "=" and text.strip().lower() == str(value).lower()
    if isinstance(value, int | float):
        try:
            return _COMPARE[sign](value, float(text))
        except ValueError:
            return False
    if (at := _time(value)) and (span := _span(text)):
        return _within(at, sign, span)
    return _COMPARE[sign](value, text)


def _time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _span(text: str) -> tuple[datetime, datetime] | None:
    """A bare day means all of it; anything finer means that moment."""
    at = _time(text)
    if at is None:
        return None
    return (at, at + timedelta(days=1)) if _DAY.fullmatch(text.strip()) else (at, at + timedelta(microseconds=1))


def _within(at: datetime, sign: str, span: tuple[datetime, datetime]) -> bool:
    begin, end = span
    return {">=": at >= begin, ">": at >= end, "<=": at < end, "<": at < begin, "=": begin <= at < end}[sign]


def _points(source: Source, endpoint: str, conditions: Sequence[Condition]) -> pl.DataFrame:
    """Telemetry that meets the conditions. Whole columns are compared: a session has half a million points."""
    keyed = [one for one in conditions if one[0] in ("session_key", "meeting_key")]
    sessions = source.rows("sessions")
    for test in _tests(keyed):
        sessions = [row for row in sessions if test(row)]
    frames = []
    for row in sessions:
        try:
            frame = source.telemetry(endpoint, row["session_key"])
        except KeyError:
            continue  # that session has none
        frames.append(_filtered(frame, [one for one in conditions if one not in keyed]))
    return pl.concat(frames) if frames else pl.DataFrame()


def _filtered(frame: pl.DataFrame, conditions: Sequence[Condition]) -> pl.DataFrame:
    equal: dict[str, pl.Expr] = {}
    # Equal first: reading the times of one driver is a twentieth of the work.
    for name, sign, text in sorted(conditions, key=lambda one: one[1] != "="):
        if name not in frame.columns:
            return frame.clear()
        test = _expression(frame.schema[name], name, sign, text)
        if sign == "=":
            equal[name] = equal[name] | test if name in equal else test
        else:
            frame = (frame.filter(*equal.values()) if equal else frame).filter(test)
            equal = {}
    return frame.filter(*equal.values()) if equal else frame


def _expression(kind: pl.DataType, name: str, sign: str, text: str) -> pl.Expr:
    column = pl.col(name)
    if kind != pl.String:
        try:
            return _COMPARE[sign](column, float(text))  # type: ignore[return-value]
        except ValueError:
            return pl.lit(False)
    span = _span(text)
    if span is None:
        return _COMPARE[sign](column, text)  # type: ignore[return-value]
    at = column.str.to_datetime(time_zone="UTC", time_unit="us", strict=False)
    begin, end = pl.lit(span[0]), pl.lit(span[1])
    tests = {">=": at >= begin, ">": at >= end, "<=": at < end, "<": at < begin}
    return tests.get(sign, (at >= begin) & (at < end))
