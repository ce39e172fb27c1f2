"""One PostgreSQL for all tests of a team's lake; every lake has a schema of its own in it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
sys.path.insert(0, str(Path(__file__).parent.parent / "crash"))
from postgres_server import Postgres, a_postgres, with_debian_binaries
from s3_server import BUCKET, S3, an_s3
from team import Team

PASSWORD = "LAKE_PASSWORD"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(need_tool: Callable[[str, str], str]) -> Iterator[Postgres]:
    before = os.environ["PATH"]
    os.environ["PATH"] = with_debian_binaries(before)
    try:
        with a_postgres(need_tool) as server:
            yield server
    finally:
        os.environ["PATH"] = before


@pytest.fixture(scope="session")
def s3(need_tool: Callable[[str, str], str]) -> Iterator[S3]:
    with an_s3(need_tool) as server:
        yield server


def address(postgres: Postgres, schema: str) -> str:
    server = f"{postgres.user}:${{{PASSWORD}}}@{postgres.host}:{postgres.port}/{postgres.database}"
    return f"postgres://{server}?schema={schema}"


@pytest.fixture
def team(postgres: Postgres, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """A catalog on PostgreSQL, the data in a bucket."""
    for name, value in {PASSWORD: postgres.password, **s3.environment()}.items():
        monkeypatch.setenv(name, value)
    schema = f"lake_{next(_numbers)}"
    return Team(tmp_path, address(postgres, schema), f"s3://{BUCKET}/{schema}")


@pytest.fixture
def local_team(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """A catalog on PostgreSQL, the data in a folder."""
    monkeypatch.setenv(PASSWORD, postgres.password)
    return Team(tmp_path, address(postgres, f"lake_{next(_numbers)}"), str(tmp_path / "data"))
