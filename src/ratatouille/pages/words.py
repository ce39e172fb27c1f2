"""Words: addresses of pages, and how numbers, sizes, times and values look on them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

LONGEST_CELL = 300


# Addresses


def asset_href(name: str, tab: str = "", **more: Any) -> str:
    """The page of an asset, whatever characters its name holds."""
    return f"/asset/{quote(name, safe='')}{_query({'tab': tab, **more})}"


def run_href(run_id: str) -> str:
    return f"/run/{quote(run_id, safe='')}"


def dagster_href(address: str, path: str) -> str:
    return f"{address}/{quote(path, safe='/')}"


def overview_href(only: Any, **other: Any) -> str:
    """The overview with the same filter, but for what is said otherwise."""
    return f"/{_query({'find': only.find, 'layer': only.layer, 'health': only.health, **other})}"


def _query(said: Mapping[str, Any]) -> str:
    words = [f"{quote(name, safe='')}={quote(str(value), safe='')}" for name, value in said.items() if value != ""]
    return f"?{'&'.join(words)}" if words else ""


# How things look


def count(value: float | None) -> str:
    return "" if value is None else f"{round(value):,}"


def seconds(value: float | None) -> str:
    """0.42 s, 12.3 s, 4 min 05 s, 2 h 03 min."""
    if value is None:
        return ""
    if value < 100:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def size(value: float | None) -> str:
    if value is None:
        return ""
    left = float(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if left < 1000 or unit == "TB":
            return f"{left:.0f} {unit}" if unit == "B" or left >= 100 else f"{left:.1f} {unit}"
        left /= 1000
    return ""


def share(value: float | None) -> str:
    """0.0312 as 3.1 %."""
    return (
        ""
        if value is None
        else f"{value:.0%}".replace("%", " %")
        if value >= 0.1
        else f"{value:.1%}".replace("%", " %")
    )


def when(value: datetime | float | None) -> str:
    """A time in UTC, to the second."""
    moment = as_utc(value)
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def stamp(value: datetime | float | None) -> str:
    """The same for programs: an attribute datetime."""
    moment = as_utc(value)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else ""


def ago(value: datetime | float | None) -> str:
    """3 minutes ago, by the clock of now."""
    moment = as_utc(value)
    if moment is None:
        return ""
    age = (datetime.now(UTC) - moment).total_seconds()
    return "just now" if age < 5 else f"{in_words(age)} ago"


def in_words(age: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if age >= length:
            number = int(age // length)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{int(age)} s"


def as_utc(value: datetime | float | None) -> datetime | None:
    """Times of the ledger are UTC without saying so; those of the journal are seconds since 1970."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return datetime.fromtimestamp(value, UTC)


def cell(value: Any) -> str:
    """A value of a table on a page: control characters shown, nothing endless."""
    said = value if isinstance(value, str) else str(value)
    if not said.isprintable():
        said = "".join(one if one.isprintable() else _visible(one) for one in said[: LONGEST_CELL + 1])
    return said if len(said) <= LONGEST_CELL else f"{said[:LONGEST_CELL]}…"


def _visible(character: str) -> str:
    """Also of marks that turn the reading direction: what follows must stay where it is."""
    known = {"\n": "⏎", "\r": "␍", "\t": "⇥", "\u00a0": " "}
    return known.get(character) or f"\\u{ord(character):04x}"


def plural(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
