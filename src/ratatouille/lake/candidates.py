"""Candidates that wait for verdicts: sealed versions that no reader sees until every check they list has passed.

candidate    the sealed files of one attempt, the ledger entry it would get, and the names of its gates
verdict      what one gate said of one candidate; the newest word of a gate counts
state        waiting (a verdict is missing) | rejected (a gate failed) | passed (may be published)
             | published | superseded (somebody published this asset since)

in view      what the code of a check sees: its candidate stands where the table's name is

They are kept in the journal: losing it loses no version that was published, only candidates that a rerun makes again.
What is published carries its verdicts in its ledger entry, in the commit that makes it visible.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ratatouille.lake import ledger
from ratatouille.lake.catalogs.server import Server
from ratatouille.lake.connect import data_place
from ratatouille.lake.journal import Journal
from ratatouille.lake.quoting import LAKE, ident, table, text
from ratatouille.lake.session import Session
from ratatouille.lake.stage import Staged, StagedFile

_KEEP_S = 90 * 86_400.0
_NAMES = ("asset", "run_id", "token", "entry", "staged", "gates", "state", "version", "at")

# Of the calling code: catalog -> {asset: the SELECT that stands for it}.
_in_view: ContextVar[Mapping[Path | Server, Mapping[str, str]]] = ContextVar(
    "ratatouille_candidates_in_view",
    default={},  # noqa: B039  never changed
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that is built, sealed and not visible. `at` in seconds since 1970."""

    entry: ledger.Entry
    staged: Staged
    token: int  # of the lease under which it was staged
    gates: tuple[str, ...]
    state: str = "waiting"
    version: int = 0  # once it is published
    at: float = 0.0
    verdicts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # gate -> its check result, and `let_pass`

    @property
    def asset(self) -> str:
        return self.entry.asset

    @property
    def run_id(self) -> str:
        return self.entry.run_id

    @property
    def missing(self) -> tuple[str, ...]:
        """The gates that have not spoken yet."""
        return tuple(gate for gate in self.gates if gate not in self.verdicts)

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(gate for gate in self.gates if gate in self.verdicts and not self.verdicts[gate]["let_pass"])

    @property
    def is_open(self) -> bool:
        """Whether a verdict can still make it current."""
        return self.state in ("waiting", "rejected", "passed")


def put(journal: Journal, candidate: Candidate) -> Candidate:
    """Remember a sealed candidate. Its files are durable already, so it can be judged by another process."""
    now = time.time()
    _sql(journal, "delete from candidates where asset = ? and at < ?", (candidate.asset, now - _KEEP_S))
    _sql(journal, "delete from verdicts where asset = ? and at < ?", (candidate.asset, now - _KEEP_S))
    values = (
        candidate.asset,
        candidate.run_id,
        candidate.token,
        json.dumps(ledger.as_record(candidate.entry), default=str),
        json.dumps(_plain(candidate.staged)),
        json.dumps(candidate.gates),
        "waiting",
        0,
        now,
    )
    same = "asset = ? and run_id = ? and token = ?"
    _sql(journal, f"delete from candidates where {same}", values[:3])
    _sql(journal, f"insert into candidates values ({', '.join('?' * len(values))}) on conflict do nothing", values)
    found = find(journal, candidate.asset, [candidate.run_id])
    assert found is not None  # noqa: S101  just written
    return found


def find(journal: Journal, asset: str, run_ids: Sequence[str]) -> Candidate | None:
    """The newest candidate of the first of these runs that has one."""
    for run_id in run_ids:
        found = _rows(journal, "asset = ? and run_id = ? order by token desc limit 1", (asset, run_id))
        if found:
            return found[0]
    return None


def newest_open(journal: Journal, asset: str) -> Candidate | None:
    """The newest candidate, if nothing has become of it yet."""
    found = _rows(journal, "asset = ? order by at desc, token desc limit 1", (asset,))
    return found[0] if found and found[0].state in ("waiting", "passed") else None


def all_of(journal: Journal, asset: str, limit: int = 20) -> list[Candidate]:
    """The newest candidates of an asset, newest first: for people who look at what was kept out."""
    return _rows(journal, "asset = ? order by at desc, token desc limit ?", (asset, limit))


