"""Comparing rows: expected ones with those that came, in SQL, as multisets or place by place.

Expected values take the types of the columns that they are compared with; floats are compared to nine decimal places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ratatouille.errors import near_miss
from ratatouille.lake import QueryFailed, Session
from ratatouille.lake.quoting import ident, text
from ratatouille.project.cases import Rows
from ratatouille.testing.mocks import select_of

SHOWN_ROWS = 10
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as expected. `rows`: ("-" expected and not there | "+" there and not expected, values)."""

    what: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, tuple[str | None, ...]], ...] = field(default=())
    more: int = 0  # rows that differ beyond these


def compare(
    session: Session, what: str, actual: str, expected: Rows, folder: Path, columns: Sequence[str], ordered: bool
) -> list[Difference]:
    """What is different between the rows of a SELECT and the expected ones; nothing, if they are the same."""
    types = {name.lower(): (name, kind) for name, kind in session.describe(actual)}
    if expected.rows == () and not columns:
        return _none_expected(session, what, actual)
    wanted = select_of(session, expected, folder, dict(types.values()) if expected.rows == () else {})
    named = list(columns) or [name for name, _ in session.describe(wanted)]
    for name in named:
        if name.lower() not in types:
            return [Difference(f"{what}: there is no column {name}.{near_miss(name, [n for n, _ in types.values()])}")]
    have = {name.lower() for name, _ in session.describe(wanted)}
    for name in named:
        if name.lower() not in have:
            return [Difference(f"{what}: no expected row has a column {name}")]
    shown = tuple(types[name.lower()][0] for name in named)
    came = ", ".join(_comparable(name, types[name.lower()][1]) for name in named)
    cast = ", ".join(_comparable(name, types[name.lower()][1], cast=True) for name in named)
    left, right = f"select {cast} from ({wanted})", f"select {came} from ({actual})"
    try:
        return _in_order(session, what, left, right, shown) if ordered else _as_sets(session, what, left, right, shown)
    except QueryFailed as failed:
        return [Difference(f"{what}: they cannot be compared: {failed.message or failed.what}")]


def _none_expected(session: Session, what: str, actual: str) -> list[Difference]:
    count = session.value(f"select count(*) from ({actual})")
    return [Difference(f"{what}: none expected, {count:,} came")] if count else []


def _comparable(name: str, kind: str, *, cast: bool = False) -> str:
    value = f"cast({ident(name)} as {kind})" if cast else ident(name)
    return (
        f"round({value}, {_DECIMALS}) as {ident(name)}" if kind in ("DOUBLE", "FLOAT") else f"{value} as {ident(name)}"
    )


def _as_sets(session: Session, what: str, left: str, right: str, columns: tuple[str, ...]) -> list[Difference]:
    rows, total = [], 0
    counts = {}
    for sign, one, other in (("-", left, right), ("+", right, left)):
        only = f"({one}) except all ({other})"
        counts[sign] = int(session.value(f"select count(*) from ({only})"))
        total += counts[sign]
        if counts[sign]:
            shown = ", ".join(f"{ident(name)}::varchar" for name in columns)
            found = session.rows(f"select {shown} from ({only} order by all limit {SHOWN_ROWS})")
            rows += [(sign, tuple(row)) for row in found]
    if not total:
        return []
    said = [f"{counts['-']:,} expected and not there"] if counts["-"] else []
    said += [f"{counts['+']:,} there and not expected"] if counts["+"] else []
    return [Difference(f"{what}: {', '.join(said)}", columns, tuple(rows), total - len(rows))]


def _in_order(session: Session, what: str, left: str, right: str, columns: tuple[str, ...]) -> list[Difference]:
    places = " full join ".join(
        f"(select row_number() over () as n, r from ({one}) r) {name}" for name, one in (("a", left), ("b", right))
    )
    differing = f"select a.n as an, b.n as bn, coalesce(a.n, b.n) as n, a.r as a, b.r as b from {places} on a.n = b.n where a.r is distinct from b.r or a.n is null or b.n is null"
    count = int(session.value(f"select count(*) from ({differing})"))
    if not count:
        return []
    values_ = ", ".join(f"{side}[{text(name)}]::varchar" for side in ("a", "b") for name in columns)
    rows: list[tuple[str, tuple[str | None, ...]]] = []
    for n, an, bn, *values in session.rows(
        f"select n, an, bn, {values_} from ({differing}) order by n limit {SHOWN_ROWS}"
    ):
        half = len(columns)
        rows += [("-", (str(n), *values[:half]))] if an is not None else []
        rows += [("+", (str(n), *values[half:]))] if bn is not None else []
    return [
        Difference(f"{what}: {count:,} places differ", ("place", *columns), tuple(rows), max(0, count - SHOWN_ROWS))
    ]


def said_of_gates(verdicts: Mapping[str, tuple[bool, int]], expected: str | Mapping[str, object]) -> list[Difference]:
    """Where gates did not say what they should: `verdicts` are (passed, bad rows) by name."""
    if expected == "pass":
        return [
            Difference(f"gate {n}: passes expected, {bad:,} rows are bad")
            for n, (ok, bad) in verdicts.items()
            if not ok
        ]
    found = []
    for name, wanted in expected.items() if isinstance(expected, Mapping) else ():
        if name not in verdicts:
            found.append(Difference(f"there is no gate {name}.{near_miss(name, verdicts)}"))
            continue
        passed, bad = verdicts[name]
        came = "it passes" if passed else f"{bad:,} rows are bad"
        as_wanted = bad == wanted if isinstance(wanted, int) else passed == (wanted == "pass")
        if not as_wanted:
            asked = f"{wanted:,} bad rows" if isinstance(wanted, int) else f"to {wanted}"
            found.append(Difference(f"gate {name}: expected {asked}, and {came}"))
    return found
