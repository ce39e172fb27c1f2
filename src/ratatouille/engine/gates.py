"""Gates: every check is a query that returns the bad rows.

flag      an SQL expression over one row that is true when the row is bad: not_null, range, ...
repeat    rows that share a key: unique
whole     a question about the table as a whole: row_count, completeness, custom SQL

All flags and keys of an asset are computed in one scan of the new rows. What the parquet footers already
prove (no nulls, smallest value above the limit) is not scanned at all. Only the rows of failing checks
are looked up, for the sample and the quarantine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from ratatouille.engine.measures import MEASURES
from ratatouille.engine.records import CheckResult
from ratatouille.errors import StepFailed
from ratatouille.lake import QueryFailed, Session, Staged
from ratatouille.lake.quoting import ident, idents, literal, table, text
from ratatouille.project.checks import exceeds
from ratatouille.project.records import Asset, Check

SAMPLE_ROWS = 3
_WHOLE_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_BITMAP_BITS = 1 << 30  # 128 MiB
MASK = "[hidden]"
WHOLE_KINDS = ("sql", *MEASURES)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What gates look at. Each is a SELECT.

    delta: the rows that this step adds. whole: the table as readers would see it after publishing.
    others: the rows of the published table that stay (empty for a full build).
    """

    delta: str
    whole: str
    others: str = ""
    staged: Staged | None = None  # of delta, for what its footers prove
    replaces: tuple[str, ...] = ()  # none of the others has the same values in these columns as a row of delta


@dataclass(frozen=True, slots=True)
class Verdict:
    result: CheckResult
    bad_rows: str = ""  # a SELECT of them


# Flags: check -> expression that is true for a bad row


def _accepted_values(check: Check, column: str) -> str:
    values = ", ".join(literal(value) for value in check.arguments["values"])
    return f"{column} is not null and {column} not in ({values})"


def _range(check: Check, column: str) -> str:
    low, high = check.arguments.get("min"), check.arguments.get("max")
    below, above = ("<", ">") if check.arguments.get("inclusive", True) else ("<=", ">=")
    sides = [f"{column} {below} {literal(low)}"] if low is not None else []
    sides += [f"{column} {above} {literal(high)}"] if high is not None else []
    return " or ".join(sides) or "false"


def _relationships(check: Check, column: str) -> str:
    table_there = check.arguments.get("in") or table(check.arguments["to"])
    other = f"select {ident(check.arguments['column'])} from {table_there}"
    return f"{column} is not null and {column} not in ({other} where {ident(check.arguments['column'])} is not null)"


def _length(check: Check, column: str) -> str:
    low, high = check.arguments.get("min"), check.arguments.get("max")
    sides = [f"length({column}) < {low}"] if low is not None else []
    return " or ".join([*sides, *([f"length({column}) > {high}"] if high is not None else [])])


FLAGS: dict[str, Callable[[Check, str], str]] = {
    "not_null": lambda check, column: f"{column} is null",
    "accepted_values": _accepted_values,
    "range": _range,
    "length": _length,
    "positive": lambda check, column: f"{column} <= 0",
    "regex": lambda check, column: f"not regexp_matches({column}::varchar, {text(check.arguments['pattern'])})",
    "relationships": _relationships,
}


def flag(check: Check) -> str:
    """True for a bad row, false or null for a good one; '' if the check is not about single rows."""
    if check.kind == "expression":
        return f"not ({check.arguments['expression']}\n)"
    make = FLAGS.get(check.kind)
    return " or ".join(f"({make(check, ident(column))})" for column in check.columns) if make else ""


def threshold(check: Check) -> str:
    """What the check asks for, in words."""
    limits = [f"{word} {limit}" for word, limit in (("warn", check.warn_if), ("error", check.error_if)) if limit]
    return ", ".join([*([asked] if (asked := _asked(check)) else []), *limits])


def _asked(check: Check) -> str:
    arguments = check.arguments
    match check.kind:
        case "range" | "row_count" | "length":
            low, high = arguments.get("min"), arguments.get("max")
            if low is not None and high is not None:
                return f"between {low} and {high}"
            return f"at least {low}" if low is not None else f"at most {high}"
        case "completeness" | "success_rate":
            return f"at least {arguments.get('at_least', 1)}"
        case "freshness":
            return f"at most {arguments['max_age']} old"
        case "distribution":
            return ", ".join(f"{name} in {list(bounds)}" for name, bounds in arguments.items())
        case "expression":
            return str(arguments["expression"])
        case "accepted_values":
            return f"one of {', '.join(str(value) for value in arguments['values'])}"
        case "regex":
            return f"matches {arguments['pattern']}"
        case "relationships":
            return f"in {arguments['to']}.{arguments['column']}"
        case "positive":
            return "above 0"
    return ""


