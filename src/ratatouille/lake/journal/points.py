"""Points: one short row for each finished step, for those who compare runs.

A step's record is long, and goes when the journal is pruned; its point is short and stays. Whoever looks for what is
unusual reads the last few points of an asset, by index, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

TABLES = (
    """create table if not exists points (
    asset text, run_id text, attempt bigint, at double precision, status text, mode text, profile text, version bigint,
    seconds double precision, rows_in bigint, rows_written bigint, rows_total bigint, rows_kept_out bigint,
    peak_memory_bytes bigint, measured text, checks text, primary key (asset, run_id, attempt))""",
    # What a run used, every HEARTBEAT_S seconds.
    """create table if not exists samples (
    run_id text, at double precision, memory_bytes bigint, memory_share double precision, cpu_s double precision,
    spill_bytes bigint, disk_left_bytes bigint)""",
    # What a run said of itself as a whole: what it left out, and why.
    "create table if not exists run_notes (run_id text primary key, record text)",
    # Of observe/findings.py: what was unusual about a step.
    """create table if not exists findings (
    asset text, run_id text, kind text, figure text, level text, value double precision, usual double precision,
    said text, at double precision, primary key (asset, run_id, figure))""",
    # Of observe/states.py and outbox.py: what is told to whom.
    """create table if not exists alert_states (
    rule text, about text, subject text, level text, said text, since double precision, seen_at double precision,
    told_at double precision, silent bigint, is_open bigint, primary key (rule, about, subject))""",
    """create table if not exists alert_outbox (
    id text primary key, rule text, channel text, title text, body text, made_at double precision, tries bigint,
    next_at double precision, claimed_until double precision, sent_at double precision, error text)""",
    "create table if not exists alert_marks (name text primary key, at double precision)",
)
INDEXES = (
    "create index if not exists points_by_asset on points (asset, at)",
    "create index if not exists samples_by_run on samples (run_id, at)",
)
NAMES = (
    *("asset", "run_id", "attempt", "at", "status", "mode", "profile", "version", "seconds", "rows_in"),
    *("rows_written", "rows_total", "rows_kept_out", "peak_memory_bytes", "measured", "checks"),
)
SAMPLE_NAMES = ("run_id", "at", "memory_bytes", "memory_share", "cpu_s", "spill_bytes", "disk_left_bytes")
KEPT = ("built", "failed")  # the ends of a step that did something
INSERT = (
    f"insert into points ({', '.join(NAMES)}) values ({', '.join('?' * len(NAMES))})"
    " on conflict (asset, run_id, attempt) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in NAMES[3:])
)


def row_of(asset: str, run_id: str, attempt: int, at: float, status: str, record: Mapping[str, Any]) -> list[Any]:
    """The point of a step, in the order of NAMES. A record of an earlier release has less to say."""
    measured = dict(record.get("measured") or {})
    checks = {
        check["name"]: [bool(check["passed"]), check.get("severity", ""), check.get("bad", 0), check.get("value")]
        for check in record.get("checks") or ()
    }
    return [
        asset, run_id, attempt, at, status, record.get("mode", ""), measured.pop("profile", ""),
        record.get("version") or 0, record.get("seconds") or 0.0, record.get("rows_in") or 0,
        record.get("rows_written") or 0, record.get("rows_total") or 0,
        (record.get("rows_quarantined") or 0) + (record.get("rows_rejected") or 0),
        record.get("peak_memory_bytes") or 0, json.dumps(measured), json.dumps(checks),
    ]  # fmt: skip
