"""The SQL console: one SELECT on the lake, for somebody in a browser.

It is `rat query` with less trust: the query runs in a process of its own (console_worker.py), which the kernel ends when
the time is over or the memory used up; only tables of layers and functions that compute are let through; sensitive
columns are masked, whatever is done with them; rows, letters and files are limited, and what was cut is said.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ratatouille import errors
from ratatouille.engine import look, storage_of
from ratatouille.errors import LakeError, RatError, RequestError
from ratatouille.lake import storage_secrets
from ratatouille.project.records import Project

DOWNLOADS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "HTTPS_PROXY", "NO_PROXY"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may use. Sizes in bytes, `cell` and `characters` in letters."""

    seconds: float = 20.0
    memory_bytes: int = 1_000_000_000
    spill_bytes: int = 2_000_000_000
    rows: int = 1_000  # shown
    cell: int = 5_000  # of one value
    characters: int = 4_000_000  # of all values together
    file_rows: int = 1_000_000  # of a download
    file_bytes: int = 500_000_000
    at_once: int = 2  # queries side by side; others wait
    sql: int = 100_000  # letters of a query


@dataclass(frozen=True, slots=True)
class Result:
    """The first rows of a query, every value as text (None: null). `more`: there are others."""

    columns: tuple[tuple[str, str], ...]  # (name, type)
    rows: tuple[tuple[str | None, ...], ...]
    more: bool = False
    seconds: float = 0.0


class Console:
    """Asks on behalf of the browser. It keeps processes that wait for queries; close it."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self._free = threading.BoundedSemaphore(limits.at_once)
        self._guard = threading.Lock()
        self._waiting: list[subprocess.Popen[str]] = []
        self._closed = False

    def ask(self, project: Project, sql: str) -> Result:
        """The first rows of one SELECT. RequestError or LakeError, in four lines, when there are none to be had."""
        found = self._asked(project, sql)
        columns = tuple((name, kind) for name, kind in found["columns"])
        return Result(columns, tuple(tuple(row) for row in found["rows"]), found["more"], found["seconds"])

    def write(self, project: Project, sql: str, target: Path) -> int:
        """All rows of one SELECT into a .csv or .parquet file in an empty folder; how many. Errors as of `ask`."""
        if target.suffix.lstrip(".") not in DOWNLOADS:
            raise RequestError(
                f"'{target.suffix}' cannot be downloaded", where=target.name, next=f"Use {' or '.join(DOWNLOADS)}"
            )
        return int(self._asked(project, sql, target)["rows"])

    def close(self) -> None:
        """End the processes. May be called twice."""
        with self._guard:
            self._closed, left, self._waiting = True, self._waiting, []
        for worker in left:
            _end(worker)

    def _asked(self, project: Project, sql: str, target: Path | None = None) -> dict[str, Any]:
        if not sql.strip():
            raise RequestError("There is no query yet", where="query", next="select * from silver.sales limit 10")
        if len(sql) > self.limits.sql:
            raise RequestError(
                f"A query has {self.limits.sql:,} letters at most, and this one {len(sql):,}",
                where="query",
                next="Ask it in a terminal: rat query - < FILE",
            )
        if not look.has_lake(project.workspace):
            raise RequestError(
                "there is no lake here yet",
                where=project.workspace.root,
                state="Nothing has been built.",
                next="rat run",
            )
        request = _request(project, sql, self.limits, target)
        with self._worker(project) as worker:
            reply = _sent(worker, request)
            if reply is None:
                raise self._ended(worker)
        if "error" in reply:
            raise _rebuilt(reply["error"])
        return reply

    @contextmanager
    def _worker(self, project: Project) -> Iterator[subprocess.Popen[str]]:
        """A process for one query; one that is still alive afterwards waits for the next."""
        if not self._free.acquire(timeout=self.limits.seconds):
            raise RequestError(
                f"{self.limits.at_once} queries are running, and no more run at once",
                where="console",
                next="Ask again in a moment",
            )
        try:
            with self._guard:
                worker = self._waiting.pop() if self._waiting else None
            if worker is not None and worker.poll() is not None:  # it was killed while it waited
                _end(worker)
                worker = None
            worker = worker or self._started(project)
            try:
                yield worker
            except BaseException:
                _end(worker)
                raise
            with self._guard:
                keep = worker.poll() is None and not self._closed
                if keep:
                    self._waiting.append(worker)
            if not keep:
                _end(worker)
        finally:
            self._free.release()

    def _started(self, project: Project) -> subprocess.Popen[str]:
        settings = storage_secrets(storage_of(project.workspace))
        known = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "ratatouille.pages.console_worker"),
                str(self.limits.memory_bytes),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=known | settings,
            cwd="/",
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C in the server's terminal is the server's
        )

    def _ended(self, worker: subprocess.Popen[str]) -> RatError:
        """Why a process is gone that should have answered."""
        _end(worker)
        if worker.returncode == -signal.SIGALRM:
            return LakeError(
                f"This query was stopped: it took longer than {self.limits.seconds:g} seconds.",
                where="query",
                next="Ask for less (where, limit, fewer joins), or without a limit in a terminal: rat query SQL",
            )
        how = signal.Signals(-worker.returncode).name if worker.returncode < 0 else str(worker.returncode)
        return LakeError(
            f"This query was stopped: its process ended ({how}), as it does when it needs more memory than it may have.",
            where=f"memory: {self.limits.memory_bytes / 1e6:,.0f} MB",
            next="Ask for less (where, limit, fewer columns), or in a terminal: rat query SQL",
        )


def _request(project: Project, sql: str, limits: Limits, target: Path | None) -> dict[str, Any]:
    workspace = project.workspace
    profile = workspace.resources
    memory = min(limits.memory_bytes, profile.memory_bytes or limits.memory_bytes)
    resources = asdict(profile) | {"memory_bytes": memory, "threads": min(2, profile.threads or 2)}
    names = ("root", "name", "layers", "catalog", "data", "environment", "base_catalog", "base_data")
    return {
        "sql": sql,
        "workspace": {name: getattr(workspace, name) for name in names} | {"resources": resources},
        "hidden": {name: sorted(asset.hidden) for name, asset in project.assets.items() if asset.hidden},
        "limits": asdict(limits),
        "target": str(target) if target else "",
    }


def _sent(worker: subprocess.Popen[str], request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer of a process, or None when it has ended."""
    assert worker.stdin is not None and worker.stdout is not None  # noqa: S101  pipes
    try:
        worker.stdin.write(json.dumps(request) + "\n")
        worker.stdin.flush()
    except OSError:
        return None
    line = worker.stdout.readline()
    return json.loads(line) if line.endswith("\n") else None


def _end(worker: subprocess.Popen[str]) -> None:
    for pipe in (worker.stdin, worker.stdout):
        with suppress(OSError, ValueError):
            if pipe is not None:
                pipe.close()
    with suppress(subprocess.TimeoutExpired):
        worker.wait(timeout=0.2)
    worker.kill()
    worker.wait()


def _rebuilt(record: Mapping[str, str]) -> RatError:
    kind = getattr(errors, record.get("error", ""), LakeError)
    kind = kind if isinstance(kind, type) and issubclass(kind, RatError) else LakeError
    return kind(record["what"], where=record["where"], state=record["state"], next=record["next"])
