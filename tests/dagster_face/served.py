"""`rat dev` as a process of its own, and what a browser would ask it.

Dev(root)      started when it answers; `with` stops it and checks that nothing is left
graphql        the requests that Dagster's pages make: launch a run, look at it
kill_all       kill -9 of the whole group at once, as a power cut does it
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import ratatouille
from ratatouille.dagster.serve import LOCK, living_members

SOURCE = Path(ratatouille.__file__).resolve().parents[1]
UP_WITHIN_S = 120
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


class Dev:
    """`rat dev --port 0 --json` in the workspace at `root`."""

    def __init__(self, root: Path, *words: str, cwd: Path | None = None, background: bool = False) -> None:
        self.root = root
        self.log = root.parent / f"rat-dev-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ratatouille.cli", "dev", "--port", "0", "--json", *words],
                cwd=cwd or root,
                env={**os.environ, "PYTHONPATH": str(SOURCE), "NO_COLOR": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=_in_the_background if background else None,
            )
        try:
            self.told = self._read_record()
        except BaseException:
            self.process.kill()
            self.process.wait()
            self._close()
            raise
        self.address: str = self.told["address"]
        self.home = Path(self.told["home"])

    def _read_record(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n":
                record: dict[str, Any] = json.loads(text)
                assert "error" not in record, record
                return record
        raise AssertionError(f"rat dev ended: {self.said()}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def group(self) -> int:
        """The group of Dagster's processes: that of the one child of `rat dev`."""
        return children(self.process.pid)[0]

    def __enter__(self) -> Dev:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            assert self.stop() == 0
        else:
            self._close()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """As Ctrl-C does it; the exit code."""
        group = self.group
        self.process.send_signal(number)
        try:
            code = self.process.wait(180)  # a busy machine ends slowly
        except subprocess.TimeoutExpired:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            self.kill_all()
            raise AssertionError(f"{number.name} did not end it:\n{status}\n{self.said()[-2000:]}") from None
        self._close()
        assert living_members(group) == []
        return code

    def ended_by_itself(self, within_s: float = 60) -> tuple[int, str]:
        """The exit code, and what it said on standard output since it was up."""
        code = self.process.wait(within_s)
        assert self.process.stdout is not None
        said = self.process.stdout.read()
        self._close()
        return code, said

    def kill_all(self) -> None:
        group = self.group
        os.kill(self.process.pid, signal.SIGKILL)
        os.killpg(group, signal.SIGKILL)
        self.process.wait(10)
        self._close()
        wait_for(lambda: living_members(group) == [], 10)

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()

    # What the pages ask

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        asked = urllib.request.Request(  # noqa: S310  # our own address
            f"{self.address}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
            found: dict[str, Any] = json.loads(answer.read())
        assert "errors" not in found, found["errors"]
        data: dict[str, Any] = found["data"]
        return data

    def assets(self) -> set[str]:
        found = self.graphql("{ assetNodes { assetKey { path } } }")
        return {"/".join(node["assetKey"]["path"]) for node in found["assetNodes"]}

    def materialize(self, *assets: str) -> str:
        """Launch a run of these assets as the button Materialize does; its id."""
        found = self.graphql(_REPOSITORIES)["repositoriesOrError"]["nodes"][0]
        selector = {
            "repositoryLocationName": found["location"]["name"],
            "repositoryName": found["name"],
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": asset.split("/")} for asset in assets],
            "assetCheckSelection": None,
        }
        launched = self.graphql(_LAUNCH, params={"selector": selector, "mode": "default", "runConfigData": {}})
        assert launched["launchRun"]["__typename"] == "LaunchRunSuccess", launched
        run_id: str = launched["launchRun"]["run"]["runId"]
        return run_id

    def runs(self) -> list[dict[str, Any]]:
        """Newest first: runId, status, rootRunId, tags."""
        runs: list[dict[str, Any]] = self.graphql(_RUNS)["runsOrError"]["results"]
        return runs

    def status(self, run_id: str) -> str:
        return {run["runId"]: str(run["status"]) for run in self.runs()}.get(run_id, "")

    def ended(self, run_id: str, within_s: float = 120) -> str:
        """The status that a run ends with."""
        wait_for(lambda: self.status(run_id) in ENDED, within_s)
        return self.status(run_id)

    def messages(self, run_id: str) -> list[str]:
        found = self.graphql(_LOGS, run=run_id)["logsForRun"]["events"]
        return [event.get("message") or "" for event in found]


_REPOSITORIES = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
_LAUNCH = """mutation L($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } ... on InvalidSubsetError { message } } }"""
_RUNS = "{ runsOrError(limit: 50) { ... on Runs { results { runId status rootRunId tags { key value } } } } }"
_LOGS = """query L($run: ID!) { logsForRun(runId: $run, limit: 1000) {
  ... on EventConnection { events { ... on MessageEvent { message } } } } }"""


def _in_the_background() -> None:
    """What a shell does to `nohup rat dev &`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def wait_for(there: Callable[[], bool], within_s: float, every_s: float = 0.25) -> float:
    """Wait until it is `there`; the seconds that took."""
    began = time.monotonic()
    while not there():
        assert time.monotonic() - began < within_s, f"not within {within_s} seconds"
        time.sleep(every_s)
    return time.monotonic() - began


def children(pid: int) -> list[int]:
    """The living children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, *_ = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(parent) == pid and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def owner_in(home: Path) -> int:
    """The process that `rat dev` notes in its home."""
    found = re.search(r"process (\d+)", (home / LOCK).read_text())
    assert found is not None
    return int(found[1])
