"""Passing the gates: keep bad rows out where the asset asks for it, and stop the candidate where it does not."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ratatouille import project as files
from ratatouille.engine import modes
from ratatouille.engine.build import Bindings
from ratatouille.engine.gates import Verdict, flag, judge, repeated_rows
from ratatouille.engine.work import Work
from ratatouille.errors import GateFailed
from ratatouille.lake import attempt_folder, discard, ledger, stage
from ratatouille.lake.quoting import ident, idents, literal, text
from ratatouille.lake.types import Columns, retyped
from ratatouille.project.records import Asset, Check

# Rows of a blocked candidate that are kept for looking at, per check.
KEPT_FAILING_ROWS = 1000
_WIDE = re.compile(r"\bDECIMAL\((?:1[6-9]|[23]\d),\d+\)")  # more digits than a double is sure of


def gate(work: Work) -> None:
    """Judge the candidate; quarantine; judge what is left. Raises GateFailed, with the failing rows kept."""
    checks = all_checks(work.asset)
    work.verdicts = _judged(work, checks)
    failing = [v for v in work.verdicts if not v.result.passed and v.result.severity == "error"]
    by_row = [v for v in failing if _keeps_rows_out(work, v)]
    if by_row and work.asset.on_fail == "quarantine" and len(by_row) == len(failing):
        _keep_out(work, checks, by_row)
        failing = [v for v in work.verdicts if not v.result.passed and v.result.severity == "error"]
    if failing:
        raise _blocked(work, failing)
    if work.rejects:
        _stage_kept_out(work, "")


def all_checks(asset: Asset) -> list[Check]:
    """The declared checks, and those that its mode asks for: that a key is there and there once."""
    checks = list(asset.checks)
    there, once = modes.keys(asset)
    for column in there:
        if not _declared(checks, "not_null", (column,)):
            checks.append(Check(f"{column}_not_null", "not_null", (column,)))
    if once and not _declared(checks, "unique", once):
        checks.append(Check("unique_key", "unique", once))
    return checks


def _declared(checks: Sequence[Check], kind: str, columns: tuple[str, ...]) -> bool:
    return any(c.kind == kind and c.columns == columns and c.severity == "error" for c in checks)


def _judged(work: Work, checks: Sequence[Check]) -> list[Verdict]:
    seen = modes.candidate(work)
    bindings = _CheckBindings(work, seen.whole)

    def render(check: Check) -> str:
        return files.render_check_sql(
            work.bench.project, work.asset.name, check, bindings, is_select=work.session.is_select
        ).sql

    return judge(work.session, work.asset, checks, seen, render)


def _keeps_rows_out(work: Work, verdict: Verdict) -> bool:
    if verdict.result.kind == "unique":
        return True
    return bool(flag(_check(work, verdict)))


def _check(work: Work, verdict: Verdict) -> Check:
    return next(check for check in all_checks(work.asset) if check.name == verdict.result.name)


def _keep_out(work: Work, checks: Sequence[Check], failing: Sequence[Verdict]) -> None:
    """Move the bad rows of the candidate to the quarantine and judge the rest again."""
    whole, seen = work.built, modes.candidate(work)
    tests = {v.result.name: _test(work, v, seen) for v in failing}
    bad = " or ".join(f"coalesce({test}, false)" for test in tests.values())
    reasons = ", ".join(f"case when {test} then {text(name)} end" for name, test in tests.items())
    n_bad = int(work.session.value(f"select count(*) from ({whole.relation}) where {bad}"))
    if n_bad > work.asset.max_quarantine * whole.rows:
        raise _blocked(work, failing, too_many=n_bad)
    kept = f"select * from ({whole.relation}) where not ({bad})"
    work.staged = stage(work.session, kept, work.asset.name, work.folder("k"), layout=work.layout)
    work.n_kept_out = n_bad
    rows = (
        f"select {literal(work.asset.name)}, {literal(work.run_id)}, 'gate', concat_ws(', ', {reasons}),"
        f" concat_ws(', ', {reasons}), {_file_column(work)}, null::bigint, {_as_json(whole.columns)},"
        f" {literal(work.started_at)} from ({whole.relation}) b where {bad}"
    )
    try:
        _stage_kept_out(work, rows)
        first = {v.result.name: v for v in failing}
        work.verdicts = [_kept_out(first.get(v.result.name), v) for v in _judged(work, checks)]
    finally:
        discard(whole)


def _as_json(columns: Columns) -> str:
    """The row `b` as a JSON text. Decimals that a double cannot hold are texts in it: they come back as they were."""
    if not any(_WIDE.search(kind) for _, kind in columns):
        return "to_json(b)::varchar"
    each = ", ".join(
        f"{ident(n)} := b.{ident(n)}{'::' + k if (k := _narrow(kind)) != kind else ''}" for n, kind in columns
    )
    return f"to_json(struct_pack({each}))::varchar"


def _narrow(kind: str) -> str:
    """The type with texts for its wide decimals."""
    return retyped(kind, ((_WIDE, "VARCHAR"),))


def _kept_out(before: Verdict | None, now: Verdict) -> Verdict:
    """A check that failed and passes without the rows it kept out still says how many they were."""
    if before is None or not now.result.passed:
        return now
    return Verdict(replace(now.result, bad=before.result.bad, rows=before.result.rows, sample=before.result.sample))


def _test(work: Work, verdict: Verdict, seen: Any) -> str:
    """An expression that is true for the rows that this check keeps out."""
    check = _check(work, verdict)
    if check.kind != "unique":
        return flag(check)
    # Which of the rows with one key is right is not ours to say: all of them stay out.
    keys = idents(check.columns)
    return f"({keys}) in (select {keys} from ({repeated_rows(check.columns, seen)}))"


def _file_column(work: Work) -> str:
    return '"_file"' if any(name == "_file" for name, _ in work.built.columns) else "null::varchar"


def _stage_kept_out(work: Work, rows: str) -> None:
    """The quarantine's new rows: those a gate kept out, and those of landing files that could not be read."""
    selects = [rows] if rows else []
    if work.rejects:
        # Bound parameters would make DuckDB import pandas.
        shape = text('[{"file": "VARCHAR", "line": "BIGINT", "reason": "VARCHAR", "row": "VARCHAR"}]')
        rejected = f"(select unnest(from_json({text(json.dumps(work.rejects))}, {shape}), recursive := true))"
        selects.append(
            f"select {literal(work.asset.name)}, {literal(work.run_id)}, 'reject', 'readable', reason, file, line, \"row\","
            f" {literal(work.started_at)} from {rejected}"
        )
    names = ", ".join(ident(name) for name, _ in ledger.QUARANTINE_COLUMNS)
    wanted = ", ".join(f"{ident(name)}::{kind} as {ident(name)}" for name, kind in ledger.QUARANTINE_COLUMNS)
    union = " union all ".join(f"({select})" for select in selects)
    folder = attempt_folder(
        work.bench.lake.storage,
        f"{ledger.SCHEMA}.quarantine",
        work.run_id,
        f"{work.asset.name}-{work.token}.{work.attempt}",
    )
    select = f"select {wanted} from ({union}) q({names})"
    if work.kept_out is not None:
        discard(work.kept_out)
    work.kept_out = stage(work.session, select, work.asset.name, folder)


