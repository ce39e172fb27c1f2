"""The kitchen of pages_kitchen.py, built once for each process, and only looked at."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pages_kitchen import Served, build, served


@pytest.fixture(scope="session")
def kitchen_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pages") / "kitchen"
    build(root)
    return root


@pytest.fixture(scope="session")
def kitchen(kitchen_root: Path) -> Iterator[Served]:
    made = served(kitchen_root)
    with made.client:
        yield made
