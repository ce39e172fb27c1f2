"""Rows that are not in the tables, read back: the quarantine, and what a failed gate kept of a blocked candidate.

Sensitive columns are masked. The raw line of a file that could not be read cannot be masked column by column,
so an asset with a sensitive column shows none of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ratatouille.engine.ask import json_rows
from ratatouille.engine.gates import MASK, masked
from ratatouille.engine.look import files_set_aside, overview, reading_journal, reading_lake
from ratatouille.engine.quarantine import failing_rows_folder
from ratatouille.errors import RequestError, near_miss
from ratatouille.lake import Session, ledger
from ratatouille.lake.quoting import idents, literal, text
from ratatouille.lake.stage import glob_safe
from ratatouille.project.records import Asset, Project

_QUOTED_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'")


@dataclass(frozen=True, slots=True)
class KeptRow:
    """One row of the quarantine. `row` maps columns to values, or is the raw line of a file."""

    asset: str
    run_id: str
    origin: str  # gate | reject
    checks: str
    reason: str
    file: str | None
    line: int | None
    row: Any
    quarantined_at: datetime


@dataclass(frozen=True, slots=True)
class Failing:
    """Rows for which a gate stopped the last attempt; at most 1,000 are kept for each check."""

    check: str
    kept: int
    file: str  # relative to the workspace
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class KeptOut:
    """Everything of one asset that readers do not see."""

    asset: str
    by_check: tuple[tuple[str, int], ...]
    rows: tuple[KeptRow, ...]
    blocked: str  # why the last attempt was stopped by a gate; '' if it was not
    failing: tuple[Failing, ...]
    set_aside: tuple[dict[str, Any], ...]


def counts(project: Project) -> list[tuple[str, str, int]]:
    """(asset, check, rows) of everything in the quarantine."""
    with reading_lake(project.workspace) as lake:
        if lake is None:
            return []
        with lake.session("reading the quarantine") as session:
            return _counts(session, "true")


def blocked_assets(project: Project) -> dict[str, str]:
    """Assets whose last attempt a gate stopped and that are still to be built, with what failed."""
    failed = [one.name for one in overview(project) if one.status == "failed"]
    with reading_journal(project.workspace) as journal:
        if journal is None:
            return {}
        return {name: why for name in failed if (why := why_blocked(journal.last_steps(name, 1)))}


def kept_out(project: Project, name: str, *, run: str = "", limit: int = 10) -> KeptOut:
    """What is kept out of one asset, `limit` rows at most of each kind. RequestError for an unknown name."""
    name = name.strip().replace("/", ".")
    workspace = project.workspace
    blocked = blocked_assets(project).get(name, "")
    found = KeptOut(name, (), (), blocked, (), tuple(files_set_aside(workspace, name)))
    with reading_lake(workspace) as lake:
        if lake is not None:
            with lake.session("reading the quarantine") as session:
                found = kept_out_of(session, project, found, run=run, limit=limit)
    if name not in project.assets and not found.by_check:
        raise RequestError(
            f"There is no asset called '{name}'.{near_miss(name, project.assets)}",
            where=f"asset {name}",
            next="List them: rat show",
        )
    return found


def kept_out_of(
    session: Session,
    project: Project,
    known: KeptOut,
    *,
    run: str = "",
    check: str = "",
    limit: int = 10,
    skip: int = 0,
) -> KeptOut:
    """The same, on a session that is open: `known` with the rows of the quarantine, and where it was blocked those too.

    `check` leaves the rows that it kept out; the first `skip` rows are left out.
    """
    name, asset = known.asset, project.assets.get(known.asset)
    mine = f"asset = {text(name)}" + (f" and starts_with(run_id, {text(run)})" if run else "")
    by_check = _counts(session, mine)
    chosen = f"{mine} and checks = {text(check)}" if check else mine
    rows = _rows(session, asset, chosen, limit, skip) if by_check else []
    failing = _failing(session, project, name, limit) if known.blocked and not run else []
    return replace(known, by_check=tuple((c, n) for _, c, n in by_check), rows=tuple(rows), failing=tuple(failing))


def why_blocked(last: Sequence[dict[str, Any]]) -> str:
    """Which gate stopped the newest attempt, of the newest attempts at an asset; '' if none did."""
    if not last or last[0]["status"] != "failed":
        return ""
    error = last[0]["record"].get("error") or {}
    return str(error.get("what", "")) if error.get("error") == "GateFailed" else ""


def _counts(session: Session, where: str) -> list[tuple[str, str, int]]:
    return [
        (row[0], row[1], row[2])
        for row in session.rows(
            f"select asset, checks, count(*) from {ledger.QUARANTINE} where {where} group by all order by 1, 3 desc, 2"
        )
    ]


def _rows(session: Session, asset: Asset | None, where: str, limit: int, skip: int = 0) -> list[KeptRow]:
    names = [name for name, _ in ledger.QUARANTINE_COLUMNS]
    found = session.rows(
        f"select {idents(names)} from {ledger.QUARANTINE} where {where}"
        f" order by quarantined_at desc, file, line, row limit {int(limit)} offset {int(skip)}"
    )
    return [_masked(asset, KeptRow(*row)) for row in found]


def _masked(asset: Asset | None, kept: KeptRow) -> KeptRow:
    hides = asset is not None and bool(asset.hidden)
    row, reason = kept.row, kept.reason
    if kept.origin == "gate":
        row = json.loads(row, parse_constant=lambda _: None)
        row = masked(asset, row) if asset is not None else row
    elif hides:
        row, reason = MASK, _QUOTED_VALUE.sub(MASK, reason or "")
    return KeptRow(
        kept.asset, kept.run_id, kept.origin, kept.checks, reason, kept.file, kept.line, row, kept.quarantined_at
    )


def _failing(session: Session, project: Project, name: str, limit: int) -> list[Failing]:
    root, asset = project.workspace.root, project.assets.get(name)
    found = []
    folder = failing_rows_folder(Path(root), name)
    for path in sorted(folder.glob("*.parquet")):
        rows = f"select * from read_parquet({literal(glob_safe(str(path)))})"
        kept = int(session.value(f"select count(*) from ({rows})"))
        sample = [json.loads(row) for row in json_rows(session, rows, limit, ours=True)]
        shown = tuple(masked(asset, row) if asset else row for row in sample)
        found.append(Failing(path.stem, kept, path.relative_to(root).as_posix(), shown))
    return found
