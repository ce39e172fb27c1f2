"""The state as it was last read, kept in the project cache: enough to see that a run has nothing to do.

It counts only while the lake's newest version is the one that it was read at, and then neither DuckDB nor the lake
has to be opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from ratatouille.engine.plan import State
from ratatouille.engine.workbench import storage_of
from ratatouille.lake import Entry, Hold, LandingFile, Session, catalogs, ledger, newest_version
from ratatouille.project import cache
from ratatouille.project.records import Project

_FILE = "state.json"


def recall(project: Project) -> State | None:
    """The state of this project's lake; None if it may have changed since it was written down."""
    if project.workspace.environment:
        return None  # it also reads the default lake
    newest = catalogs.newest_version(storage_of(project.workspace).catalog)
    if newest is None:
        return None
    try:
        found = cache.read_facts(Path(project.workspace.root), _FILE)
        if found["of"] != [*newest, _assets(project)]:
            return None
        return State(
            version=newest[0],
            heads={head.asset: head for head in map(ledger.from_record, found["heads"])},
            holds={raw["asset"]: _hold(raw) for raw in found["holds"]},
            standing=found["standing"],
            landing={name: [LandingFile(**raw) for raw in files] for name, files in found["landing"].items()},
        )
    except cache.UNREADABLE:
        return None


def write_down(project: Project, state: State, session: Session) -> None:
    """Keep `state`, if it is still that of the newest version."""
    newest = newest_version(session)
    if newest[0] != state.version:
        return
    facts = {
        "of": [*newest, _assets(project)],
        "heads": [ledger.as_record(head) for head in state.heads.values()],
        "holds": [asdict(hold) | {"held_at": hold.held_at.isoformat()} for hold in state.holds.values()],
        "standing": dict(state.standing),
        "landing": {
            name: [{n: getattr(file, n) for n in LandingFile.__slots__} for file in files]
            for name, files in state.landing.items()
        },
    }
    cache.write_facts(Path(project.workspace.root), _FILE, facts)


def _assets(project: Project) -> str:
    """A hash of what `read_state` asks for, and of the shape of its answer."""
    asked = [[name, bool(asset.sources)] for name, asset in project.assets.items()]
    return cache.key_of([asked, [list(record.__slots__) for record in (Entry, Hold, LandingFile)]])


def _hold(raw: Mapping[str, Any]) -> Hold:
    return Hold(**{**raw, "held_at": datetime.fromisoformat(raw["held_at"])})
