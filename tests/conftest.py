"""What every test may ask for.

real_data   the folder of real rows (RATATOUILLE_REAL_DATA); tests that read it carry the marker `real_data`
            and are deselected, not skipped, where the variable is unset
mount       a small file system: `mount(folder, "size=24m")`, and again with other options; needs root
filled      `with filled(folder, leave):` its file system has only so many bytes left
need_tool   a program the machine must have: `need_tool("strace", "apt-get install strace")`
trials      `trials(5)`: 5 of every day, and RATATOUILLE_TRIALS times as many when figures are taken
warm_dbt    dbt commands are forked from a process that has imported dbt, see preloaded.py
figure      `figure("what was done", size="5 of 350 calls", wrong=0)`: printed, and kept for `make test-reliability`

With RATATOUILLE_NO_SKIPS=1 a skipped test counts as failed: where everything can be installed, a test that did
not run proves nothing.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# Containers often forbid bytecode, and .venv comes without: each of the hundreds of processes that these tests start
# would compile Dagster, dbt and Polars anew (`rat dev`: 16 s of CPU to come up instead of 7).
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Whoever starts the tests in the background of a script switches Ctrl-C off for them and for all that they start,
# and some of them are about Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_DATA = "RATATOUILLE_REAL_DATA"
NO_SKIPS = "RATATOUILLE_NO_SKIPS"
FIGURES = "RATATOUILLE_FIGURES"  # a file that gets one JSON line for each figure


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get(REAL_DATA):
        return
    unreachable = [item for item in items if item.get_closest_marker("real_data")]
    if unreachable:
        config.hook.pytest_deselected(items=unreachable)
        items[:] = [item for item in items if not item.get_closest_marker("real_data")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get(NO_SKIPS) == "1" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{reason}\n{NO_SKIPS}=1: a test that cannot run is a failure."
    return report


@pytest.fixture(scope="module", autouse=True)
def no_leftovers() -> Iterator[None]:
    """What a module left open is said at its end, not in whatever test runs when Python happens to look for garbage."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real rows, absolute."""
    return Path(os.environ[REAL_DATA]).resolve(strict=True)


@pytest.fixture(scope="session")
def need_tool() -> Callable[[str, str], str]:
    """`need_tool(program, how to install it)` gives the program's path, or skips with the one command that helps."""

    def find(program: str, install: str) -> str:
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"{program} is not installed. Get it with: {install}")
        return found

    return find


@pytest.fixture(scope="session")
def trials() -> Callable[[int], int]:
    return lambda everyday: everyday * int(os.environ.get("RATATOUILLE_TRIALS", "1"))


@pytest.fixture(scope="session")
def figure() -> Callable[..., None]:
    """Say what was tried and how much of it was wrong. Call it before the assert, so that failures are kept, too."""

    def note(what: str, *, size: str, wrong: int, seeds: str = "", said: str = "") -> None:
        print(f"\n{what}: {size}{', seeds ' * bool(seeds)}{seeds}{', ' * bool(said)}{said}, {wrong} wrong")
        if os.environ.get(FIGURES):
            row = {"what": what, "size": size, "seeds": seeds, "said": said, "wrong": wrong}
            with open(os.environ[FIGURES], "a", encoding="utf-8") as figures:
                figures.write(json.dumps(row) + "\n")

    return note


@pytest.fixture
def mount(need_tool: Callable[[str, str], str]) -> Iterator[Callable[[Path, str], None]]:
    """`mount(folder, options)` puts a small file system there, or remounts it; needs root."""
    program = need_tool("mount", "apt-get install mount")
    mounted: list[Path] = []

    def do(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        again = [] if folder not in mounted else ["-o", f"remount,{options}"]
        command = [program, *(again or ["-t", "tmpfs", "-o", options, "tmpfs"]), str(folder)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode:
            pytest.skip(f"no file system can be mounted here ({said.stderr.strip()}). Run the tests as root")
        mounted.append(folder)

    yield do
    for folder in dict.fromkeys(reversed(mounted)):
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture(scope="session")
def filled() -> Callable[[Path, int], AbstractContextManager[None]]:
    """`filled(folder, leave)`: the file system below `folder` with only `leave` bytes free."""

    @contextmanager
    def fill(folder: Path, leave: int) -> Iterator[None]:
        ballast = folder / "ballast"
        with ballast.open("wb") as handle:
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            os.posix_fallocate(handle.fileno(), 0, max(4096, free - leave))
        yield
        ballast.unlink()

    return fill


@pytest.fixture(scope="session")
def _dbt() -> Iterator[Any]:
    sys.path.insert(0, str(Path(__file__).parent))  # here: who copies this file alone needs no dbt
    from preloaded import WarmDbt

    server = WarmDbt()
    yield server
    server.close()


@pytest.fixture
def warm_dbt(_dbt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """dbt without its imports, in tests that are not about how its process is started or ended."""
    from ratatouille.dbt_project import process

    same = {name: getattr(subprocess, name) for name in ("DEVNULL", "PIPE", "STDOUT")}
    monkeypatch.setattr(process, "subprocess", SimpleNamespace(Popen=_dbt.popen, **same))
