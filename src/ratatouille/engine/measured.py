"""Measured: what a step says of itself beside its rows. It costs no scan: clocks, counters, and the footers of its files.

stages     seconds of render, build, gate, seal, publish; wait is what it waited for its lease and for retries
cpu_s, memory_share, spill_bytes, disk_left_bytes    of `engine/memory.py`
profile    what it ran on: figures of another engine, machine or resource profile are not comparable
config     hash of what its YAML file says; code: of its file. Together they tell which of the two has changed
columns    of the rows that it wrote: nulls, rows, different values, smallest and largest, bytes. Sensitive columns
           have neither smallest nor largest, and texts never
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ratatouille.engine.memory import cpu_seconds, resident_bytes
from ratatouille.engine.work import Work
from ratatouille.lake import Lake, Session, Staged, budget_bytes
from ratatouille.lake.stage import footer_facts
from ratatouille.project.records import Asset

# Below this a table's distribution says little, and reading its footers again would be a good part of its build.
FACTS_FROM_ROWS = 1000
_HASH_LENGTH = 16


def measured(work: Work, seconds: float) -> dict[str, Any]:
    """JSON-safe; see the module's words. `seconds` are those since the step was begun."""
    work.stage_s["wait"] = max(0.0, seconds - sum(work.stage_s.values()))
    used = work.gauge.used(work.asset.name) if work.gauge is not None else {}
    return figures(work.bench.lake, work.asset, work.stage_s, used, work.facts)


def figures(
    lake: Lake, asset: Asset, stage_s: Mapping[str, float], used: Mapping[str, float], facts: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "stages": rounded(stage_s),
        **used,
        "profile": profile_of(lake),
        "config": config_hash(asset),
        "code": (asset.file_hash or asset.code_hash)[:_HASH_LENGTH],
        "columns": dict(facts),
    }


def rounded(stage_s: Mapping[str, float]) -> dict[str, float]:
    return {name: round(seconds, 4) for name, seconds in stage_s.items()}


def profile_of(lake: Lake) -> str:
    return _profile(lake.engine, lake.threads, lake.storage.memory_bytes)


@lru_cache(maxsize=8)  # the limits of the container are several files, and do not change
def _profile(engine: str, threads: int, memory_bytes: int) -> str:
    return f"{engine}, {threads} threads, {budget_bytes(memory_bytes) / 1e9:.1f} GB, {socket.gethostname()}"


def config_hash(asset: Asset) -> str:
    facts = (
        asset.materialize, asset.unique_key, asset.deduplicate, asset.updated_at, asset.deletions, asset.partition_by,
        asset.sort_by, asset.columns, asset.checks, asset.on_fail, asset.max_quarantine, asset.on_change, asset.sources,
    )  # fmt: skip
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:_HASH_LENGTH]


def disk(lake: Lake) -> tuple[int, int]:
    """(bytes spilled, bytes left)."""
    return lake.spilled_bytes(), lake.disk_left_bytes()


def sample_of(lake: Lake) -> dict[str, float]:
    """What this process uses now."""
    now, budget = resident_bytes(), budget_bytes(lake.storage.memory_bytes)
    spilled, left = disk(lake)
    return {
        "memory_bytes": now,
        "memory_share": now / budget if budget else 0.0,
        "cpu_s": cpu_seconds(),
        "spill_bytes": spilled,
        "disk_left_bytes": left,
    }


def columns_of(work: Work) -> dict[str, dict[str, float]]:
    """What the footers of the staged files say; nothing of a view, or of few rows."""
    return facts_of(work.session, work.asset, work.staged) if work.staged is not None else {}


def facts_of(session: Session, asset: Asset, staged: Staged) -> dict[str, dict[str, float]]:
    if staged.rows < FACTS_FROM_ROWS:
        return {}
    hidden = asset.hidden
    facts = footer_facts(session, staged)
    for name, said in facts.items():
        if name.lower() in hidden:
            said.pop("min", None)
            said.pop("max", None)
    return facts
