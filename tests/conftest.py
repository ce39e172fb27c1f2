"""What every test may ask for.

real_data   the folder of real rows (RATATOUILLE_REAL_DATA); tests that read it carry the marker `real_data`
            and are deselected, not skipped, where the variable is unset
need_tool   a program the machine must have: `need_tool("strace", "apt-get install strace")`

With RATATOUILLE_NO_SKIPS=1 a skipped test counts as failed: where everything can be installed, a test that did
not run proves nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

REAL_DATA = "RATATOUILLE_REAL_DATA"
NO_SKIPS = "RATATOUILLE_NO_SKIPS"


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