def judge(
    session: Session, asset: Asset, checks: Sequence[Check], candidate: Candidate, check_sql: Callable[[Check], str]
) -> list[Verdict]:
    """All verdicts, in the order of `checks`. `check_sql` renders a custom check to a SELECT of bad rows."""
    scanned = [check for check in checks if check.kind not in WHOLE_KINDS]
    verdicts = _judge_rows(session, asset, scanned, candidate)
    for check in checks:
        if check.kind in WHOLE_KINDS:
            verdicts[check.name] = _judge_whole(session, asset, check, candidate, check_sql)
    return [verdicts[check.name] for check in checks]


def _judge_rows(session: Session, asset: Asset, checks: Sequence[Check], candidate: Candidate) -> dict[str, Verdict]:
    """One scan for every flag and every key; a second look only at what failed."""
    unproven = [check for check in checks if not _proven(check, candidate.staged)]
    rows, counts = _scan(session, asset, unproven, candidate)
    verdicts = {}
    for check in checks:
        bad = counts.get(check.name, 0)
        bad_rows = ""
        # Published rows with a key of the delta are replaced: for what holds that key only the delta counts.
        alone = candidate.replaces and set(candidate.replaces) <= set(check.columns)
        others = "" if alone else candidate.others
        if check.kind == "unique" and (bad or others):
            bad_rows = repeated_rows(check.columns, replace(candidate, others=others))
            bad = session.value(f"select count(*) from ({bad_rows})")
        elif bad:
            bad_rows = f"select * from ({candidate.delta}) where {flag(check)}"
        verdicts[check.name] = _verdict(session, asset, check, bad, rows, bad_rows if bad else "")
    return verdicts


def _named(
    session: Session, asset: Asset, checks: Sequence[Check], candidate: Candidate, error: QueryFailed
) -> StepFailed:
    """The error of a scan with the name of the gate that caused it."""
    for check in checks:
        test = flag(check) if check.kind != "unique" else idents(check.columns)
        try:
            session.rows(f"select count({test}) from ({candidate.delta})" if check.kind != "unique" else "select 1")
        except QueryFailed as failed:
            return _cannot_be_asked(asset, check, failed)
    return StepFailed(f"{asset.name}: its gates cannot be asked: {error.message}", where=error.where, next="rat check")


def _cannot_be_asked(asset: Asset, check: Check, error: QueryFailed) -> StepFailed:
    return StepFailed(
        f"{asset.name}: the gate {check.name} cannot be asked: {error.message}",
        where=f"{asset.sidecar or asset.path}, check {check.name}",
        next=f"mend the gate, or the column's type, then: rat run {asset.name}",
    )


def _scan(session: Session, asset: Asset, checks: Sequence[Check], candidate: Candidate) -> tuple[int, dict[str, int]]:
    """Rows looked at, and for each check the number of bad ones (for keys: of surplus ones)."""
    if candidate.staged is not None and not checks:
        return candidate.staged.rows, {}
    inner, outer = [], ["count(*)"]
    for number, check in enumerate(checks):
        if check.kind == "unique":
            key, surplus = _surplus(check, candidate.staged, f"x{number}")
            inner.append(f"{key} as x{number}")
            outer.append(surplus)
        else:
            inner.append(f"({flag(check)}) as x{number}")
            outer.append(f"count(*) filter (x{number})")
    source = f"select {', '.join(inner) or '1'} from ({candidate.delta})"
    try:
        found = session.one(f"select {', '.join(outer)} from ({source})")
    except QueryFailed as error:
        raise _named(session, asset, checks, candidate, error) from error
    return found[0], {check.name: count for check, count in zip(checks, found[1:], strict=True)}


def _surplus(check: Check, staged: Staged | None, name: str) -> tuple[str, str]:
    """What to compute per row, and an aggregate of it that is 0 only if no key repeats.

    Whole numbers in a modest range go into a bitmap, other keys are counted by their 64-bit hash: equal keys have
    equal hashes, so as many hashes as rows prove uniqueness. If they differ, the exact query decides.
    """
    bounds = _bitmap_bounds(check, staged)
    if bounds is not None:
        column = ident(check.columns[0])
        return column, f"count({name}) - coalesce(bit_count(bitstring_agg({name}, {bounds[0]}, {bounds[1]})), 0)"
    key = f"case when {_all_there(check.columns)} then hash({idents(check.columns)}) end"
    return key, f"count({name}) - count(distinct {name})"


def _bitmap_bounds(check: Check, staged: Staged | None) -> tuple[int, int] | None:
    """The smallest and largest key, if the footers know them and a bit for each number between is little memory."""
    if staged is None or len(check.columns) != 1 or staged.rows < 1000:
        return None
    kind, facts = dict(staged.columns).get(check.columns[0], ""), staged.facts.get(check.columns[0])
    if facts is None or facts.minimum is None or facts.maximum is None or kind not in _WHOLE_NUMBERS:
        return None
    low, high = int(facts.minimum), int(facts.maximum)
    return (low, high) if high - low < min(64 * staged.rows, _BITMAP_BITS) else None


