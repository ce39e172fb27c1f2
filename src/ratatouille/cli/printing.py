"""How things look: tables, numbers, times, errors. Colour only on a terminal, and never when NO_COLOR is set."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, Any

from ratatouille.errors import RatError
from ratatouille.handle import as_json_text

WIDE = 200  # columns of a line where nobody looks at a terminal
# Columns whose cells stay on one line.
_WHOLE = {"run", "asset", "status", "check", "column", "mode", "rule", "started (UTC)", "published (UTC)"}
_GAP = 3  # columns between two cells
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "magenta": "35", "cyan": "36"}
STATUS_STYLES = {
    "built": "green", "done": "green", "fresh": "green", "failed": "red", "died": "red", "blocked": "yellow",
    "held": "magenta", "on hold": "magenta", "interrupted": "yellow", "running": "cyan", "skipped": "dim",
}  # fmt: skip


def say(text: str = "") -> None:
    print(text)


def print_json(value: Any) -> None:
    print(as_json_text(value, indent=2))


def paint(text: str, style: str, stream: IO[str] | None = None) -> str:
    code = _STYLES.get(style)
    return f"\x1b[{code}m{text}\x1b[0m" if code and has_colour(stream or sys.stdout) else text


def has_colour(stream: IO[str]) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def printable(text: str) -> str:
    """One line without control characters: a value must not be able to drive the terminal."""
    if text.isprintable():
        return text
    plain = text.replace("\r\n", "\n").replace("\n", "⏎").replace("\t", " ")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain)


def print_error(error: RatError, *, as_json: bool = False) -> None:
    """The four lines on standard error; with `--json` the record on standard output."""
    if as_json:
        print_json({"error": error.as_record()})
    else:
        print_four_lines(error.as_record())


def print_four_lines(record: Mapping[str, str], stream: IO[str] | None = None) -> None:
    stream = stream or sys.stderr
    print(paint(_lines(record["what"]), "red", stream), file=stream)
    if record.get("where"):
        print(f"  {_indented(record['where'])}", file=stream)
    if record.get("state"):
        print(f"  {paint(_indented(record['state']), 'dim', stream)}", file=stream)
    for step in record.get("next", "").splitlines():
        print(f"  {paint(_hint(step), 'bold', stream)}", file=stream)


def _hint(step: str) -> str:
    """A command stands after a prompt, advice as it is."""
    return f"$ {_lines(step)}" if step.startswith(("rat ", "cd ", "pip ", "mkdir ")) else _lines(step)


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())


def _indented(text: str) -> str:
    return _lines(text).replace("\n", "\n  ")


# Tables


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Iterable[str] = (),
    status: str = "",
    spare: Sequence[str] = (),
) -> None:
    """A table with a header. `right` names the columns of numbers, `status` the one that has colours.

    Columns that are empty in every row and named in `spare` are left out; so are others of `spare`, the last
    one first, while the table does not fit the width.
    """
    from rich.text import Text

    body = [[printable(value) for value in row] for row in rows]
    kept = _fitting(columns, body, spare)
    shown = _table([columns[i] for i in kept], set(right))
    for row in body:
        shown.add_row(*(Text(row[i], style=_style(row[i]) if columns[i] == status else "") for i in kept))
    _print(shown)


def _style(value: str) -> str:
    return STATUS_STYLES.get(value, "")


def _fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str]) -> list[int]:
    wide = [max(len(name), *(len(row[i]) for row in rows)) if rows else len(name) for i, name in enumerate(columns)]
    kept = [i for i, name in enumerate(columns) if name not in spare or any(row[i] for row in rows)]
    for name in reversed(spare):
        if sum(wide[i] + _GAP for i in kept) - _GAP <= width():
            break
        kept = [i for i in kept if columns[i] != name]
    return kept


def _table(columns: Sequence[str], right: set[str]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for name in columns:
        justify: Any = "right" if name in right else "left"
        shown.add_column(Text(name), justify=justify, no_wrap=name in right | _WHOLE, overflow="fold")
    return shown


def _print(shown: Any) -> None:
    """Print without the spaces that fill the lines up."""
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    colour = has_colour(sys.stdout)
    console = Console(
        file=text, width=width(), markup=False, highlight=False, emoji=False,
        force_terminal=colour, no_color=not colour, legacy_windows=False, safe_box=True,
    )  # fmt: skip
    console.print(shown)
    for line in text.getvalue().splitlines():
        say(line.rstrip())


def print_rows(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str | None]]) -> None:
    """Rows of a query under names and types; columns that do not fit the width are named below."""
    from rich.text import Text

    cells = [[_value(value) for value in row] for row in rows]
    room, fitting = width(), 0
    for i, (name, kind) in enumerate(columns):
        natural = max([len(name), min(len(kind), 30), *(len(row[i]) for row in cells)], default=0)
        needed = min(natural, 60 if i else room) + _GAP
        if fitting and needed > room:
            break
        room -= needed
        fitting += 1
    shown = _table([], set())
    for name, kind in columns[:fitting]:
        header = Text.assemble((printable(name), "bold"), "\n", (_short(kind.lower()), "dim"))
        shown.add_column(header, justify="right" if _is_number(kind) else "left", overflow="fold")
    for row, raw in zip(cells, rows, strict=True):
        shown.add_row(
            *(Text(c, style="dim" if v is None else "") for c, v in zip(row[:fitting], raw[:fitting], strict=True))
        )
    _print(shown)
    if fitting < len(columns):
        hidden = ", ".join(printable(name) for name, _ in columns[fitting:])
        say(f"{len(columns) - fitting} more columns: {hidden}")


def _value(value: str | None) -> str:
    if value is None:
        return "null"
    return printable(value if len(value) <= 500 else f"{value[:500]}…")


def _short(kind: str) -> str:
    return kind if len(kind) <= 30 else f"{kind[:29]}…"


def _is_number(kind: str) -> bool:
    return kind.endswith(("INT", "INTEGER", "DOUBLE", "FLOAT")) or (kind.startswith("DECIMAL") and kind.endswith(")"))


def width() -> int:
    return shutil.get_terminal_size((WIDE if not sys.stdout.isatty() else 80, 24)).columns


# Numbers and times


def count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def nonzero(value: int) -> str:
    return f"{value:,}" if value else ""


def seconds(value: float | None) -> str:
    if value is None:
        return ""
    if value < 100:
        return f"{value:.2f}"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s"


def took(value: float) -> str:
    """The same in a sentence."""
    return f"{seconds(value)} s" if value < 100 else seconds(value)


def bytes_(value: int) -> str:
    size = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return ""


def when(value: datetime | float | None) -> str:
    """A time in UTC, to the second."""
    if value is None:
        return ""
    moment = datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else value
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def plural(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
