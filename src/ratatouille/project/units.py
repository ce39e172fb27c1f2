"""Durations and sizes as people write them: `6h`, `30m`, `1d`; `4GB`, `512MiB`. And secrets, by their `${NAME}`."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def seconds(value: object) -> float:
    """`6h`, `1h 30m` or a number of seconds, as seconds. ValueError with a sentence for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise ValueError("write a duration like 30m, 6h or 1d, or a number of seconds")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def size_bytes(value: object) -> int:
    """`4GB`, `512 MiB` or a number of bytes, as bytes. GB is 10^9 and GiB 2^30, as in DuckDB."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise ValueError("write a size like 512MB or 4GB, or a number of bytes")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWER[unit.upper()])


def variable_named(text: str) -> str:
    """NAME, if the text is `${NAME}` and nothing else: a secret by its variable. Otherwise ''."""
    found = re.fullmatch(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", text)
    return found.group(1) if found else ""
