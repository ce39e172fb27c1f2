"""Fixtures of the crash tests; the faults themselves are in crash_lab.py, what is run under them in crash_worker.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# These two modules serve this folder alone and have names of their own, so their folder may be imported from.
sys.path.insert(0, str(Path(__file__).parent))

from crash_lab import WORKER, Lab, Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    server = subprocess.Popen([sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    nursery = Nursery(tmp_path_factory.mktemp("nursery"), server)
    nursery.ask(do="load", modules=nursery.do("rehearse", nursery.folder / "rehearsal")["ok"])
    yield nursery
    assert server.stdin is not None and server.stdout is not None
    server.stdin.close()
    server.wait(timeout=30)
    server.stdout.close()


@pytest.fixture
def strace(need_tool: Callable[[str, str], str]) -> str:
    return need_tool("strace", "apt-get install strace")


@pytest.fixture
def lab(tmp_path: Path, nursery: Nursery, figure: Callable[..., None]) -> Lab:
    return Lab(tmp_path, nursery, figure)