def where(journal: Journal, condition: str, values: Sequence[Any]) -> list[Candidate]:
    """Every candidate that fits a condition of ours."""
    return _rows(journal, condition, values)


def record(journal: Journal, candidate: Candidate, gate: str, verdict: Mapping[str, Any]) -> Candidate:
    """Note what a gate said; gives the candidate as it stands then. `let_pass` in the verdict decides."""
    _sql(
        journal,
        "insert into verdicts values (?, ?, ?, ?, ?, ?, ?) on conflict (asset, run_id, token, gate) do update set"
        " passed = excluded.passed, record = excluded.record, at = excluded.at",
        (
            candidate.asset,
            candidate.run_id,
            candidate.token,
            gate,
            int(bool(verdict["let_pass"])),
            json.dumps(verdict, default=str),
            time.time(),
        ),
    )
    judged = _again(journal, candidate)
    if judged.is_open:
        state = "rejected" if judged.failed else "waiting" if judged.missing else "passed"
        mark(journal, judged, state)
        judged = _again(journal, judged)
    return judged


def mark(journal: Journal, candidate: Candidate, state: str, version: int = 0) -> None:
    _sql(
        journal,
        "update candidates set state = ?, version = ? where asset = ? and run_id = ? and token = ?",
        (state, version, candidate.asset, candidate.run_id, candidate.token),
    )


@contextmanager
def in_view(catalog: Path | Server, relations: Mapping[str, str]) -> Iterator[None]:
    """While the block runs, its queries on the lake at `catalog` see these SELECTs where the tables' names stand."""
    before = _in_view.get()
    _in_view.set({**before, catalog: {**before.get(catalog, {}), **relations}})
    try:
        yield
    finally:
        _in_view.set(before)


def stand_in(session: Session, catalog: Path | Server) -> None:
    """Let a session in which two-part names resolve see the candidates that are in view of the calling code."""
    relations = _in_view.get().get(catalog)
    if not relations:
        return
    layers = sorted({asset.partition(".")[0] for asset in relations})
    for layer in layers:
        session.execute(f"create schema if not exists memory.{ident(layer)}")
    for asset, select in relations.items():
        session.execute(f"create or replace view {table(asset).replace(ident(LAKE), 'memory', 1)} as {select}")
    listed = ", ".join(text(layer) for layer in layers)
    known = session.rows(
        f"select schema_name from duckdb_schemas() where database_name = '{LAKE}' and schema_name in ({listed})"
    )
    path = [f"memory.{ident(layer)}" for layer in layers] + [f"{LAKE}.{ident(layer)}" for (layer,) in known]
    session.execute(f"set search_path = {text(','.join([*path, f'{LAKE}.main']))}")


def _again(journal: Journal, candidate: Candidate) -> Candidate:
    where = "asset = ? and run_id = ? and token = ?"
    return _rows(journal, where, (candidate.asset, candidate.run_id, candidate.token))[0]


def _sql(journal: Journal, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    return journal.do(sql, values)


def _rows(journal: Journal, where: str, values: Sequence[Any]) -> list[Candidate]:
    rows = _sql(journal, f"select {', '.join(_NAMES)} from candidates where {where}", values)
    return [_candidate(journal, dict(zip(_NAMES, row, strict=True))) for row in rows]


def _candidate(journal: Journal, row: Mapping[str, Any]) -> Candidate:
    said = _sql(
        journal,
        "select gate, record from verdicts where asset = ? and run_id = ? and token = ?",
        (row["asset"], row["run_id"], row["token"]),
    )
    return Candidate(
        entry=ledger.from_record(json.loads(row["entry"])),
        staged=_staged(json.loads(row["staged"])),
        token=row["token"],
        gates=tuple(json.loads(row["gates"])),
        state=row["state"],
        version=row["version"],
        at=row["at"],
        verdicts={gate: json.loads(record) for gate, record in said},
    )


def _plain(staged: Staged) -> dict[str, Any]:
    return {
        "folder": str(staged.folder),
        "columns": staged.columns,
        "files": [asdict(file) for file in staged.files],
    }


def _staged(plain: Mapping[str, Any]) -> Staged:
    columns = tuple((name, kind) for name, kind in plain["columns"])
    return Staged(data_place(plain["folder"]), columns, tuple(StagedFile(**file) for file in plain["files"]))
