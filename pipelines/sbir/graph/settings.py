"""What can be set about the graph. Addresses and passwords come from the environment alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

BACKENDS = ("ladybug", "neo4j")


@dataclass(frozen=True, slots=True)
class Loading:
    batch_size: int = 1000  # rows of a transaction (neo4j)
    parallel_threads: int = 4  # transactions at once, for nodes (neo4j)
    transaction_timeout_seconds: int = 300
    deadlock_retries: int = 3
    reconnect_seconds: int = 60  # so long a load waits for a server that went away
    min_success: float = 0.99
    max_constraint_violations: int = 10
    delete_withdrawn: bool = True  # nodes and relations whose rows left the source
    max_delete_share: float = 0.5  # of a kind; more looks like an empty source


@dataclass(frozen=True, slots=True)
class GraphSettings:
    backend: str = "ladybug"
    path: str = ".rat/sbir.lbug"  # of ladybug's file, below the workspace
    buffer_mb: int = 1024  # ladybug's memory
    loading: Loading = field(default_factory=Loading)


def graph_settings(said: Mapping[str, Any] | None = None) -> GraphSettings:
    """Settings from the pipeline's configuration: `graph: {...}` and `neo4j: {loading: {...}}`.

    ValueError for a setting that there is not, or a value that is none.
    """
    said = said or {}
    loading = _made(Loading, (said.get("neo4j") or {}).get("loading"), "neo4j.loading")
    made: GraphSettings = replace(_made(GraphSettings, said.get("graph"), "graph"), loading=loading)
    if made.backend not in BACKENDS:
        raise ValueError(f"graph.backend is '{made.backend}'; it may be {' or '.join(BACKENDS)}")
    return made


def _made(kind: type[Any], said: Mapping[str, Any] | None, section: str) -> Any:
    """`kind` with what was said over its defaults, as the types of the defaults."""
    values = dict(said or {})
    defaults = {one.name: getattr(kind(), one.name) for one in fields(kind)}
    for name, value in values.items():
        if name not in defaults:
            raise ValueError(f"{section} has no setting {name}. It has {', '.join(defaults)}")
        values[name] = _as(type(defaults[name]), value, f"{section}.{name}")
    return kind(**values)


def _as(kind: type[Any], value: Any, name: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        return kind(value)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{name} is '{value}', which is no {kind.__name__}") from error


@dataclass(frozen=True, slots=True)
class Server:
    uri: str
    user: str
    password: str = field(repr=False)


def server_of_environment() -> Server:
    """NEO4J_URI, NEO4J_USER and NEO4J_PASSWORD."""
    get = os.environ.get
    return Server(get("NEO4J_URI", "bolt://127.0.0.1:7687"), get("NEO4J_USER", "neo4j"), get("NEO4J_PASSWORD", ""))


def environment() -> str:
    """The workspace's environment that this process works in (`rat --env dev`); '' for the default one."""
    return os.environ.get("RATATOUILLE_ENV", "")


def file_of(settings: GraphSettings, root: Path) -> Path:
    """Where ladybug's file lies; `root` is the workspace. An environment has one of its own, beside its lake."""
    path = Path(settings.path)
    if environment() and not path.is_absolute():
        return root / ".rat" / "environments" / environment() / path.name
    return root / path
