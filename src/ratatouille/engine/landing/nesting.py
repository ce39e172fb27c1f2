"""Brackets in brackets: DuckDB's JSON reader calls itself for each, and from about 20,000 on the process dies.

A file is looked at before it is read. Brackets are kept, all else is dropped, and pairs that hold nothing are struck
out again and again: each pass takes at least one level off. What is struck out takes C's time, not Python's.
"""

from __future__ import annotations

import re
from typing import IO

DEEPEST = 1_000
_CHUNK = 1 << 22  # 4 MiB
_LONGEST_TEXT = 1 << 26  # 64 MiB
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def refuse_deep(stream: IO[bytes]) -> None:
    """ValueError when the JSON in `stream` is nested more than DEEPEST levels."""
    if not _is_deep(stream, texts=True):
        return
    stream.seek(0)  # brackets inside texts were counted, too: look again without them, at a tenth of the speed
    if _is_deep(stream, texts=False):
        raise ValueError(f"it is nested more than {DEEPEST:,} levels deep")


def _is_deep(stream: IO[bytes], *, texts: bool) -> bool:
    left, cut = b"", b""
    while chunk := stream.read(_CHUNK):
        if not texts:
            chunk = _TEXT.sub(b"", cut + chunk)
            chunk, quote, rest = chunk.partition(b'"')
            cut = quote + rest
            if len(cut) > _LONGEST_TEXT:
                raise ValueError("a text in it is never closed")
        left += chunk.translate(None, _NO_BRACKET)
        passes = 0
        while (fewer := left.replace(b"[]", b"").replace(b"{}", b"")) != left:
            left, passes = fewer, passes + 1
            if passes > DEEPEST:
                return True
        if len(left) > DEEPEST:
            return True
    return False
