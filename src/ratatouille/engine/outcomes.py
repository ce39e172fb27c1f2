"""How an attempt ends: as a StepResult, with the stamp its rows carry and the pause before the next try."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ratatouille.engine import measured
from ratatouille.engine.ask import answer, masked_select
from ratatouille.engine.gates import MASK
from ratatouille.engine.plan import utc_now
from ratatouille.engine.quarantine import failing_rows_folder
from ratatouille.engine.records import Answer, CheckResult, StepResult
from ratatouille.engine.work import Work
from ratatouille.errors import GateFailed, RatError
from ratatouille.lake import Entry
from ratatouille.project.records import Asset

# What DuckDB calls errors about a value of a row; its other errors name columns and tables alone.
_OF_A_VALUE = re.compile(r"\b(Conversion|Out of Range|Invalid Input|Constraint|Invalid Type|Serialization) Error")
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|with value \S+|(?<![\w.])-?\d[\d.,:eE+-]*")
# Of what a run left out so much is written down, whatever the number of assets.
LEFT_OUT_REASONS, LEFT_OUT_NAMED = 50, 50


def stamp(head: Entry | None) -> datetime:
    """The time that this attempt's rows carry: later than every row of the version it builds on.

    Readers ask for rows after the newest they have seen, so a stamp must not go back, whatever the clock does.
    """
    now = utc_now()
    return max(now, head.published_at + timedelta(microseconds=1)) if head and head.published_at else now


def pause_s(delay_s: float, backoff: str, attempt: int) -> float:
    """Seconds to wait: full jitter, so that several runs do not come back at once."""
    longest = delay_s * (2 ** (attempt - 1) if backoff == "exponential" else 1)
    return random.uniform(0, min(longest, 300.0))  # noqa: S311  jitter, not a secret


def built(work: Work, entry: Entry, attempts: int, started: float) -> StepResult:
    shutil.rmtree(failing_rows_folder(work.root, entry.asset), ignore_errors=True)  # of an earlier, blocked attempt
    return StepResult(
        asset=entry.asset,
        status="built",
        reason=work.planned.reason,
        mode=entry.mode,
        version=entry.version,
        rows_in=entry.rows_in,
        rows_written=entry.rows_written,
        rows_total=entry.rows_total,
        rows_quarantined=entry.rows_quarantined,
        rows_rejected=entry.rows_rejected,
        bytes_written=entry.bytes_written,
        seconds=time.monotonic() - started,
        peak_memory_bytes=entry.peak_memory_bytes,
        attempts=attempts,
        inputs=entry.inputs,
        files=tuple(work.landing.files),
        chunks=_chunks(work),
        set_aside=set_aside(work),
        checks=tuple(verdict.result for verdict in work.verdicts),
        warnings=tuple(work.warnings),
        measured={**entry.measured, "stages": measured.rounded(work.stage_s)},
        preview=work.preview,
        entry=entry,
    )


def _chunks(work: Work) -> dict[str, int]:
    taken_over = work.checkpoint.taken_over if work.checkpoint else 0
    return {"done": work.n_chunks, "taken_over": taken_over} if work.n_chunks or taken_over else {}


def first_rows(work: Work) -> Answer:
    """The first rows of the candidate, as `request.preview_rows` asks for."""
    relation = f"({work.built.relation if work.staged is not None else work.select})"
    return answer(work.session, masked_select(work.session, relation, work.asset), work.request.preview_rows, ours=True)


def set_aside(work: Work) -> tuple[dict[str, str], ...]:
    return tuple({"file": file, "reason": reason} for file, reason in work.aside.items())


def without_values(result: StepResult, assets: Mapping[str, Asset]) -> StepResult:
    """A failed step without what DuckDB, or Python code, quotes of a row, where a column that was read is sensitive."""
    asset = assets.get(result.asset)
    if asset is None or result.error is None or result.error["error"] == GateFailed.__name__:
        return result  # a gate shows rows that are masked already
    if not any(one in assets and assets[one].hidden for one in (asset.name, *asset.depends_on)):
        return result
    what = result.error["what"]
    if asset.kind != "python" and not _OF_A_VALUE.search(what):
        return result
    name, found, rest = what.partition(f"{asset.name}: ")
    said = f"{name}{found}{_VALUE.sub(MASK, rest)}" if found else _VALUE.sub(MASK, what)
    return replace(result, reason=said, error={**result.error, "what": said})


def failed(
    name: str,
    error: RatError,
    attempts: int,
    started: float,
    version: int | None,
    aside: dict[str, str] | None = None,
) -> StepResult:
    return StepResult(
        asset=name,
        status="failed",
        reason=error.what,
        version=version,
        seconds=time.monotonic() - started,
        attempts=max(1, attempts),
        set_aside=tuple({"file": file, "reason": reason} for file, reason in (aside or {}).items()),
        checks=tuple(c for c in getattr(error, "checks", ()) if isinstance(c, CheckResult)),
        error=error.as_record(),
    )


def left_out(steps: Sequence[StepResult]) -> list[dict[str, Any]]:
    """What a run did not build, by reason, for whoever looks later: status, reason, count, the first assets."""
    found: dict[tuple[str, str], list[str]] = {}
    for step in steps:
        if step.status in ("skipped", "held"):
            found.setdefault((step.status, step.reason), []).append(step.asset)
    return [
        {"status": status, "reason": reason, "count": len(names), "assets": names[:LEFT_OUT_NAMED]}
        for (status, reason), names in sorted(found.items(), key=lambda one: -len(one[1]))[:LEFT_OUT_REASONS]
    ]


def place(error: BaseException) -> str:
    from traceback import extract_tb

    frames = extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