def _blocked(work: Work, failing: Sequence[Verdict], too_many: int = 0) -> GateFailed:
    first = failing[0].result
    counted = first.kind not in ("row_count", "freshness", "distribution")
    n_bad = f"{first.bad:,} of {first.rows:,} rows" if counted else f"{first.rows:,} rows"
    asked = f", asked for: {first.threshold}" if first.threshold else ""
    more = f" ({len(failing) - 1} more gates failed)" if len(failing) > 1 else ""
    what = f"{work.asset.name}: the gate {first.name} failed for {n_bad}{asked}{more}"
    if too_many:
        what += f"; {too_many:,} rows would be quarantined, more than {work.asset.max_quarantine:.0%}"
    where = f"{work.asset.name}, {'column ' + ', '.join(first.columns) if first.columns else 'check ' + first.name}"
    for row in first.sample:
        where += "\n    " + json.dumps(row, default=str)[:200]
    _keep_failing_rows(work, failing)
    head = work.head
    stands = f"Readers still see version {head.version} of {head.published_at:%Y-%m-%d %H:%M} UTC." if head else ""
    failed = GateFailed(
        what,
        where=where,
        state=stands or "Nothing was published; the table does not exist yet.",
        next=f"rat quarantine {work.asset.name}",
    )
    failed.checks = tuple(verdict.result for verdict in work.verdicts)
    return failed


def _keep_failing_rows(work: Work, failing: Sequence[Verdict]) -> None:
    """Write the failing rows beside the lake, where `rat quarantine` finds them until the next attempt."""
    folder = failing_rows_folder(work.root, work.asset.name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in folder.glob("*.parquet"):
        old.unlink()
    for verdict in failing:
        if verdict.bad_rows:
            path = text(str(folder / f"{verdict.result.name}.parquet"))
            work.session.execute(f"copy ({verdict.bad_rows} limit {KEPT_FAILING_ROWS}) to {path} (format parquet)")


def failing_rows_folder(root: Path, asset: str) -> Path:
    return root / ".rat" / "failed" / asset


class _CheckBindings:
    """What the template functions mean in a custom check: `this` is the table as readers would see it."""

    def __init__(self, work: Work, whole: str) -> None:
        self._build = Bindings(work)
        self._whole = whole
        self.ref = self._build.ref
        self.source = self._build.source
        self.is_incremental = self._build.is_incremental
        self.watermark = self._build.watermark
        self.changes = self._build.changes

    def this(self) -> str:
        return f"({self._whole})"