def repeated_rows(columns: Sequence[str], candidate: Candidate) -> str:
    """The new rows whose key stands more than once in the table that readers would see. Null is no key."""
    keys = idents(columns)
    new_keys = f"select {keys} from ({candidate.delta}) where {_all_there(columns)}"
    repeated = f"({new_keys} group by all having count(*) > 1)"
    if candidate.others:
        repeated += f" union ({new_keys} intersect select {keys} from ({candidate.others}))"
    return f"select * from ({candidate.delta}) where ({keys}) in ({repeated})"


def _all_there(columns: Sequence[str]) -> str:
    return " and ".join(f"{ident(column)} is not null" for column in columns)


def _proven(check: Check, staged: Staged | None) -> bool:
    """Whether the footers of the staged files prove that no row is bad."""
    if staged is None or len(check.columns) != 1:
        return False
    if not staged.files:
        return check.kind != "unique"
    facts = staged.facts.get(check.columns[0])
    if facts is None:
        return False
    if check.kind == "not_null":
        return facts.nulls == 0
    if check.kind not in ("positive", "range") or facts.has_nan:
        return False
    low, high = _number(facts.minimum), _number(facts.maximum)
    if low is None or high is None:
        return False
    if check.kind == "positive":
        return low > 0
    least, most = _number(check.arguments.get("min")), _number(check.arguments.get("max"))
    if (least is None) != (check.arguments.get("min") is None) or (most is None) != (
        check.arguments.get("max") is None
    ):
        return False  # a limit that is not a number
    if not check.arguments.get("inclusive", True):
        return (least is None or low > least) and (most is None or high < most)
    return (least is None or low >= least) and (most is None or high <= most)


def _number(value: Any) -> Decimal | None:
    try:
        return Decimal(str(value)) if value is not None else None
    except InvalidOperation:
        return None


def _judge_whole(
    session: Session, asset: Asset, check: Check, candidate: Candidate, check_sql: Callable[[Check], str]
) -> Verdict:
    if check.kind != "sql":
        try:
            measured = MEASURES[check.kind](session, check, candidate.whole)
        except QueryFailed as error:
            raise _cannot_be_asked(asset, check, error) from error
        bad_rows = measured.bad_rows if not measured.passed else ""
        bad = measured.bad if not measured.passed else 0
        sample = sample_of(session, asset, bad_rows) if bad_rows else ()
        return Verdict(
            _result(
                check, measured.passed, bad, measured.rows, value=measured.value, sample=sample, said=measured.said
            ),
            bad_rows,
        )
    bad_rows = check_sql(check)
    bad = int(session.value(f"select count(*) from ({bad_rows})"))
    rows = int(session.value(f"select count(*) from ({candidate.whole})")) if bad else 0
    return _verdict(session, asset, check, bad, rows, bad_rows if bad else "")


def _verdict(session: Session, asset: Asset, check: Check, bad: int, rows: int, bad_rows: str) -> Verdict:
    sample = sample_of(session, asset, bad_rows) if bad else ()
    passed, severity = bad == 0, check.severity
    if check.warn_if or check.error_if:
        error = exceeds(check.error_if, bad, rows)
        warns = exceeds(check.warn_if, bad, rows) if check.warn_if else bad > 0
        passed, severity = not (error or warns), "error" if error else "warn"
    return Verdict(replace(_result(check, passed, bad, rows, sample=sample), severity=severity), bad_rows)


def _result(
    check: Check,
    passed: bool,
    bad: int,
    rows: int,
    *,
    value: float | None = None,
    sample: tuple[Mapping[str, Any], ...] = (),
    said: str = "",
) -> CheckResult:
    return CheckResult(
        name=check.name,
        kind=check.kind,
        severity=check.severity,
        passed=passed,
        bad=bad,
        rows=rows,
        columns=check.columns,
        threshold="; ".join(part for part in (threshold(check), said) if part),
        value=value,
        sample=sample,
    )


def sample_of(session: Session, asset: Asset, bad_rows: str) -> tuple[Mapping[str, Any], ...]:
    """At most SAMPLE_ROWS bad rows as JSON-safe mappings, sensitive columns masked."""
    found = session.rows(f"select to_json(b)::varchar from ({bad_rows} limit {SAMPLE_ROWS}) b")
    return tuple(masked(asset, json.loads(row)) for (row,) in found)


def masked(asset: Asset, row: Mapping[str, Any]) -> dict[str, Any]:
    hidden = asset.hidden
    return {name: MASK if name.lower() in hidden and value is not None else value for name, value in row.items()}
