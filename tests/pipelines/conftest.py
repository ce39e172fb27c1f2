"""What the tests of F1's extraction share: a synthetic season, a server that gives it out, and no waiting in public.

The repository's root is importable here, because its pipelines are what is tested.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for folder in (Path(__file__).parent, Path(__file__).resolve().parents[2]):
    sys.path.insert(0, str(folder))


@pytest.fixture(scope="module")
def quiet_retries() -> Iterator[None]:
    import stamina.instrumentation

    stamina.instrumentation.set_on_retry_hooks([])
    yield
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.fixture(scope="module")
def season() -> Any:
    from pipelines.f1.season import generate

    return generate()


@pytest.fixture
def server(season: Any) -> Iterator[Any]:
    from pipelines.f1.server import serve

    with serve(season) as running:
        yield running


@pytest.fixture
def extract(server: Any, tmp_path: Path) -> Iterator[Any]:
    """extract_sessions with a client of the server, into `tmp_path`, in December."""
    from f1_bench import LATER, settings_of
    from pipelines.f1.extract import extract_sessions
    from pipelines.f1.openf1 import OpenF1

    with OpenF1(settings_of(server)) as client:

        def go(folder: Path = tmp_path, **wish: Any) -> Any:
            return extract_sessions(client, folder, **{"now": LATER, **wish})

        yield go


@pytest.fixture(scope="session")
def neo4j_server(need_tool: Any) -> Iterator[Any]:
    """One real server for all tests of the graph."""
    from neo4j_server import a_neo4j

    with a_neo4j(need_tool) as server:
        yield server


@pytest.fixture
def neo4j(neo4j_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server, empty, and named in the environment."""
    import neo4j as driver

    if neo4j_server.running[0].poll() is not None:
        neo4j_server.start()
    with driver.GraphDatabase.driver(neo4j_server.uri, auth=(neo4j_server.user, neo4j_server.password)) as connected:
        connected.execute_query("MATCH (n) DETACH DELETE n")
    for name, value in neo4j_server.environment().items():
        monkeypatch.setenv(name, value)
    return neo4j_server
