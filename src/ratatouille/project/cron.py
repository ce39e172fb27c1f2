"""Cron lines: five fields (minute, hour, day of the month, month, day of the week), or a word for a usual one.

A field is `*`, a number, a name (`jan`, `mon`), a range `1-5`, each with a step `/15`, or several with commas. What
is accepted here every scheduler accepts: no seconds, no `L`, `W`, `#` or `?`, and no step longer than what
it steps through, which some of them read as something else.
"""

from __future__ import annotations

import re

WORDS = {
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "midnight": "0 0 * * *",
    "weekly": "0 0 * * 0",
    "monthly": "0 0 1 * *",
    "yearly": "0 0 1 1 *",
    "annually": "0 0 1 1 *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES = {
    "month": {name: number for number, name in enumerate(_MONTHS, 1)},
    "day of the week": {name: number for number, name in enumerate(_DAYS)},
}
_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),  # 0 and 7 are Sunday
)
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PART = re.compile(r"(?:\*|([a-z0-9]+)(?:-([a-z0-9]+))?)(?:/([0-9]+))?")
_EXAMPLE = "write five fields like '0 2 * * *', or hourly, daily, weekly, monthly, yearly"


def cron_line(said: str) -> str:
    """What was said as five fields with single spaces: `daily` and `@daily` are `0 0 * * *`. ValueError if it is wrong."""
    text = " ".join(said.lower().split())
    if text.removeprefix("@") in WORDS:
        return WORDS[text.removeprefix("@")]
    fields = text.split(" ")
    if len(fields) != len(_FIELDS):
        raise ValueError(_EXAMPLE)
    values = [_values(field, *bounds) for field, bounds in zip(fields, _FIELDS, strict=True)]
    days, months = values[2], values[3]
    if fields[4] == "*" and all(day > _LONGEST_MONTH[month - 1] for day in days for month in months):
        raise ValueError(f"no year has such a day: '{fields[2]} {fields[3]}' is day and month")
    return text


def _values(field: str, name: str, low: int, high: int) -> set[int]:
    """The numbers that a field means."""
    found: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"'{part}' is not a {name}; {_EXAMPLE}")
        first, last, step = match.groups()
        start = low if first is None else _number(first, name, low, high)
        end = _number(last, name, low, high) if last else high if first is None or step else start
        if end < start:
            raise ValueError(f"'{part}' ends before it starts: write the {name} as two parts with a comma")
        if last and end == start:
            raise ValueError(f"'{part}' is one {name}: write {first}")
        width = int(step or 1)
        if step and not 1 <= width <= end - start:
            raise ValueError(f"a step of the {name} in '{part}' is from 1 to {end - start}, not {width}")
        found.update(range(start, end + 1, width))
    return found


def _number(text: str, name: str, low: int, high: int) -> int:
    number = _NAMES.get(name, {}).get(text, -1 if not text.isdigit() else int(text[:4]))
    if not low <= number <= high:
        raise ValueError(f"the {name} is from {low} to {high}, not '{text}'")
    return number
