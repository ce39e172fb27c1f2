"""Whether a value fits a declared type exactly: SQL that converts it, and SQL that says whether that changed it.

A value fits when the declared type says the same as was written: 2.0 fits an integer and 2.6 does not, 1.10 fits
decimal(10,1) and 1.15 does not, midnight fits a date and noon does not. docs/sources.md has the table, case by case.

What DuckDB itself does with what does not fit is to round it, or to cut off what is too much, without a word.
Floats are approximate by nature: a number becomes the nearest one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ratatouille.lake import Session
from ratatouille.lake.quoting import ident, text
from ratatouille.lake.types import retyped

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_NARROW = ("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER")  # a double holds each of them exactly
_HUGE = ("HUGEINT", "UHUGEINT")
_FLOATS = ("FLOAT", "DOUBLE")
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
# type -> digits of a second
TIMESTAMPS = {"TIMESTAMP": 6, "TIMESTAMP_S": 0, "TIMESTAMP_MS": 3, "TIMESTAMP_NS": 9, "TIMESTAMP WITH TIME ZONE": 6}
_SURE_DIGITS = 15  # decimal digits that a double always keeps
_LEAF = re.compile(r"\b(?:U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DOUBLE|FLOAT|DECIMAL\(\d+,\d+\)|VARCHAR|JSON|BOOLEAN"
                   r"|DATE|TIMESTAMP(?:_S|_MS|_NS| WITH TIME ZONE)?|TIME)(?![\w(])")  # fmt: skip
_NUMBER = re.compile(r"\b(?:U?(?:TINY|SMALL|BIG)INT|U?INTEGER|DECIMAL\(\d+,\d+\))(?![\w(])")
_DAY = re.compile(r"\bDATE\b")


@dataclass(frozen=True, slots=True)
class Fit:
    """`value` is of the wanted type, or null where there is none; `fits` is true, false or null (for null: yes).

    Both are expressions over `raw`; `fits` may also use `value`'s column, so that nothing is converted twice.
    """

    value: str
    fits: str


def is_guarded(kind: str) -> bool:
    """Whether reading text as `kind` may change what it says. Types are spelled as DuckDB describes them."""
    return (
        kind in _WHOLE or kind in _HUGE or kind in TIMESTAMPS or kind in ("DATE", "TIME", "BOOLEAN")
        or bool(_DECIMAL.fullmatch(kind)) or (is_nested(kind) and bool(_LEAF.search(kind)))
    )  # fmt: skip


def is_whole(kind: str) -> bool:
    return kind in _WHOLE


def is_nested(kind: str) -> bool:
    return kind.endswith("]") or kind.startswith(("STRUCT(", "MAP("))


def read_as(kind: str) -> str:
    """The type in which a CSV reader hands over a column of `kind`, so that it can be seen whether a value fits.

    A double says exactly what was written to 15 digits, and is half as dear as a text to convert and compare.
    """
    if kind in _NARROW or _digits(kind) <= _SURE_DIGITS:
        return "DOUBLE"
    return "VARCHAR" if is_guarded(kind) else kind


def _digits(kind: str) -> int:
    """Of a decimal type; more than any for others."""
    found = _DECIMAL.fullmatch(kind)
    return int(found[1]) if found else 99


def fit(raw: str, value: str, have: str, want: str, format: str = "", *, exact: bool = False) -> Fit | None:
    """How `raw`, an expression of type `have`, becomes a `want`; None where every value is sure to fit.

    `value` is what `fits` calls the converted value. `format` is how dates and times are written in a text.
    `exact`: a double is a number as somebody wrote it, not the result of a computation.
    """
    if have == want or want in ("VARCHAR", "JSON", "BLOB") or have == '"NULL"':
        return None
    cast = f"try_cast({raw} as {want})"
    if have in ("VARCHAR", "JSON"):
        return _of_text(raw if have == "VARCHAR" else f"({raw} ->> '$')", value, want, format)
    if is_nested(want):
        same_shape = is_nested(have) and _shape(have) == _shape(want)
        return Fit(cast, f"try_cast({value} as {have}) is not distinct from {raw}") if same_shape else None
    if want in _FLOATS:
        return Fit(cast, f"{value} is not null") if have != "BOOLEAN" else Fit(cast, "false")
    number, wants_number = is_number(have), is_number(want)
    if wants_number:
        if have in _FLOATS:
            # A sum of doubles is off by some units of its last digit; that is no digit anybody has written.
            slack = 1e-6 if have == "FLOAT" else 1e-14
            near = f"abs({value}::double - {raw}) <= {slack!r} * abs({raw})"
            same = f"{value}::double = {raw}"
            return Fit(cast, f"coalesce({same if exact or not _DECIMAL.fullmatch(want) else near}, false)")
        return Fit(cast, f"coalesce(try_cast({value} as {have}) = {raw}, false)" if number else "false")
    if want == "BOOLEAN":
        return Fit(cast, f"coalesce(try_cast({value} as {have}) = {raw}, false)") if number else None
    if have in TIMESTAMPS and want in ("DATE", *TIMESTAMPS):
        return Fit(cast, f"coalesce({value}::{have} = {raw}, false)")
    if have in TIMESTAMPS and want == "TIME":
        return Fit(cast, "false")
    return None


def converted(raw: str, want: str) -> str:
    """The value of a text as a `want`; null where it has none."""
    found = fit(raw, "null", "VARCHAR", want)
    return found.value if found else raw


def is_number(kind: str) -> bool:
    return kind in _WHOLE or kind in _HUGE or kind in _FLOATS or bool(_DECIMAL.fullmatch(kind))


def _shape(kind: str) -> str:
    return retyped(kind, ((_LEAF, "x"),))


def _of_text(raw: str, value: str, want: str, format: str) -> Fit:
    if format and want in ("DATE", *TIMESTAMPS):
        at = f"try_strptime({raw}, {text(format)})"
        return Fit(f"try_cast({at} as {want})", f"coalesce({value}::timestamp = {at}::timestamp, false)")
    cast = f"try_cast({raw} as {want})"
    if want in _WHOLE or want in _HUGE:
        plain = f"(not contains({raw}, '.') and not contains({raw}, 'e-') and not contains({raw}, 'E-'))"
        return Fit(cast, f"({value} is not null and ({plain} or {_same_number(raw, value, 0)}))")
    if _DECIMAL.fullmatch(want):
        return Fit(cast, f"({value} is not null and {_same_number(raw, value, int(want[:-1].split(',')[1]))})")
    if want == "DATE":
        exact = f"{raw} glob '????-??-??' or coalesce(try_cast(trim({raw}) as timestamp) = {value}::timestamp, false)"
        return Fit(cast, f"({value} is not null and ({exact}))")
    if want in TIMESTAMPS or want == "TIME":
        return Fit(cast, f"({value} is not null and ({_time_as_written(raw, want)}))")
    if want == "BOOLEAN":
        return Fit(f"try_cast(trim({raw}) as boolean)", f"{value} is not null")
    if is_nested(want):
        wide = retyped(want, ((_NUMBER, "DOUBLE"), (_DAY, "TIMESTAMP")))
        same = f"try_cast({value} as {wide}) is not distinct from try_cast({raw} as {wide})"
        return Fit(cast, f"({value} is not null and {same})")
    return Fit(cast, f"{value} is not null")


def _same_number(raw: str, value: str, scale: int) -> str:
    """Texts of few digits are compared as doubles, which tell them all apart; others by what stands after the point."""
    short = f"(strlen({raw}) <= {_SURE_DIGITS} and coalesce({value}::double = try_cast({raw} as double), false))"
    return f"({short} or regexp_full_match({raw}, '\\s*[+-]?\\d*(\\.\\d{{0,{scale}}}0*)?\\s*'))"


def _time_as_written(raw: str, want: str) -> str:
    clock = f"\\d+:\\d+(:\\d+(\\.\\d{{0,{TIMESTAMPS.get(want, 6)}}}0*)?)?"
    if want == "TIME":
        return f"regexp_full_match({raw}, '\\s*{clock}\\s*')"
    zone = ".*" if want == "TIMESTAMP WITH TIME ZONE" else "\\s*(Z|UTC|[+-]00(:?00)?)?\\s*"
    spelled = f"\\s*\\d+[-/ ]\\d+[-/ ]\\d+([ T]+{clock})?{zone}"
    return f"{raw} glob '????-??-?????:??:??' or regexp_full_match({raw}, '{spelled}')"


# Values that must all fit


def spelled(session: Session, have: Sequence[tuple[str, str]], wanted: Mapping[str, str]) -> dict[str, str]:
    """`wanted` with its types as DuckDB spells them, so that equal ones are equal texts."""
    if dict(have) == wanted:
        return dict(wanted)
    return dict(session.describe("select " + ", ".join(f"cast(null as {k}) as {ident(n)}" for n, k in wanted.items())))


def strictly(
    select: str, have: Sequence[tuple[str, str]], want: Mapping[str, str], hidden: Collection[str] = ()
) -> str:
    """`select` with the types of `want`; the query fails at a value that does not fit, and says which (UNFIT).

    `hidden` are columns (lower case) whose values are not shown.
    """
    inner, outer = [], []
    for name, kind in have:
        wanted, column = want.get(name, kind), ident(name)
        raw = ident(f"_raw {name}")
        converted, found = fit(column, column, kind, wanted), fit(raw, column, kind, wanted)
        if converted is None or found is None:
            inner.append(column if wanted == kind else f"cast({column} as {wanted}) as {column}")
            outer.append(column)
            continue
        inner.append(f"{column} as {raw}, {converted.value} as {column}")
        said = misfit(name, raw, column, wanted, hidden=name.lower() in hidden)
        outer.append(
            f"case when {raw} is null then null when {found.fits} then {column} else error({said}) end as {column}"
        )
    if not any(" as " in one for one in inner):
        return select
    return f"select {', '.join(outer)} from (select {', '.join(inner)} from (\n{select}\n))"


UNFIT = "does not fit"


def misfit(name: str, raw: str, value: str, want: str, *, hidden: bool = False) -> str:
    """An SQL text about one value: 'column total holds "1.239", which does not fit DECIMAL(10,2): ...'."""
    shown = "'a value'" if hidden else f"concat('\"', {raw}::varchar, '\"')"
    became = "''" if hidden else f"coalesce(concat(': it would become \"', {value}::varchar || '\"'), '')"
    became = became if hidden else f"case when {value} is null then '' else {became} end"
    return f"concat({text(f'column {name} holds ')}, {shown}, {text(f', which {UNFIT} {want}')}, {became})"
